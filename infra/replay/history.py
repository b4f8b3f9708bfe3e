"""One aggregate's story folded to a moment, and what changed between two moments.

    events ──until a position or a time──> Moment      Moment, Moment ──> Changes: field, before, after, by which events

Pure: events come in, structs go out, and today's deciders and upcasters do the folding. The surprising rule: a change
names every event that touched its field in between, also when the last of them put back what the first had taken.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import reduce
from itertools import takewhile
from typing import Any, Protocol

import msgspec

from domain.aggregates import AGGREGATES
from domain.decider import Decider
from domain.message import Envelope

Until = int | datetime | None
"""A position or a time, inclusive; None is the end of the log."""
Decode = Callable[[Envelope], Any]
"""An envelope -> its event in today's shape (Codec.decode_event)."""


class Placed(Protocol):
    """An envelope at its position; `domain.message.Recorded` is one."""

    @property
    def position(self) -> int: ...

    @property
    def envelope(self) -> Envelope: ...


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate after one of its events; version 0 is before the first.

    Attributes:
        state: the decider's own struct.
        last: the event that made it so; None at version 0.
    """

    state: Any
    version: int = 0
    last: Placed | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field that differs.

    Attributes:
        field: dotted path within the state, e.g. "request.zone".
        before, after: as JSON would hold them; None also where the field was not there.
        by: the events in between that touched it, in order.
    """

    field: str
    before: Any
    after: Any
    by: tuple[Placed, ...]


class UnknownAggregateError(LookupError):
    """No aggregate has this word; `known` lists those that exist."""

    def __init__(self, aggregate: str) -> None:
        super().__init__(f"{aggregate!r} is no kind of aggregate")
        self.known = tuple(sorted(decider.aggregate for decider in AGGREGATES))


class MissingVersionError(RuntimeError):
    """The events are not all of the aggregate's, or not in order: a fold of them would be a state that never was."""

    def __init__(self, version: int, then: Placed) -> None:
        envelope = then.envelope
        super().__init__(
            f"{envelope.aggregate}/{envelope.id} goes from version {version} to {envelope.version} "
            f"at position {then.position}"
        )


def decider_of(aggregate: str) -> Decider[Any, Any, Any]:
    """The laws of an aggregate by its word.

    Raises:
        UnknownAggregateError: see the class.
    """
    for decider in AGGREGATES:
        if decider.aggregate == aggregate:
            return decider
    raise UnknownAggregateError(aggregate)


def read_until(words: str) -> int | datetime:
    """A position ("41") or an ISO time ("2026-11-21", "2026-11-21T10:00:00Z"; UTC where it names no zone).

    Raises:
        ValueError: neither.
    """
    if words.isascii() and words.isdigit():
        return int(words)
    moment = datetime.fromisoformat(words)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def fold_until(decider: Decider[Any, Any, Any], decode: Decode, events: Iterable[Placed], until: Until) -> Moment:
    """The aggregate as it was then.

    Args:
        decider: its laws.
        decode: see Decode; its errors pass through.
        events: all of the aggregate, oldest first.
        until: see Until.

    Raises:
        MissingVersionError: see the class.
    """
    wanted = takewhile(lambda event: _is_within(event, until), events)
    return reduce(lambda _, later: later, _moments(decider, decode, wanted), Moment(state=decider.initial))


def compare(
    decider: Decider[Any, Any, Any], decode: Decode, events: Sequence[Placed], since: Until, until: Until
) -> tuple[Moment, Moment, list[Change]]:
    """The aggregate at two moments, and the fields that differ, in the order of their paths.

    Raises:
        ValueError: `since` is later than `until`.
        MissingVersionError: see the class.
    """
    before = fold_until(decider, decode, events, since)
    after = fold_until(decider, decode, events, until)
    if before.version > after.version:
        raise ValueError("the first moment is later than the second")
    touched: list[tuple[str, Placed]] = []
    earlier = _leaves(before.state)
    for moment in _moments(decider, decode, events[before.version : after.version], start=before):
        later = _leaves(moment.state)
        touched += [(path, moment.last) for path in _differing(earlier, later) if moment.last is not None]
        earlier = later
    first, last = _leaves(before.state), _leaves(after.state)
    return (
        before,
        after,
        [
            Change(
                field=path,
                before=first.get(path),
                after=last.get(path),
                by=tuple({event.position: event for touch, event in touched if _is_one_field(path, touch)}.values()),
            )
            for path in _differing(first, last)
        ],
    )


def changes_of(
    decider: Decider[Any, Any, Any], decode: Decode, events: Iterable[Placed], wanted: Collection[int]
) -> Iterator[tuple[int, list[Change]]]:
    """What each event at one of the wanted positions changed: (position, fields in the order of their paths).

    Args:
        decider: its laws.
        decode: see Decode; its errors pass through.
        events: all of the aggregate up to the last wanted one, oldest first.
        wanted: positions.

    Raises:
        MissingVersionError: see the class.
    """
    earlier = Moment(state=decider.initial)
    for moment in _moments(decider, decode, events):
        event = moment.last
        if event is not None and event.position in wanted:
            before, after = _leaves(earlier.state), _leaves(moment.state)
            fields = _differing(before, after)
            yield (
                event.position,
                [Change(field=f, before=before.get(f), after=after.get(f), by=(event,)) for f in fields],
            )
        earlier = moment


def _moments(
    decider: Decider[Any, Any, Any], decode: Decode, events: Iterable[Placed], start: Moment | None = None
) -> Iterator[Moment]:
    moment = start or Moment(state=decider.initial)
    for event in events:
        envelope = event.envelope
        if envelope.version != moment.version + 1:
            raise MissingVersionError(moment.version, event)
        state = decider.evolve(moment.state, decode(envelope), envelope.at)
        moment = Moment(state=state, version=envelope.version, last=event)
        yield moment


def _is_within(event: Placed, until: Until) -> bool:
    match until:
        case None:
            return True
        case int():
            return event.position <= until
        case _:
            return event.envelope.at <= until


def as_json(state: Any) -> Any:
    """The state as JSON would hold it; sets are sorted, so that equal states look equal."""
    return msgspec.to_builtins(state, order="deterministic")


def _leaves(state: Any) -> dict[str, Any]:
    """Dotted path -> value; an empty object and a list are leaves."""
    leaves: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", as_json(state))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and (value or not path):
            waiting += [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
        else:
            leaves[path] = value
    return leaves


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Paths whose values differ; where null or {} became an object, its fields tell it."""
    absent = object()
    differing = {path for path in one.keys() | other.keys() if one.get(path, absent) != other.get(path, absent)}
    filled = {path.rpartition(".")[0] for path in differing}
    while inner := {path.rpartition(".")[0] for path in filled} - filled:
        filled |= inner
    return sorted(differing - filled)


def _is_one_field(path: str, touch: str) -> bool:
    """A field that was null becomes an object: the touch of the one concerns the fields of the other."""
    return path == touch or path.startswith(f"{touch}.") or touch.startswith(f"{path}.")
