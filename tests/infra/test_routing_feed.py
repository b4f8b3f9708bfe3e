"""The gateway's table follows the log, and starts from whatever copy there is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from domain.aggregates import AGGREGATES
from domain.api_key import key_hash
from domain.ids import InstanceId, OrganizationId, WorkerId
from domain.instance_events import InstanceReady, VolumeResized
from domain.telemetry import WorkerSeen
from gateway.loads import Loads
from infra import routing_feed
from infra.embedded.nats import EmbeddedNats
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.memory import MemoryLog
from infra.events.port import Append, EventLog
from infra.postgres import connect, ensure_schema
from infra.routing_feed import RoutingFeed, follow_heartbeats
from infra.telemetry_stream import TelemetryStream
from projections.checkpoint import Move, move
from projections.router import ROUTER
from tests.examples import ACME, example
from tests.gateway.routing import CLEAR_KEY, MODEL, STRANGERS_KEY, Said, entries, key, ready, registered, routing, tell
from tests.gateway.served import until
from tests.given import NOON
from tests.settled import settled

CODEC = Codec(AGGREGATES)
NOWHERE = ""
OF_ANOTHER_SCHEMA = b'{"schema":"x","position":9,"current_at":"2026-11-21T12:00:00Z","rows":0}\n'


@asynccontextmanager
async def following(feed: RoutingFeed, log: EventLog) -> AsyncIterator[RoutingFeed]:
    task = asyncio.ensure_future(feed.follow(log, CODEC, lambda: True))
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def feed(tmp_path: Path) -> RoutingFeed:
    return RoutingFeed(tmp_path / "gateway" / "routing.json", time.monotonic)


async def test_the_table_is_ready_once_it_has_caught_up(feed: RoutingFeed) -> None:
    log = MemoryLog()
    position = await tell(log, key(), ready("i1"))
    await feed.start(NOWHERE)
    before = feed.readiness()
    async with following(feed, log):
        await feed.settle(grace_s=5)
        after = feed.readiness()
    assert (before.ready, after.ready, after.position, after.log_connected) == (False, True, position, True)
    assert feed.table.find_key(key_hash(CLEAR_KEY)) is not None


async def test_news_reaches_the_table_while_it_follows(feed: RoutingFeed) -> None:
    log = MemoryLog()
    async with following(feed, log):
        await feed.settle(grace_s=5)
        await tell(log, registered("i1"))
        await until(lambda: len(feed.table.candidates(ACME, MODEL)) == 1)
        await tell(log, [(ACME, "i1", InstanceReady())])
        await until(lambda: feed.table.candidates(ACME, MODEL)[0].status == "ready")


async def test_without_the_log_a_snapshot_has_to_do(feed: RoutingFeed, tmp_path: Path) -> None:
    log = MemoryLog()
    position = await tell(log, key(), ready("i1"))
    async with following(feed, log):
        await feed.settle(grace_s=5)
    await feed.save()
    alone = RoutingFeed(tmp_path / "gateway" / "routing.json", time.monotonic)
    await alone.start(NOWHERE)
    await alone.settle(grace_s=0.01)
    told = alone.readiness()
    assert (told.ready, told.source, told.position, told.log_connected) == (True, "disk", position, False)
    assert alone.table.snapshot(NOON) == feed.table.snapshot(NOON)


async def test_without_log_and_copy_the_table_is_not_ready(feed: RoutingFeed) -> None:
    await feed.start(NOWHERE)
    await feed.settle(grace_s=0.01)
    assert not feed.readiness().ready


async def test_a_snapshot_is_continued_from_where_it_was_taken(feed: RoutingFeed, tmp_path: Path) -> None:
    log = MemoryLog()
    await tell(log, key())
    async with following(feed, log):
        await feed.settle(grace_s=5)
    await feed.save()
    await tell(log, key(STRANGERS_KEY, key_id="k2"))
    again = RoutingFeed(tmp_path / "gateway" / "routing.json", time.monotonic)
    await again.start(NOWHERE)
    async with following(again, log):
        await again.settle(grace_s=5)
    assert again.table.find_key(key_hash(CLEAR_KEY)) is not None
    assert again.table.find_key(key_hash(STRANGERS_KEY)) is not None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"schema":"x","position":9,"current_at":"2026-11-21T12:00:00Z","rows":[]}', b"\xff"]
)
async def test_a_damaged_snapshot_is_left_aside(feed: RoutingFeed, tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "gateway" / "routing.json"
    path.parent.mkdir()
    path.write_bytes(damage)
    await feed.start(NOWHERE)
    assert (feed.table.position, feed.readiness().source) == (0, "log")


async def test_a_snapshot_can_be_read_by_its_owner_alone(feed: RoutingFeed, tmp_path: Path) -> None:
    await feed.save()
    assert (tmp_path / "gateway" / "routing.json").stat().st_mode & 0o777 == 0o600


async def test_another_log_under_the_same_snapshot_is_read_from_its_beginning(
    feed: RoutingFeed, tmp_path: Path
) -> None:
    old, new = MemoryLog(), MemoryLog()
    await tell(old, key(STRANGERS_KEY, key_id="k0"), ready("gone"), ready("gone-too"))
    async with following(feed, old):
        await feed.settle(grace_s=5)
    await tell(new, key())
    async with following(feed, new):
        await until(lambda: feed.table.find_key(key_hash(CLEAR_KEY)) is not None)
    assert feed.table.find_key(key_hash(STRANGERS_KEY)) is None
    assert feed.table.position == await new.head()


async def test_an_event_of_a_newer_release_is_passed_over(feed: RoutingFeed) -> None:
    log = MemoryLog()
    payload = await _payload(log)
    strange = payload.replace(b'"ApiKeyIssued"', b'"ApiKeyBlessed"')
    await log.append([Append("evt.x.api_key.strange", 0, (("strange", strange),))])
    await tell(log, key())
    async with following(feed, log):
        await feed.settle(grace_s=5)
    assert feed.table.find_key(key_hash(CLEAR_KEY)) is not None
    assert feed.table.position == await log.head()


async def _payload(log: MemoryLog) -> bytes:
    await tell(log, key(STRANGERS_KEY, key_id="k9"))
    last = await log.last(f"evt.{ACME}.api_key.k9")
    assert last is not None
    return last.payload


async def test_the_table_is_saved_while_it_changes(
    feed: RoutingFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_feed, "SAVE_INTERVAL_S", 0.01)
    monkeypatch.setattr(routing_feed, "TICK_S", 0.01)
    log, path = MemoryLog(), tmp_path / "gateway" / "routing.json"
    saving = asyncio.ensure_future(feed.keep_saved(Loads(stale_s=lambda: 9, now_s=time.monotonic)))
    async with following(feed, log):
        position = await tell(log, key())
        await until(lambda: path.exists() and position_in(path) == position)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)


def position_in(path: Path) -> int:
    head: dict[str, int] = msgspec.json.decode(path.read_bytes().splitlines()[0])
    return head["position"]


async def test_heartbeats_reach_the_loads(nats_server: EmbeddedNats) -> None:
    loads = Loads(stale_s=lambda: 9, now_s=time.monotonic)
    reader, writer = await connect_reader(nats_server.url, "test"), await connect_writer(nats_server.url, "test")
    await follow_heartbeats(reader, loads)
    await settled(reader)
    await writer.publish("tel.acme.i1.heartbeat", b"not a heartbeat")
    await TelemetryStream(writer).publish(
        WorkerSeen(
            organization_id=OrganizationId("acme"),
            instance_id=InstanceId("i1"),
            worker_id=WorkerId("w1"),
            at=datetime.now(UTC),
            status="ready",
            queue_depth=3,
            kv_cache_usage=0.5,
        )
    )
    await until(lambda: loads.of("i1").foreign == 3)
    assert loads.of("i1").kv_cache_usage == 0.5
    await disconnect(reader)
    await disconnect(writer)


async def in_postgres(url: str, *told: list[Said]) -> int:
    """The router tables as the projections process would have left them; returns their position."""
    log = entries(one for many in told for one in many)
    async with await connect(url, "test") as connection:
        await ensure_schema(connection, ROUTER)
        await connection.execute(f"SET search_path TO {ROUTER.schema}")
        await ROUTER.apply(log, connection)
        await move(connection, [Move(ROUTER, 0, log[-1].position)])
    return log[-1].position


async def test_the_router_tables_give_a_start(feed: RoutingFeed, postgres_url: str) -> None:
    position = await in_postgres(postgres_url, key(), ready("i1"))
    await feed.start(postgres_url)
    assert (feed.readiness().source, feed.table.position) == ("postgres", position)
    assert sorted(feed.table.rows(), key=repr) == sorted(routing(key(), ready("i1")).rows(), key=repr)


async def started(feed: RoutingFeed, folder: Path, postgres_url: str, *, later_s: float, trust_s: float) -> RoutingFeed:
    """Another process, started so long after `feed` saved its table."""
    await feed.save()
    path, later = folder / "gateway" / "routing.json", datetime.now(UTC) + timedelta(seconds=later_s)
    again = RoutingFeed(path, time.monotonic, trust_s=trust_s, utc=lambda: later)
    await again.start(postgres_url)
    return again


async def test_of_an_old_snapshot_and_the_router_tables_the_newer_one_wins(
    feed: RoutingFeed, tmp_path: Path, postgres_url: str
) -> None:
    later_s, trust_s = routing_feed.FRESH_S + 1, 86_400
    await in_postgres(postgres_url, key(), ready("i1"))
    feed.table = routing(key(), ready("i1"), ready("i2"))
    newer = await started(feed, tmp_path, postgres_url, later_s=later_s, trust_s=trust_s)
    assert (newer.readiness().source, len(newer.table.candidates(ACME, MODEL))) == ("disk", 2)
    feed.table = routing(key())
    older = await started(feed, tmp_path, postgres_url, later_s=later_s, trust_s=trust_s)
    assert (older.readiness().source, len(older.table.candidates(ACME, MODEL))) == ("postgres", 1)


@pytest.mark.parametrize(
    ("later_s", "trust_s", "source"), [(500, 86_400, "disk"), (20, 60, "disk"), (61, 60, "postgres")]
)
async def test_beside_a_snapshot_that_is_fresh_and_trusted_postgres_is_not_asked(
    feed: RoutingFeed, tmp_path: Path, postgres_url: str, later_s: float, trust_s: float, source: str
) -> None:
    await in_postgres(postgres_url, key(), ready("i1"))
    feed.table = routing(key())
    again = await started(feed, tmp_path, postgres_url, later_s=later_s, trust_s=trust_s)
    assert again.readiness().source == source


async def test_without_router_tables_or_postgres_the_start_goes_on(feed: RoutingFeed, postgres_url: str) -> None:
    await feed.start(postgres_url)
    await feed.start("postgresql://nobody:x@127.0.0.1:1/nothing")
    assert feed.readiness().source == "log"


async def test_a_history_that_cannot_be_folded_spoils_no_other(feed: RoutingFeed) -> None:
    log = MemoryLog()
    await tell(log, registered("i1"), [(ACME, "i1", example(VolumeResized))], key(), ready("i2"))
    async with following(feed, log):
        await feed.settle(grace_s=5)
    assert {worker.instance_id for worker in feed.table.candidates(ACME, MODEL)} == {"i1", "i2"}
    assert feed.table.find_key(key_hash(CLEAR_KEY)) is not None
