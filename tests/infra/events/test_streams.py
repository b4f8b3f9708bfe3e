import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats
import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events.connection import connect_reader, disconnect
from infra.events.streams import STREAMS, UnfitServerError, ensure_streams, verify_server


@pytest.fixture
async def admin(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await nats.connect(nats_server.admin_url)
    yield connection
    await connection.close()


async def change(admin: Client, stream: str, **settings: object) -> None:
    info = msgspec.json.decode((await admin.request(f"$JS.API.STREAM.INFO.{stream}")).data)
    body = msgspec.json.encode({**info["config"], **settings})
    reply = msgspec.json.decode((await admin.request(f"$JS.API.STREAM.UPDATE.{stream}", body)).data)
    assert "error" not in reply, reply


async def recreate(admin: Client, stream: str, **settings: object) -> None:
    await admin.request(f"$JS.API.STREAM.DELETE.{stream}")
    body = msgspec.json.encode({"name": stream, **STREAMS[stream], **settings})
    reply = msgspec.json.decode((await admin.request(f"$JS.API.STREAM.CREATE.{stream}", body)).data)
    assert "error" not in reply, reply


async def test_a_server_with_all_streams_is_fit(nats_server: EmbeddedNats, admin: Client) -> None:
    assert await verify_server(admin, nats_server.monitor_url) is None  # type: ignore[func-returns-value] # returning is the verdict


async def test_ensuring_twice_creates_once(bare_nats: EmbeddedNats) -> None:
    admin = await nats.connect(bare_nats.admin_url)
    assert await ensure_streams(admin) == list(STREAMS)
    assert await ensure_streams(admin) == []
    await admin.close()


async def test_ensuring_leaves_what_exists_alone(nats_server: EmbeddedNats, admin: Client) -> None:
    await change(admin, "TELEMETRY", max_bytes=1_000_000)
    assert await ensure_streams(admin) == []
    with pytest.raises(UnfitServerError, match="TELEMETRY has max_bytes = 1000000"):
        await verify_server(admin, nats_server.monitor_url)


async def test_a_stream_that_an_earlier_release_compressed_goes_on_uncompressed(
    nats_server: EmbeddedNats, admin: Client
) -> None:
    await recreate(admin, "EVENTS", compression="s2")
    await admin.jetstream().publish("evt._.model.m", b"{}")
    with pytest.raises(UnfitServerError, match="compression"):
        await verify_server(admin, nats_server.monitor_url)
    assert await ensure_streams(admin) == []
    await verify_server(admin, nats_server.monitor_url)
    assert (await admin.jetstream().get_msg("EVENTS", 1)).data == b"{}"


async def test_a_missing_stream_is_refused(nats_server: EmbeddedNats, admin: Client) -> None:
    await admin.request("$JS.API.STREAM.DELETE.USAGE")
    with pytest.raises(UnfitServerError, match="stream USAGE is missing"):
        await verify_server(admin, nats_server.monitor_url)


async def test_a_stream_whose_messages_can_be_deleted_is_refused(nats_server: EmbeddedNats, admin: Client) -> None:
    await recreate(admin, "EVENTS", deny_delete=False)
    with pytest.raises(UnfitServerError, match="EVENTS has deny_delete = False instead of True"):
        await verify_server(admin, nats_server.monitor_url)


async def test_a_stream_that_persists_asynchronously_is_refused(nats_server: EmbeddedNats, admin: Client) -> None:
    await recreate(admin, "USAGE", persist_mode="async", allow_atomic=False)
    with pytest.raises(UnfitServerError, match="USAGE has persist_mode = 'async'"):
        await verify_server(admin, nats_server.monitor_url)


async def test_too_few_copies_are_refused(nats_server: EmbeddedNats, admin: Client) -> None:
    with pytest.raises(UnfitServerError, match="EVENTS has 1 copies instead of 3"):
        await verify_server(admin, nats_server.monitor_url, replicas=3)


async def test_a_server_without_a_witness_of_its_sync_is_refused(nats_server: EmbeddedNats, admin: Client) -> None:
    with pytest.raises(UnfitServerError, match="INVENTIV_NATS_MONITOR_URL"):
        await verify_server(admin, None)
    with pytest.raises(UnfitServerError, match="does not answer"):
        await verify_server(admin, f"http://127.0.0.1:{nats_server.port}")


async def test_a_cluster_is_fit_while_most_of_its_nodes_answer(nats_cluster: EmbeddedNatsCluster) -> None:
    connection = await connect_reader(nats_cluster.url, "reader")
    await nats_cluster.nodes[0].stop()
    await nats_cluster.wait_formed()
    assert await verify_server(connection, nats_cluster.monitor_url, replicas=3) is None  # type: ignore[func-returns-value] # returning is the verdict
    two_away = f"{nats_cluster.nodes[1].monitor_url},http://127.0.0.1:1,http://127.0.0.1:2"
    with pytest.raises(UnfitServerError) as refusal:
        await verify_server(connection, two_away, replicas=3)
    assert len([finding for finding in refusal.value.findings if "does not answer" in finding]) == 2
    await disconnect(connection)


async def test_a_server_that_syncs_every_two_minutes_is_refused(
    nats_server: EmbeddedNats, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nats_server.stop()
    always = nats_server._configuration()
    assert "sync_interval: always" in always
    monkeypatch.setattr(nats_server, "_configuration", lambda: always.replace("sync_interval: always", ""))
    await nats_server.start()
    connection = await nats.connect(nats_server.url)
    with pytest.raises(UnfitServerError, match="does not sync each write to disk") as refusal:
        await verify_server(connection, nats_server.monitor_url)
    assert len(refusal.value.findings) == 1
    await connection.close()


async def test_a_service_may_not_create_streams(bare_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.events.streams.API_TIMEOUT_S", 0.3)

    async def ignore(_error: Exception) -> None: ...

    service = await nats.connect(bare_nats.url, error_cb=ignore)
    with pytest.raises(UnfitServerError, match=re.escape("no answer to $JS.API.STREAM.CREATE.EVENTS")):
        await ensure_streams(service)
    await service.close()


def test_the_configuration_is_readable_by_its_owner_alone(bare_nats: EmbeddedNats) -> None:
    for name in ("nats.conf", "admin.password", "service.password"):
        assert Path(bare_nats.data_dir / name).stat().st_mode & 0o077 == 0, name
