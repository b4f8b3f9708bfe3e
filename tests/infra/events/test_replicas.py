"""Damage to one copy is found: by what the node counts, and by what it cannot read any more."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.reads import ApiError
from infra.events.replicas import ReplicaFinding, replica_findings, unreadable_replicas, watch_replicas
from infra.events.streams import EVENTS, SEALS, USAGE

WAIT_S = 60.0
MESSAGES = 100
MESSAGE_BYTES = 200_000
"""Two full blocks of 8 MB and one begun: only the newest block is checked when a node starts with its index intact."""


@pytest.fixture
async def reader(nats_cluster: EmbeddedNatsCluster) -> AsyncIterator[Client]:
    connection = await connect_reader(nats_cluster.url, "reader")
    yield connection
    await disconnect(connection)


async def fill(url: str, stream_subject: str = "evt.acme.instance.{}") -> None:
    connection = await connect_writer(url, "filler")
    for number in range(MESSAGES):
        await connection.jetstream().publish(stream_subject.format(number), secrets.token_bytes(MESSAGE_BYTES))
    await disconnect(connection)


def flip_a_byte(block: Path) -> None:
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)


def blocks(node: EmbeddedNats) -> list[Path]:
    return sorted(node.store_dir.glob(f"jetstream/*/streams/{EVENTS}/msgs/*.blk"))


async def test_a_rotten_block_is_found_by_reading_and_cured_by_copying(
    nats_cluster: EmbeddedNatsCluster, reader: Client
) -> None:
    await fill(nats_cluster.admin_url)
    assert await replica_findings(nats_cluster.monitor_url) == []
    assert await unreadable_replicas(reader) == []
    leader = await nats_cluster.leader(EVENTS)
    rotten = next(node for node in nats_cluster.nodes if node is not leader)
    await rotten.stop()
    flip_a_byte(blocks(rotten)[0])
    await rotten.start()

    [found] = await found_by_reading(reader)
    assert (found.kind, found.node, found.stream) == ("damaged", rotten.server_name, EVENTS)
    assert "cannot read" in found.fact
    assert await replica_findings(nats_cluster.monitor_url) == []  # counting alone does not see it

    await rotten.stop()
    shutil.rmtree(blocks(rotten)[0].parent.parent)
    await rotten.start()
    await copied(nats_cluster)
    assert await readable_again(reader)


async def readable_again(reader: Client) -> bool:
    """Twice in a row nothing is found: the first look may be at a copy that is still being made."""
    good = 0
    async with asyncio.timeout(WAIT_S):
        while good < 2:
            with contextlib.suppress(nats.errors.Error, ApiError):
                good = 0 if await unreadable_replicas(reader, probes=MESSAGES) else good + 1
    return True


async def found_by_reading(reader: Client) -> list[ReplicaFinding]:
    """The node takes a moment until it answers reads again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(nats.errors.Error, ApiError):
                if found := await unreadable_replicas(reader, probes=MESSAGES):
                    return found
            await asyncio.sleep(0.1)


async def copied(cluster: EmbeddedNatsCluster) -> None:
    """Each look waits for a copy that is behind; bounded by their number."""
    for _ in range(10):
        if await replica_findings(cluster.monitor_url) == []:
            return
    raise AssertionError(await replica_findings(cluster.monitor_url))


async def test_a_node_that_is_away_is_named(nats_cluster: EmbeddedNatsCluster) -> None:
    away = nats_cluster.nodes[1]
    await away.stop()
    found = await replica_findings(nats_cluster.monitor_url)
    assert [f.kind for f in found if f.node == away.monitor_url] == ["unreachable"]
    assert {(f.kind, f.stream) for f in found if f.node == "cluster"} == {
        ("behind", EVENTS),
        ("behind", USAGE),
        ("behind", SEALS),
    }


@pytest.fixture
async def damaged(bare_nats: EmbeddedNats) -> EmbeddedNats:
    """A message is gone from EVENTS, and the first one from USAGE; these streams, unlike ours, allow it."""
    connection = await nats.connect(bare_nats.admin_url)
    manager = connection.jetstream()
    for stream, subject in ((EVENTS, "evt"), (USAGE, "use"), (SEALS, "seal")):
        await manager.add_stream(name=stream, subjects=[subject], allow_direct=True)
        for _ in range(3):
            await manager.publish(subject, b"x")
    assert await replica_findings(bare_nats.monitor_url) == []
    await manager.delete_msg(EVENTS, 2)
    await manager.purge_stream(USAGE, seq=2)
    await connection.close()
    return bare_nats


async def test_a_message_that_was_deleted_is_damage(damaged: EmbeddedNats) -> None:
    found = await replica_findings(damaged.monitor_url)
    assert [(f.kind, f.stream, f.fact) for f in found] == [
        ("damaged", EVENTS, "1 of its messages count as deleted"),
        ("damaged", USAGE, "it has 2 messages up to position 3"),
    ]
    assert all("no other copy" in f.cure for f in found)


async def test_the_watch_says_critically_what_is_damaged(damaged: EmbeddedNats) -> None:
    reader = await connect_reader(damaged.url, "watch")
    with capture_logs() as said:
        watch = asyncio.create_task(watch_replicas(reader, damaged.monitor_url, interval_s=0.05))
        async with asyncio.timeout(WAIT_S):
            while len(said) < 4:  # noqa: ASYNC110 - a list tells of no growth
                await asyncio.sleep(0.01)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    await disconnect(reader)
    assert {(line["log_level"], line["event"]) for line in said} == {("critical", "replica_damaged")}
    assert {line["stream"] for line in said} == {EVENTS, USAGE}
    assert len(said) >= 4, "again each time, until somebody acts"


async def test_an_address_without_a_server_is_a_finding() -> None:
    [found] = [f for f in await replica_findings("http://127.0.0.1:1") if f.stream == ""]
    assert isinstance(found, ReplicaFinding)
    assert found.kind == "unreachable"
