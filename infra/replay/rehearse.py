"""Tells a reaction its old events again, and compares what it would do with what was done.

    log from a position ──> wakings ──> the real reaction, dry doors, the log as it was then ──┐
            └──> events that name the waking as their cause, deeds in the ledger ──────────────┴──> verdict

A waking is one decision: the events that one command wrote to one aggregate, which no look ever sees apart. When the
answer was "look again later", and nothing happened to the aggregate before that time, the rehearsal looks again too.
The surprising rule: what was done is compared by names (event types, calls and whom they are about), not by fields.

Known limit: the real look loads what is newest. Where two decisions fell together, it saw both at the first of them;
the rehearsal sees one after the other, and the pair shows as `different` and `new`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from domain.aggregates import AGGREGATES
from domain.message import Envelope, Recorded
from handlers.advance_instance import ACTOR
from handlers.outcome import Done, Outcome, RetryAfter, is_own_fault, outcome_of
from handlers.ports import HandlerSettings, Trigger
from handlers.subscriptions import Reaction
from infra.effect_tables import effects_of
from infra.events.codec import Codec
from infra.replay.dry_clouds import Deed, LookEnds
from infra.replay.dry_doors import DryRun, LogThen
from projections.projection import Connection

MAX_WAKINGS = 200_000
"""Kept in memory, some 500 bytes each."""
MAX_LOOKS = 16
"""At one waking: its own, and the timers' that follow from it."""
LEDGER_BATCH = 500

Verdict = Literal["same", "different", "new", "missing", "failed", "unverified"]
DIFFERENCES: frozenset[Verdict] = frozenset({"different", "new", "missing", "failed"})


class ReadableLog(Protocol):
    """The part of an event log that a rehearsal may have."""

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]: ...

    async def head(self) -> int: ...

    def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]: ...


CallsOf = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[Deed]]]]
"""Event ids -> the reaction's calls on record because of each of them (see infra/effect_tables.py)."""


class TooManyWakingsError(ValueError):
    """More than MAX_WAKINGS; rehearse a part of them."""


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """One waking.

    Attributes:
        position, at, aggregate, id, version: of its first event.
        events: the types of its events.
        would: what the reaction does now, with the log as it was then.
        did: what was done because of it.
        verdict: same; different; new (nothing was done then); missing (nothing would be done now); failed (the reaction
            raises); unverified (a call that no ledger can confirm).
        fault: of `failed`, the exception in words.
    """

    position: int
    at: datetime
    aggregate: str
    id: str
    version: int
    events: tuple[str, ...]
    would: tuple[Deed, ...]
    did: tuple[Deed, ...]
    verdict: Verdict
    fault: str = ""


@dataclass
class _Waking:
    """One decision as it stands in the log; `until` is when something else happened to the aggregate."""

    first: Recorded
    last: Recorded
    types: list[str]
    ids: list[str]
    did: list[Deed] = field(default_factory=list)
    until: datetime | None = None


@dataclass(frozen=True)
class _Looked:
    """What one waking's looks came to."""

    would: tuple[Deed, ...]
    asked: bool = False
    fault: str = ""


class Rehearsal:
    """A reaction, and the only things that its rehearsal may touch.

    Args:
        reaction: the real one.
        log: read alone.
        calls_of: see CallsOf.
        settings, providers: as the handlers have them.
    """

    def __init__(
        self,
        reaction: Reaction,
        log: ReadableLog,
        calls_of: CallsOf,
        *,
        settings: HandlerSettings,
        providers: Sequence[str],
    ) -> None:
        self._reaction = reaction
        self._log = log
        self._calls_of = calls_of
        self._settings = settings
        self._providers = tuple(providers)
        self._codec = Codec(AGGREGATES)
        self._ended_at: datetime | None = None

    async def perform(
        self, *, first: int, last: int | None, advance: Callable[[int], None]
    ) -> AsyncIterator[Rehearsed]:
        """Each waking between two positions, in the log's order.

        Args:
            first: position, inclusive.
            last: position, inclusive; None is the end. What was done is looked for up to the end in any case.
            advance: told how many messages have been read or wakings rehearsed since it was last told.

        Raises:
            TooManyWakingsError: see the class.
            GapError, LogDamagedError: the log is not whole.
        """
        wakings = iter(await self._find_wakings(first, last, advance))
        then = LogThen(self._log.read)
        while batch := list(islice(wakings, LEDGER_BATCH)):
            calls = await self._calls_of([event_id for waking in batch for event_id in waking.ids])
            for waking in batch:
                looked = await self._look(waking, then)
                did = [*waking.did, *(call for event_id in waking.ids for call in calls.get(event_id, ()))]
                advance(1)
                yield _rehearsed(waking, looked, tuple(did))

    async def _find_wakings(self, first: int, last: int | None, advance: Callable[[int], None]) -> Sequence[_Waking]:
        head = await self._log.head()
        found = _Found(self._reaction, head if last is None else min(last, head))
        if first > found.last_position:
            return ()
        async with self._log.follow(after=first - 1) as batches:
            async for batch in batches:
                for recorded in batch:
                    found.add(recorded)
                advance(len(batch))
                self._ended_at = batch[-1].envelope.at
                if batch[-1].position >= head:
                    break
        return [waking for waking in found.wakings if not self._reaction.events.isdisjoint(waking.types)]

    async def _look(self, waking: _Waking, then: LogThen) -> _Looked:
        """The look that the events woke, and those that its timers woke before anything else happened."""
        trigger, now = _trigger(waking), waking.last.envelope.at
        until = waking.until or self._ended_at or now
        would: list[Deed] = []
        for _ in range(MAX_LOOKS):
            dry = DryRun(then, self._codec, trigger, waking.last.position, now)
            outcome: Outcome | None = None
            try:
                outcome = await self._reaction.react(trigger, dry.doors(self._settings, self._providers))
            except LookEnds as end:
                return _Looked((*would, *dry.deeds), asked=end.asked)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the rehearsal tells it
                if is_own_fault(fault):
                    return _Looked((*would, *dry.deeds), fault=f"{type(fault).__name__}: {fault}")
                outcome = outcome_of(fault, version=trigger.version, attempt=trigger.attempt, own_faults=0)
            would += dry.deeds
            again_at = _again_at(outcome, now)
            if again_at is None or again_at > until:
                break
            trigger, now = replace(trigger, attempt=trigger.attempt + isinstance(outcome, RetryAfter)), again_at
        return _Looked(tuple(would))


class _Found:
    """Gathers wakings, and what handlers wrote because of them, from the log in its order."""

    def __init__(self, reaction: Reaction, last_position: int) -> None:
        self.wakings: list[_Waking] = []
        self.last_position = last_position
        self._aggregate = reaction.aggregate
        self._newest: dict[str, _Waking] = {}
        self._by_event: dict[str, _Waking] = {}

    def add(self, recorded: Recorded) -> None:
        envelope = recorded.envelope
        if envelope.cause in self._by_event and envelope.actor == ACTOR:
            deed = Deed("event", envelope.type, f"{envelope.aggregate}/{envelope.id}")
            self._by_event[envelope.cause].did.append(deed)
        if envelope.aggregate != self._aggregate:
            return
        before = self._newest.get(recorded.subject)
        if before is not None and _is_one_decision(before.last.envelope, envelope):
            before.last = recorded
            before.types.append(envelope.type)
            before.ids.append(envelope.event_id)
            self._by_event[envelope.event_id] = before
            return
        if before is not None:
            before.until = envelope.at
            del self._newest[recorded.subject]
        if recorded.position <= self.last_position:
            self._begin(recorded)

    def _begin(self, recorded: Recorded) -> None:
        if len(self.wakings) >= MAX_WAKINGS:
            raise TooManyWakingsError(f"more than {MAX_WAKINGS:,} wakings up to position {recorded.position}")
        envelope = recorded.envelope
        waking = _Waking(recorded, recorded, [envelope.type], [envelope.event_id])
        self.wakings.append(waking)
        self._newest[recorded.subject] = self._by_event[envelope.event_id] = waking


def calls_on_record(connection: Connection, reaction: str) -> CallsOf:
    """What the ledger knows of one reaction; nothing where there is no ledger yet."""

    async def calls_of(event_ids: Sequence[str]) -> Mapping[str, Sequence[Deed]]:
        calls: dict[str, list[Deed]] = {}
        for row in await effects_of(connection, event_ids):
            if row.effect.reaction == reaction:
                calls.setdefault(row.effect.event_id, []).append(Deed("call", row.effect.name, row.effect.key))
        return calls

    return calls_of


def verdict_of(would: Sequence[Deed], did: Sequence[Deed], *, asked: bool) -> Verdict:
    """Pure.

    Args:
        would: see Rehearsed.
        did: see Rehearsed.
        asked: the look ended at a question to the world, so that what was done because of its answer came after.
    """
    if not would and not did:
        return "same"
    if not did:
        return "new"
    if not would and not asked:
        return "missing"
    written = Counter(deed for deed in did if deed.kind == "event")
    wanted = Counter(deed for deed in would if deed.kind == "event")
    if wanted - written or (written - wanted and not asked):
        return "different"
    called = {deed for deed in did if deed.kind == "call"}
    calls = {deed for deed in would if deed.kind == "call"}
    if calls == called:
        return "same"
    return "different" if called else "unverified"


def _rehearsed(waking: _Waking, looked: _Looked, did: tuple[Deed, ...]) -> Rehearsed:
    envelope = waking.first.envelope
    return Rehearsed(
        position=waking.first.position,
        at=envelope.at,
        aggregate=envelope.aggregate,
        id=envelope.id,
        version=envelope.version,
        events=tuple(waking.types),
        would=looked.would,
        did=did,
        verdict="failed" if looked.fault else verdict_of(looked.would, did, asked=looked.asked),
        fault=looked.fault,
    )


def _trigger(waking: _Waking) -> Trigger:
    envelope = waking.last.envelope
    return Trigger(
        organization=envelope.organization,
        aggregate=envelope.aggregate,
        id=envelope.id,
        cause=envelope.event_id,
        correlation=envelope.correlation,
        version=envelope.version,
        done=waking.first.envelope.version - 1,
    )


def _again_at(outcome: Outcome, now: datetime) -> datetime | None:
    match outcome:
        case Done(again_at=again_at):
            return again_at
        case RetryAfter(seconds=seconds):
            return now + timedelta(seconds=seconds)
        case _:
            return None


def _is_one_decision(before: Envelope, envelope: Envelope) -> bool:
    """Dispatch gives all events of one decision the same stamp."""
    return (before.at, before.actor, before.cause, before.correlation) == (
        envelope.at,
        envelope.actor,
        envelope.cause,
        envelope.correlation,
    )
