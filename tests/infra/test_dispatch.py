"""The write door: one effect per command, whoever races, whatever the cache believed."""

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

import msgspec
import pytest

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKey, ApiKeyEvent, ApiKeyRenamed, IssueApiKey, RenameApiKey, RevokeApiKey
from domain.decider import Decider, Rejected
from domain.message import Context, payload_hash, subject_of
from domain.organization import ORGANIZATION, slug_digest
from domain.organization_commands import CreateOrganization
from infra.dispatch import SNAPSHOT_EVERY, Dispatcher, fingerprint_of
from infra.events.codec import Codec, encode_envelope
from infra.events.memory import MemoryLog
from infra.events.port import Append, Conflict, LogUnavailableError
from infra.events.snapshots import Snapshot
from projections.projection import LogDamagedError
from tests.examples import ALICE, example, key_to_issue

CONTEXT = Context(actor="user:alice", correlation="c-1")
_ids = count(1)


def new_id() -> str:
    return f"00000000-0000-7000-8000-{next(_ids):012d}"


def dispatcher(log: MemoryLog, snapshots: "FakeSnapshots | None" = None) -> Dispatcher:
    return Dispatcher(log, Codec(AGGREGATES), lambda: datetime.now(UTC), new_id, snapshots)


class FakeSnapshots:
    def __init__(self) -> None:
        self.saved: dict[str, Snapshot] = {}

    async def load(self, aggregate: str, aggregate_id: str, *, schema_fingerprint: str) -> Snapshot | None:
        found = self.saved.get(f"{aggregate}/{aggregate_id}")
        return found if found is not None and found.schema_fingerprint == schema_fingerprint else None

    async def save(self, aggregate: str, aggregate_id: str, snapshot: Snapshot) -> bool:
        self.saved[f"{aggregate}/{aggregate_id}"] = snapshot
        return True


class CountingLog(MemoryLog):
    """Counts reads, to show what the cache spares."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.read_after = 0

    async def read(self, subject: str, *, after: int = 0) -> list:  # type: ignore[type-arg] # as its parent's
        self.reads += 1
        self.read_after = after
        return await super().read(subject, after=after)


async def issued(door: Dispatcher) -> None:
    await door(API_KEY, "org", "key-1", example(IssueApiKey), CONTEXT)


async def test_an_event_carries_who_acted_and_follows_its_predecessor() -> None:
    log = MemoryLog()
    door = dispatcher(log)
    await issued(door)
    receipt = await door(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)
    first, second = await log.read(subject_of("org", "api_key", "key-1"))
    assert (receipt.position, receipt.version) == (second.position, 2)
    assert (second.envelope.version, second.envelope.previous) == (2, payload_hash(first.payload))
    assert (second.envelope.actor, second.envelope.correlation) == ("user:alice", "c-1")
    assert second.envelope.event_id == receipt.event_ids[0]


async def test_news_goes_on_with_the_story_that_its_aggregate_is_in() -> None:
    log = MemoryLog()
    snapshots = FakeSnapshots()
    await issued(dispatcher(log, snapshots))
    news = Context(actor="worker:w", correlation="")
    for door in (dispatcher(log, snapshots), dispatcher(log, snapshots)):
        for n in range(SNAPSHOT_EVERY):
            await door(API_KEY, "org", "key-1", RenameApiKey(name=f"{id(door)} {n}"), news)
    assert snapshots.saved
    assert {r.envelope.correlation for r in await log.read(subject_of("org", "api_key", "key-1"))} == {"c-1"}


async def test_asking_twice_appends_once() -> None:
    log = MemoryLog()
    door = dispatcher(log)
    await issued(door)
    once = await door(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)
    twice = await door(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)
    assert (twice.events, twice.position) == ((), once.position)
    assert await log.head() == 2


async def test_a_cached_aggregate_is_not_read_again() -> None:
    log = CountingLog()
    door = dispatcher(log)
    await issued(door)
    before = log.reads
    for n in range(20):
        await door(API_KEY, "org", "key-1", RenameApiKey(name=f"name {n}"), CONTEXT)
    assert log.reads == before


async def test_a_stale_cache_does_not_write_over_another_writer() -> None:
    log = MemoryLog()
    ours, theirs = dispatcher(log), dispatcher(log)
    await issued(ours)
    await theirs(API_KEY, "org", "key-1", RenameApiKey(name="theirs"), CONTEXT)
    await ours(API_KEY, "org", "key-1", RenameApiKey(name="ours"), CONTEXT)
    loaded = await ours.load(API_KEY, "org", "key-1")
    assert (loaded.state.name, loaded.version) == ("ours", 3)


async def test_a_stale_cache_does_not_refuse() -> None:
    log = MemoryLog()
    ours, theirs = dispatcher(log), dispatcher(log)
    with pytest.raises(Rejected, match="api_key_not_found"):
        await ours(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)
    await issued(theirs)
    receipt = await ours(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)
    assert receipt.version == 2


async def test_a_stale_cache_does_not_answer_that_nothing_is_to_do() -> None:
    log = MemoryLog()
    ours, theirs = dispatcher(log), dispatcher(log)
    await issued(ours)
    await theirs(API_KEY, "org", "key-1", RenameApiKey(name="other"), CONTEXT)
    receipt = await ours(API_KEY, "org", "key-1", RenameApiKey(name="ci"), CONTEXT)
    assert receipt.events == (ApiKeyRenamed(name="ci"),)


async def test_racing_writers_all_succeed_without_a_gap() -> None:
    log = MemoryLog()
    doors = [dispatcher(log) for _ in range(8)]
    await issued(doors[0])
    names = [f"writer {n}" for n in range(len(doors))]
    await asyncio.gather(
        *(door(API_KEY, "org", "key-1", RenameApiKey(name=n), CONTEXT) for door, n in zip(doors, names, strict=True))
    )
    versions = [r.envelope.version for r in await log.read(subject_of("org", "api_key", "key-1"))]
    assert versions == list(range(1, len(doors) + 2))


async def test_commands_of_one_process_on_one_aggregate_do_not_fight() -> None:
    log = ConflictCountingLog()
    door = dispatcher(log)
    await issued(door)
    await asyncio.gather(*(door(API_KEY, "org", "key-1", RenameApiKey(name=f"n{n}"), CONTEXT) for n in range(40)))
    assert (await log.head(), log.conflicts) == (41, 0)


class ConflictCountingLog(MemoryLog):
    def __init__(self) -> None:
        super().__init__()
        self.conflicts = 0

    async def append(self, appends: Sequence[Append]) -> int:
        await asyncio.sleep(0)
        try:
            return await super().append(appends)
        except Conflict:
            self.conflicts += 1
            raise


class AlwaysConflictingLog(MemoryLog):
    async def append(self, appends: Sequence[Append]) -> int:
        raise Conflict([a.subject for a in appends])


async def test_endless_conflicts_end() -> None:
    with pytest.raises(LogUnavailableError, match="IssueApiKey"):
        await issued(dispatcher(AlwaysConflictingLog()))


CREATE = CreateOrganization(name="Acme", owner=ALICE, fallback_slug="org-1")


async def test_a_unique_name_is_reserved_in_the_same_batch() -> None:
    log = MemoryLog()
    await dispatcher(log)(ORGANIZATION, "o-1", "o-1", CREATE, CONTEXT)
    held = await log.last(f"uniq.organization_slug.{slug_digest('acme')}")
    assert held is not None
    assert held.envelope.type == "NameReserved"
    assert await log.head() == 3


async def test_the_second_claimant_of_a_name_is_refused_and_stores_nothing() -> None:
    log = MemoryLog()
    await dispatcher(log)(ORGANIZATION, "o-1", "o-1", CREATE, CONTEXT)
    with pytest.raises(Rejected, match="organization_slug_already_exists"):
        await dispatcher(log)(ORGANIZATION, "o-2", "o-2", CREATE, CONTEXT)
    assert await log.head() == 3


async def test_of_racing_claimants_exactly_one_gets_the_name() -> None:
    log = MemoryLog()
    claims = (dispatcher(log)(ORGANIZATION, f"o-{n}", f"o-{n}", CREATE, CONTEXT) for n in range(8))
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(not isinstance(outcome, Rejected) for outcome in outcomes) == 1
    assert await log.head() == 3


async def test_a_damaged_history_stops_its_aggregate() -> None:
    log = MemoryLog()
    await issued(dispatcher(log))
    subject = subject_of("org", "api_key", "key-1")
    (only,) = await log.read(subject)
    forged = encode_envelope(only.envelope)
    await log.append([Append(subject, only.position, (("forged", forged),))])
    with pytest.raises(LogDamagedError, match="position 2"):
        await dispatcher(log)(API_KEY, "org", "key-1", RevokeApiKey(), CONTEXT)


async def test_a_snapshot_spares_the_history_before_it() -> None:
    log = CountingLog()
    snapshots = FakeSnapshots()
    door = dispatcher(log, snapshots)
    await issued(door)
    for n in range(SNAPSHOT_EVERY + 5):
        await door(API_KEY, "org", "key-1", RenameApiKey(name=f"name {n}"), CONTEXT)
    (saved,) = snapshots.saved.values()
    assert saved.version == SNAPSHOT_EVERY
    cold = await dispatcher(log, snapshots).load(API_KEY, "org", "key-1")
    warm = await door.load(API_KEY, "org", "key-1")
    assert (cold.state, cold.version, cold.position) == (warm.state, warm.version, warm.position)


async def test_a_snapshot_of_another_fold_is_dropped() -> None:
    log = MemoryLog()
    snapshots = FakeSnapshots()
    await issued(dispatcher(log, snapshots))
    snapshots.saved["api_key/key-1"] = Snapshot(
        position=99,
        version=99,
        previous_hash="x",
        correlation="c",
        schema_fingerprint="of another fold",
        state=b'{"name": "wrong"}',
    )
    loaded = await dispatcher(log, snapshots).load(API_KEY, "org", "key-1")
    assert (loaded.state.name, loaded.version) == ("ci", 1)


class WiderApiKey(msgspec.Struct, frozen=True):
    """A state with a field more than yesterday's."""

    state: ApiKey
    renames: int = 0


def _evolve_wider(wider: WiderApiKey, event: ApiKeyEvent, at: datetime) -> WiderApiKey:
    return WiderApiKey(API_KEY.evolve(wider.state, event, at), wider.renames + isinstance(event, ApiKeyRenamed))


def _evolve_shouting(state: ApiKey, event: ApiKeyEvent, at: datetime) -> ApiKey:
    """The same shape, another fold."""
    now = API_KEY.evolve(state, event, at)
    return msgspec.structs.replace(now, name=now.name.upper())


WIDER: Decider[object, ApiKeyEvent, WiderApiKey] = Decider(
    aggregate="api_key",
    events=API_KEY.events,
    initial=WiderApiKey(API_KEY.initial),
    state_type=WiderApiKey,
    evolve=_evolve_wider,
    decide=lambda _state, _command, _at: (),
)
SHOUTING = dataclasses.replace(API_KEY, evolve=_evolve_shouting)


async def with_snapshots(log: MemoryLog) -> FakeSnapshots:
    """An aggregate with a snapshot and some events after it."""
    snapshots = FakeSnapshots()
    door = dispatcher(log, snapshots)
    await issued(door)
    for n in range(SNAPSHOT_EVERY + 5):
        await door(API_KEY, "org", "key-1", RenameApiKey(name=f"name {n}"), CONTEXT)
    assert snapshots.saved
    return snapshots


async def test_a_changed_state_drops_the_snapshots_of_the_old_one() -> None:
    log = MemoryLog()
    loaded = await dispatcher(log, await with_snapshots(log)).load(WIDER, "org", "key-1")
    assert loaded.state.renames == SNAPSHOT_EVERY + 5


async def test_a_changed_fold_of_an_unchanged_state_drops_the_snapshots_of_the_old_one() -> None:
    log = MemoryLog()
    snapshots = await with_snapshots(log)
    loaded = await dispatcher(log, snapshots).load(SHOUTING, "org", "key-1")
    assert loaded.state.name == f"NAME {SNAPSHOT_EVERY + 4}"
    assert fingerprint_of(SHOUTING) != fingerprint_of(API_KEY)
    assert fingerprint_of(dataclasses.replace(API_KEY)) == fingerprint_of(API_KEY)


async def test_control_an_unchanged_fold_uses_its_snapshot() -> None:
    log = CountingLog()
    snapshots = await with_snapshots(log)
    [saved] = snapshots.saved.values()
    await dispatcher(log, snapshots).load(API_KEY, "org", "key-1")
    assert log.read_after == saved.position


def test_aggregates_have_different_fingerprints() -> None:
    assert len({fingerprint_of(decider) for decider in AGGREGATES}) == len(AGGREGATES)


async def test_a_refusal_stores_nothing() -> None:
    log = MemoryLog()
    with pytest.raises(Rejected):
        await dispatcher(log)(API_KEY, "org", "k", key_to_issue(""), CONTEXT)
    assert await log.head() == 0
