"""Each reader of EVENTS, told a log that was tampered with: none folds on.

Three need no test of their own. Reactions are level-triggered: an event only wakes them, and what they look at is
loaded through the write door. Live updates show what passes by and own nothing; a hole ends their follow through the
log's own contract. The audit log's pages are rows that were checked when they were written.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKeyIssued, RenameApiKey
from domain.ids import OrganizationId
from domain.message import Context, Recorded, payload_hash
from infra.dispatch import Dispatcher, fingerprint_of
from infra.events.codec import Codec
from infra.events.snapshots import Snapshot
from infra.postgres import connect
from infra.projecting import Bystanders, EventSource, Projector
from infra.routing_feed import RoutingFeed
from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG
from projections.checkpoint import position_of
from projections.projection import LogDamagedError, Projection
from tests.examples import example
from tests.gateway.served import until
from tests.infra.events.doctored import DAMAGES, Damage, DoctoredLog, altered, honest_messages

ACME = OrganizationId("acme")
CODEC = Codec(AGGREGATES)
CONTEXT = Context(actor="user:alice", correlation="intent")
RENAME = RenameApiKey(name="another")
MESSAGES = honest_messages()
FIRST_OF_K0, THIRD_OF_K0 = 1, 5
PATIENCE_S = 60.0


class KeptSnapshot:
    """Answers with one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    async def load(self, aggregate: str, aggregate_id: str, *, schema_fingerprint: str) -> Snapshot | None:
        return self.snapshot if schema_fingerprint == self.snapshot.schema_fingerprint else None

    async def save(self, aggregate: str, aggregate_id: str, snapshot: Snapshot) -> bool:
        return False


def dispatcher_on(log: DoctoredLog, snapshot: Snapshot | None = None) -> Dispatcher:
    snapshots = None if snapshot is None else KeptSnapshot(snapshot)
    return Dispatcher(log, CODEC, lambda: datetime.now(UTC), lambda: str(uuid7()), snapshots)


@pytest.fixture(autouse=True)
def _a_leader_needs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.dispatch.LEADER_PAUSE_S", 0.0)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_command_on_a_damaged_aggregate_is_not_decided(damage: Damage) -> None:
    log = DoctoredLog(damage(MESSAGES, THIRD_OF_K0))
    with pytest.raises(LogDamagedError, match=r"k-0"):
        await dispatcher_on(log)(API_KEY, ACME, "k-0", RENAME, CONTEXT)
    with pytest.raises(AssertionError, match="nobody may build"):  # its neighbour is sound, so that append is tried
        await dispatcher_on(log)(API_KEY, ACME, "k-1", RENAME, CONTEXT)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_cached_aggregate_is_checked_when_it_is_caught_up(damage: Damage) -> None:
    log = DoctoredLog(MESSAGES[:3])
    dispatcher = dispatcher_on(log)
    await dispatcher.load(API_KEY, ACME, "k-0")
    log.messages = damage(MESSAGES, THIRD_OF_K0)
    with pytest.raises(LogDamagedError, match=r"k-0"):
        await dispatcher.load(API_KEY, ACME, "k-0")


@pytest.mark.parametrize("lost", [MESSAGES[: THIRD_OF_K0 - 1], MESSAGES[1:2]], ids=["the newest", "all of it"])
async def test_an_aggregate_that_the_log_no_longer_has_is_not_answered_for_from_memory(lost: list[Recorded]) -> None:
    log = DoctoredLog(MESSAGES)
    dispatcher = dispatcher_on(log)
    await dispatcher.load(API_KEY, ACME, "k-0")
    log.messages = lost
    with pytest.raises(LogDamagedError, match="does not end with version 5"):
        await dispatcher.load(API_KEY, ACME, "k-0")
    with pytest.raises(LogDamagedError, match="does not end with version 5"):
        await dispatcher(API_KEY, ACME, "k-0", RenameApiKey(name="name 3"), CONTEXT)  # asks for what already holds
    snapshot = snapshot_of_k0(MESSAGES[-2])
    with pytest.raises(LogDamagedError, match="does not end with version 5"):
        await dispatcher_on(log, snapshot).load(API_KEY, ACME, "k-0")


async def test_a_leader_that_has_yet_to_apply_what_was_acknowledged_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = DoctoredLog(MESSAGES)
    dispatcher = dispatcher_on(log)
    await dispatcher.load(API_KEY, ACME, "k-0")
    log.messages = MESSAGES[: THIRD_OF_K0 - 1]

    ask, looks = log.last, 0

    async def last(subject: str) -> Recorded | None:
        nonlocal looks
        looks += 1
        if looks == 3:
            log.messages = MESSAGES
        return await ask(subject)

    monkeypatch.setattr(log, "last", last)
    assert (await dispatcher.load(API_KEY, ACME, "k-0")).version == 5
    assert looks == 3


async def test_a_newest_event_that_was_altered_is_noticed_by_whoever_knew_it() -> None:
    log = DoctoredLog(MESSAGES[:THIRD_OF_K0])
    dispatcher = dispatcher_on(log)
    await dispatcher.load(API_KEY, ACME, "k-0")
    log.messages = altered(log.messages, THIRD_OF_K0)
    with pytest.raises(LogDamagedError, match="does not end with version 3"):
        await dispatcher.load(API_KEY, ACME, "k-0")


def snapshot_of_k0(upto: Recorded) -> Snapshot:
    return Snapshot(
        position=upto.position,
        version=upto.envelope.version,
        previous_hash=payload_hash(upto.payload),
        correlation="c",
        schema_fingerprint=fingerprint_of(API_KEY),
        state=b"{}",
    )


async def test_a_snapshot_must_be_of_the_history_that_goes_on_from_it() -> None:
    honest = snapshot_of_k0(MESSAGES[2])
    loaded = await dispatcher_on(DoctoredLog(MESSAGES), honest).load(API_KEY, ACME, "k-0")
    assert loaded.version == 5
    with pytest.raises(LogDamagedError, match="does not go on from version 3"):
        await dispatcher_on(DoctoredLog(altered(MESSAGES, 5)), honest).load(API_KEY, ACME, "k-0")
    stranger = snapshot_of_k0(altered(MESSAGES, 3)[2])
    with pytest.raises(LogDamagedError, match="does not go on from version 2"):
        await dispatcher_on(DoctoredLog(MESSAGES), stranger).load(API_KEY, ACME, "k-0")


@pytest.mark.parametrize("projection", [API_KEYS, AUDIT_LOG], ids=lambda p: p.name)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_read_model_stops_before_the_damage(postgres_url: str, projection: Projection, damage: Damage) -> None:
    source = EventSource(DoctoredLog(damage(MESSAGES, THIRD_OF_K0)), CODEC)
    bystanders = Bystanders(postgres_url)
    projector = Projector(projection, source, postgres_url, bystanders)
    for _ in range(2):  # a second try does not pass over what stopped the first
        with pytest.raises(LogDamagedError):
            await asyncio.wait_for(projector.keep(), PATIENCE_S)
    async with await connect(postgres_url, "test") as connection:
        assert await position_of(connection, projection) < THIRD_OF_K0 + 2
    await bystanders.close()


async def test_the_audit_log_remembers_the_heads_that_a_restart_forgets(postgres_url: str) -> None:
    doctored = altered(MESSAGES, THIRD_OF_K0)
    log = DoctoredLog(doctored[:THIRD_OF_K0])
    bystanders = Bystanders(postgres_url)
    with pytest.raises(TimeoutError):  # nothing tells yet that the newest message is not as it was written
        await asyncio.wait_for(Projector(AUDIT_LOG, EventSource(log, CODEC), postgres_url, bystanders).keep(), 1)
    log.messages = doctored
    with pytest.raises(LogDamagedError, match="version 3 is not as it was written"):
        await asyncio.wait_for(
            Projector(AUDIT_LOG, EventSource(log, CODEC), postgres_url, bystanders).keep(), PATIENCE_S
        )
    await bystanders.close()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_gateway_serves_on_with_what_it_knew_before_the_damage(tmp_path: Path, damage: Damage) -> None:
    feed = RoutingFeed(tmp_path / "routing.json", time.monotonic)
    with capture_logs() as lines:
        task = asyncio.ensure_future(feed.follow(DoctoredLog(damage(MESSAGES, THIRD_OF_K0)), CODEC, lambda: True))
        await until(lambda: any(line["event"] == "log_damaged" for line in lines))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert FIRST_OF_K0 < feed.table.position <= THIRD_OF_K0 + 1
    assert feed.table.find_key(example(ApiKeyIssued).key_sha256) is not None
