import asyncio
from collections.abc import Callable
from pathlib import Path

import nats.errors
import pytest
from structlog.testing import capture_logs

from infra.embedded.nats import EmbeddedNats
from infra.events import connection
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.port import LogUnavailableError
from tests.conftest import some_port

WAIT_S = 60.0


async def until(state: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not state():  # noqa: ASYNC110 - nats-py offers no event for it
            await asyncio.sleep(0.005)


async def test_a_writer_sends_nothing_later_that_failed_before(nats_server: EmbeddedNats) -> None:
    writer = await connect_writer(nats_server.url, "writer")
    await nats_server.kill()
    await until(lambda: not writer.is_connected)
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await writer.publish("evt.acme.instance.a", b"too late")
    await nats_server.start()
    await until(lambda: writer.is_connected)
    assert (await writer.jetstream().stream_info("EVENTS")).state.messages == 0
    await disconnect(writer)


async def test_a_server_that_is_away_is_mentioned_not_bewailed(nats_server: EmbeddedNats) -> None:
    with capture_logs() as lines:
        reader = await connect_reader(nats_server.url, "reader")
        await nats_server.kill()
        await until(lambda: reader.stats["errors_received"] >= 5 or len(lines) > 1)
        await asyncio.sleep(6 * connection.RECONNECT_WAIT_S)  # the law is about this time: several tries fall into it
        await disconnect(reader)
    refused = [line for line in lines if line["event"] == "nats_error" and "Refused" in line["error"]]
    assert len(refused) == 1


async def test_the_server_knows_connections_by_name(nats_server: EmbeddedNats) -> None:
    reader = await connect_reader(nats_server.url, "web-reader")
    assert reader.options["name"] == "web-reader"
    await disconnect(reader)
    await disconnect(reader)


async def test_one_reachable_server_of_several_is_enough(nats_server: EmbeddedNats) -> None:
    nowhere = nats_server.url.replace(f":{nats_server.port}", f":{some_port()}")
    reader = await connect_reader(f"{nowhere}, {nats_server.url}", "reader")
    assert reader.is_connected
    await disconnect(reader)


async def test_a_server_that_never_answers_is_reported_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_BUDGET_S", 0.5)
    server = EmbeddedNats(tmp_path, some_port())
    with pytest.raises(LogUnavailableError, match="connect writer: no NATS server let us in") as failure:
        await connect_writer(server.url, "writer")
    assert server.url.split(":")[2].split("@")[0] not in str(failure.value)
