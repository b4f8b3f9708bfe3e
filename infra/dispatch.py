"""The one write door: load an aggregate, let it decide, append what follows; on conflict load again.

    command ──> cached state ──> decide ──> append, expecting the cached position ──> receipt
                     ^                          │ conflict: another writer was first
                     └──────── catch up <───────┘

The cache is trusted and the store checks: a command on a cached aggregate is one publish. Two answers need no append
and so would not be checked, a refusal and "nothing to do"; before giving either, the head of the log is read through
the leader. Every event read is checked against its predecessor's version and hash.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib import resources
from inspect import getsource
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected, Release, schema_of
from domain.ids import PLATFORM, EventId, OrganizationId
from domain.message import Context, Envelope, Recorded, payload_hash, reservation_subject, subject_of
from domain.ports import Clock, Loaded, NewId, Receipt
from domain.reservation import RESERVATION, NameReleased, NameReserved
from infra.events.codec import Codec, encode_envelope
from infra.events.port import Append, Conflict, EventLog, LogUnavailableError
from infra.events.snapshots import Snapshot
from projections.projection import LogDamagedError

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

CACHED_AGGREGATES = 10_000
MAX_CONFLICTS = 16
"""Tries for one command; each lost race means that another writer made progress."""
MAX_CATCH_UPS = 50
"""Looks at a replica that lags behind its leader, before giving up."""
LEADER_LOOKS = 50
LEADER_PAUSE_S = 0.1
"""A leader that was just elected may answer before it has applied what its predecessor acknowledged. Seen with kill -9
under load; for so long a log that ends too early is asked again, then it has lost events."""
SNAPSHOT_EVERY = 100
"""Events between two snapshots of one aggregate: a cold load then folds at most this many."""

_log = structlog.get_logger()


class Snapshots(Protocol):
    """Where folds are cached (events/snapshots.py); losing one costs time, never truth, so neither call raises."""

    async def load(self, aggregate: str, aggregate_id: str, *, schema_fingerprint: str) -> Snapshot | None: ...

    async def save(self, aggregate: str, aggregate_id: str, snapshot: Snapshot) -> bool: ...


class _Known(msgspec.Struct, Generic[S], frozen=True):
    state: S
    version: int
    position: int
    payload_hash: str
    correlation: str


class _Address(msgspec.Struct, frozen=True):
    organization: str
    aggregate: str
    id: str
    subject: str

    @property
    def holder(self) -> str:
        return f"{self.aggregate}/{self.id}"


class _Stamp(msgspec.Struct, frozen=True):
    """What all events of one decision share."""

    at: datetime
    context: Context


class Dispatcher:
    """Implements domain.ports.Dispatch and Load over any EventLog."""

    def __init__(
        self, log: EventLog, codec: Codec, clock: Clock, new_id: NewId, snapshots: Snapshots | None = None
    ) -> None:
        self._log = log
        self._codec = codec
        self._clock = clock
        self._new_id = new_id
        self._snapshots = snapshots
        self._cache: OrderedDict[str, _Known[Any]] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(
        self, decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C, context: Context
    ) -> Receipt[E]:
        subject = subject_of(organization, decider.aggregate, aggregate_id)
        address = _Address(organization, decider.aggregate, aggregate_id, subject)
        lock = self._locks.setdefault(subject, asyncio.Lock())
        async with lock:
            known = await self._known(decider, subject, aggregate_id)
            for _ in range(MAX_CONFLICTS):
                at = self._clock()
                outcome = await self._decide(decider, subject, known, command, at)
                if isinstance(outcome, _Known):
                    known = outcome
                    continue
                if not outcome:
                    return Receipt(known.position, known.version, (), ())
                try:
                    return await self._append(decider, address, known, outcome, _stamp(at, context, known))
                except Conflict:
                    known = await self._catch_up(decider, subject, known)
        raise LogUnavailableError(f"{type(command).__name__} on {subject} lost {MAX_CONFLICTS} races; try again")

    async def load(self, decider: Decider[C, E, S], organization: str, aggregate_id: str) -> Loaded[S]:
        """The aggregate's state as of now, never stale."""
        subject = subject_of(organization, decider.aggregate, aggregate_id)
        known = await self._known(decider, subject, aggregate_id)
        known = await self._catch_up(decider, subject, known)
        return Loaded(known.state, known.version, known.position)

    async def _decide(
        self, decider: Decider[C, E, S], subject: str, known: _Known[S], command: C, at: datetime
    ) -> Sequence[E] | _Known[S]:
        """The events to append, or a newer state to decide on again."""
        refusal: Rejected | None = None
        events: Sequence[E] = ()
        try:
            events = decider.decide(known.state, command, at)
        except Rejected as rejected:
            refusal = rejected
        if events:
            return events
        newer = await self._catch_up(decider, subject, known)
        if newer.position != known.position:
            return newer
        if refusal is not None:
            raise refusal
        return ()

    async def _known(self, decider: Decider[C, E, S], subject: str, aggregate_id: str) -> _Known[S]:
        cached = self._cache.get(subject)
        if cached is not None:
            self._cache.move_to_end(subject)
            return cached
        known = await self._from_snapshot(decider, aggregate_id) or _Known(decider.initial, 0, 0, "", "")
        return self._remember(decider, subject, known, await self._log.read(subject, after=known.position))

    async def _catch_up(self, decider: Decider[C, E, S], subject: str, known: _Known[S]) -> _Known[S]:
        """Folds what is newer than `known`; the leader says what is newest, a replica may take a moment to have it."""
        for _ in range(MAX_CATCH_UPS):
            last = await self._last(subject, known.position)
            if last is None or last.position <= known.position:
                _check_end(subject, known, last)
                return known
            next_in_line = last.envelope.version == known.version + 1
            news = [last] if next_in_line else await self._log.read(subject, after=known.position)
            known = self._remember(decider, subject, known, news)
        raise LogUnavailableError(f"{subject} could not be read up to its head; a replica lags")

    async def _last(self, subject: str, seen: int) -> Recorded | None:
        """The log's newest message of a subject; waits a while for one that is as new as what has been seen."""
        for _ in range(LEADER_LOOKS - 1):
            last = await self._log.last(subject)
            if (last.position if last else 0) >= seen:
                return last
            await asyncio.sleep(LEADER_PAUSE_S)
        return await self._log.last(subject)

    def _remember(
        self, decider: Decider[C, E, S], subject: str, known: _Known[S], news: Sequence[Recorded]
    ) -> _Known[S]:
        state, version, position, previous = known.state, known.version, known.position, known.payload_hash
        correlation = known.correlation
        for recorded in news:
            envelope = recorded.envelope
            if envelope.version != version + 1 or envelope.previous != previous:
                raise LogDamagedError(recorded.position, f"{subject} does not go on from version {version} as written")
            state = decider.evolve(state, self._codec.decode_event(envelope), envelope.at)
            version, position, previous = envelope.version, recorded.position, payload_hash(recorded.payload)
            correlation = envelope.correlation
        return self._keep(subject, _Known(state, version, position, previous, correlation))

    def _keep(self, subject: str, known: _Known[S]) -> _Known[S]:
        self._cache[subject] = known
        self._cache.move_to_end(subject)
        if len(self._cache) > CACHED_AGGREGATES:
            self._cache.popitem(last=False)
        return known

    async def _append(
        self, decider: Decider[C, E, S], address: _Address, known: _Known[S], events: Sequence[E], stamp: _Stamp
    ) -> Receipt[E]:
        state, previous = known.state, known.payload_hash
        messages: list[tuple[str, bytes]] = []
        reservations: list[Append] = []
        for version, event in enumerate(events, start=known.version + 1):
            for wanted in decider.reservations(state, event):
                reservations += await self._reservation(wanted, address.holder, stamp)
            state = decider.evolve(state, event, stamp.at)
            event_id, payload = self._message(address, version, previous, event, stamp)
            previous = payload_hash(payload)
            messages.append((event_id, payload))
        own = Append(address.subject, known.position, tuple(messages))
        position = await self._log.append([*reservations, own])
        now = _Known(state, known.version + len(events), position, previous, stamp.context.correlation)
        self._keep(address.subject, now)
        _log.info("events_appended", subject=address.subject, events=_names(events), position=position)
        await self._maybe_snapshot(decider, address, known.version, now)
        return Receipt(position, now.version, tuple(events), tuple(EventId(event_id) for event_id, _ in messages))

    def _message(
        self, address: _Address, version: int, previous: str, event: object, stamp: _Stamp
    ) -> tuple[str, bytes]:
        type_name, schema, data = self._codec.encode_event(event)
        envelope = Envelope(
            event_id=EventId(self._new_id()),
            aggregate=address.aggregate,
            id=address.id,
            version=version,
            type=type_name,
            schema=schema,
            organization=OrganizationId(address.organization),
            actor=stamp.context.actor,
            cause=stamp.context.cause,
            correlation=stamp.context.correlation,
            at=stamp.at,
            previous=previous,
            data=data,
            origin=stamp.context.origin,
        )
        return envelope.event_id, encode_envelope(envelope)

    async def _reservation(self, wanted: Claim | Release, holder: str, stamp: _Stamp) -> Sequence[Append]:
        """The message that takes or frees a name, in the same batch as its event; none when that already holds.

        Raises:
            Rejected: another aggregate holds the name.
        """
        subject = reservation_subject(wanted.kind, wanted.digest)
        last = await self._log.last(subject)
        held = self._codec.decode_event(last.envelope) if last else NameReleased()
        held_by = held.holder if isinstance(held, NameReserved) else ""
        claiming = isinstance(wanted, Claim)
        if isinstance(wanted, Claim) and held_by not in {"", holder}:
            raise Rejected(wanted.taken_code)
        if (held_by == holder) == claiming:
            return ()
        event = NameReserved(holder=holder) if claiming else NameReleased()
        address = _Address(PLATFORM, RESERVATION.aggregate, f"{wanted.kind}.{wanted.digest}", subject)
        version, previous = (last.envelope.version + 1, payload_hash(last.payload)) if last else (1, "")
        return (
            Append(subject, last.position if last else 0, (self._message(address, version, previous, event, stamp),)),
        )

    async def _from_snapshot(self, decider: Decider[C, E, S], aggregate_id: str) -> _Known[S] | None:
        if self._snapshots is None:
            return None
        snapshot = await self._snapshots.load(
            decider.aggregate, aggregate_id, schema_fingerprint=fingerprint_of(decider)
        )
        if snapshot is None:
            return None
        state = msgspec.json.decode(snapshot.state, type=decider.state_type)
        return _Known(state, snapshot.version, snapshot.position, snapshot.previous_hash, snapshot.correlation)

    async def _maybe_snapshot(
        self, decider: Decider[C, E, S], address: _Address, version_before: int, known: _Known[S]
    ) -> None:
        if self._snapshots is None or known.version // SNAPSHOT_EVERY == version_before // SNAPSHOT_EVERY:
            return
        snapshot = Snapshot(
            position=known.position,
            version=known.version,
            previous_hash=known.payload_hash,
            correlation=known.correlation,
            schema_fingerprint=fingerprint_of(decider),
            state=msgspec.json.encode(known.state),
        )
        await self._snapshots.save(decider.aggregate, address.id, snapshot)


def _stamp(at: datetime, context: Context, known: _Known[S]) -> _Stamp:
    return _Stamp(at, context if context.correlation else replace(context, correlation=known.correlation))


def _check_end(subject: str, known: _Known[S], last: Recorded | None) -> None:
    """What is known, from the cache or a snapshot, must be what the log ends with: it may have been lost or altered."""
    ends_so = last is not None and last.position == known.position and payload_hash(last.payload) == known.payload_hash
    if known.position and not ends_so:
        raise LogDamagedError(known.position, f"{subject} does not end with version {known.version} as it was written")


def _names(events: Sequence[object]) -> str:
    return ",".join(type(event).__name__ for event in events)


def fingerprint_of(decider: Decider[C, E, S]) -> str:
    """Changes when the state's shape, the events, or the code that folds them may have; old snapshots are then dropped.

    What a fold does lies in its `evolve` and in whatever that calls, so the whole domain's source counts. That drops
    snapshots more often than it must, and never too seldom; each costs one read of its aggregate's whole history.
    """
    state_type: Any = decider.state_type  # mypy does not see that a type variable's class is hashable
    return _fingerprint(state_type, decider.events, decider.evolve)


@cache
def _fingerprint(state_type: Hashable, events: tuple[type[Any], ...], evolve: Callable[..., Any]) -> str:
    shape = msgspec.json.encode(msgspec.json.schema(state_type), order="deterministic")
    names = ",".join(f"{event.__name__}/{schema_of(event)}" for event in events)
    return sha256(b"\0".join([shape, names.encode(), getsource(evolve).encode(), _domain_source()])).hexdigest()[:16]


@cache
def _domain_source() -> bytes:
    files = [file for file in resources.files("domain").iterdir() if file.name.endswith(".py")]
    return b"".join(file.read_bytes() for file in sorted(files, key=lambda file: file.name))
