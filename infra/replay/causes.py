"""Why something happened: one intent's events as a tree of causes and effects.

    InstanceRequested ──cause──> ServerCreateIntended ──cause──> ServerCreated ...        all share one correlation

An event stands beneath the one that its envelope names as cause. Pure, and without recursion: a chain may be as long as
an instance's life. The surprising rule: a cause always lies before its effect in the log, so an envelope that claims
otherwise begins a tree of its own, and no loop can form.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

import msgspec

from infra.replay.history import Placed

MAX_DEPTH = 100
"""Effects below stand beside their cause, so that a long chain stays printable and its JSON readable."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One event and what followed from it.

    Attributes:
        after_s: seconds since the story began.
        asked: whether this is what was asked about.
        cause: event id; of another story when this one is a root and it is not null.
    """

    position: int
    event_id: str
    type: str
    aggregate: str
    id: str
    version: int
    organization: str
    actor: str
    cause: str | None
    at: datetime
    after_s: float
    asked: bool
    effects: tuple["Effect", ...] = ()


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate that the story changed, and by how many events."""

    aggregate: str
    id: str
    events: int


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one intent led to.

    Attributes:
        took_s: from its first event to its last, so far.
        roots: what began it.
    """

    correlation: str
    began_at: datetime
    took_s: float
    events: int
    aggregates: tuple[Touched, ...]
    roots: tuple[Effect, ...]


def story_of(events: Sequence[Placed], asked: Collection[str]) -> Story:
    """The story of one correlation.

    Args:
        events: all of it, oldest first, at least one.
        asked: event ids to mark.
    """
    began_at = events[0].envelope.at
    parents = _parents(events)
    effects: dict[str | None, list[Effect]] = {}
    for event in reversed(events):  # effects before causes, since each node holds its own
        envelope = event.envelope
        node = Effect(
            position=event.position,
            event_id=envelope.event_id,
            type=envelope.type,
            aggregate=envelope.aggregate,
            id=envelope.id,
            version=envelope.version,
            organization=envelope.organization,
            actor=envelope.actor,
            cause=envelope.cause,
            at=envelope.at,
            after_s=round((envelope.at - began_at).total_seconds(), 6),
            asked=envelope.event_id in asked,
            effects=tuple(reversed(effects.pop(envelope.event_id, []))),
        )
        effects.setdefault(parents[envelope.event_id], []).append(node)
    return Story(
        correlation=events[0].envelope.correlation,
        began_at=began_at,
        took_s=round((events[-1].envelope.at - began_at).total_seconds(), 6),
        events=len(events),
        aggregates=_touched(events),
        roots=tuple(reversed(effects.get(None, []))),
    )


def rows_of(roots: Sequence[Effect]) -> Iterator[tuple[str, Effect]]:
    """(branches to draw before it, event) from top to bottom."""
    waiting = [("", "", root) for root in reversed(roots)]
    while waiting:
        before, branch, node = waiting.pop()
        yield before + branch, node
        inner = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        last = len(node.effects) - 1
        branches = [(inner, "└─ " if n == last else "├─ ", effect) for n, effect in enumerate(node.effects)]
        waiting += reversed(branches)


def _parents(events: Sequence[Placed]) -> dict[str, str | None]:
    """Event id -> the event that it stands beneath; None for a root."""
    parents: dict[str, str | None] = {}
    depths: dict[str, int] = {}
    for event in events:
        own, cause = event.envelope.event_id, event.envelope.cause
        if own in parents:
            continue
        parent: str | None = cause if cause in parents else None
        if parent is not None and depths[parent] >= MAX_DEPTH:
            parent = parents[parent]
        parents[own] = parent
        depths[own] = 0 if parent is None else depths[parent] + 1
    return parents


def _touched(events: Sequence[Placed]) -> tuple[Touched, ...]:
    counts: dict[tuple[str, str], int] = {}
    for event in events:
        key = (event.envelope.aggregate, event.envelope.id)
        counts[key] = counts.get(key, 0) + 1
    return tuple(Touched(aggregate=aggregate, id=id_, events=n) for (aggregate, id_), n in counts.items())
