import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats import EmbeddedNats


@pytest.fixture
async def admin(bare_nats: EmbeddedNats) -> AsyncIterator[Client]:
    async def ignore(_error: Exception) -> None: ...

    connection = await nats.connect(bare_nats.admin_url, error_cb=ignore, reconnect_time_wait=0.05)
    yield connection
    await connection.close()


async def test_a_stream_survives_a_crash_and_the_passwords_stay(bare_nats: EmbeddedNats, admin: Client) -> None:
    await admin.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await admin.jetstream().publish("kept", b"before the crash")
    url = bare_nats.url
    await bare_nats.kill()
    assert bare_nats.pid is None
    await bare_nats.start()
    assert bare_nats.url == url
    async with await nats.connect(url) as service:
        assert (await service.jetstream().get_msg("KEPT", 1)).data == b"before the crash"


async def test_nobody_connects_without_a_password(bare_nats: EmbeddedNats) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bare_nats.port)
    writer.write(b"CONNECT {}\r\nPING\r\n")
    async with asyncio.timeout(10):
        assert b"-ERR 'Authorization Violation'" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_service_may_not_destroy_a_stream(bare_nats: EmbeddedNats, admin: Client) -> None:
    await admin.jetstream().add_stream(name="EVENTS", subjects=["evt.>"])
    refusals: list[str] = []

    async def remember(error: Exception) -> None:
        refusals.append(str(error).lower())

    service = await nats.connect(bare_nats.url, error_cb=remember)
    for verb in ("DELETE", "UPDATE", "PURGE"):
        with pytest.raises(nats.errors.TimeoutError):
            await service.request(f"$JS.API.STREAM.{verb}.EVENTS", b"{}", timeout=0.1)
    await service.close()
    assert [("permissions violation" in refusal) for refusal in refusals] == [True] * 3
    assert (await admin.jetstream().stream_info("EVENTS")).config.name == "EVENTS"


async def test_a_port_that_is_taken_is_reported_with_the_servers_own_words(
    bare_nats: EmbeddedNats, tmp_path: Path
) -> None:
    second = EmbeddedNats(tmp_path, bare_nats.port, monitor_port=bare_nats.monitor_port + 1)
    with pytest.raises(EmbeddedServerError, match="address already in use"):
        await second.start()
    assert second.pid is None
