"""The one shape that all aggregates share.

    decide(state, command, at) -> events        what follows from a command, or Rejected
    evolve(state, event, at)   -> state         what an event changes

Both are pure: time, ids and chance arrive as arguments. Asking twice is welcome: what already holds yields no event.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")


class Rejected(Exception):  # noqa: N818 - a refusal is a decision, not an error
    """A refusal: the decision's answer to a command that may not be.

    Args:
        code: states the fact, e.g. "last_owner_cannot_be_removed"; the same word travels to the API and the console.
        message: one sentence for a person.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message or code.replace("_", " ").capitalize() + "."


class Claim(msgspec.Struct, frozen=True):
    """An event takes the one right to a name; the append fails as a whole when another holds it."""

    kind: str
    digest: str
    taken_code: str
    """Refusal code when the name is held by another aggregate."""


class Release(msgspec.Struct, frozen=True):
    """An event gives a name back."""

    kind: str
    digest: str


def no_reservations(_state: object, _event: object) -> Sequence[Claim | Release]:
    return ()


@dataclass(frozen=True)
class Decider(Generic[C, E, S]):
    """One aggregate's laws.

    Attributes:
        aggregate: its word, as in subjects and envelopes.
        events: every event type, for codecs and the catalogue.
        initial: the state before the first event.
        state_type: the type of the state, for snapshots.
        reservations: (state before, event) -> unique names that the event claims or releases.
    """

    aggregate: str
    events: tuple[type[Any], ...]
    initial: S
    state_type: type[S]
    evolve: Callable[[S, E, datetime], S]
    decide: Callable[[S, C, datetime], Sequence[E]]
    reservations: Callable[[S, E], Sequence[Claim | Release]] = no_reservations


def fold(decider: Decider[C, E, S], state: S, events: Sequence[E], at: datetime) -> S:
    for event in events:
        state = decider.evolve(state, event, at)
    return state


def schema_of(event_type: type[Any]) -> int:
    """Version of an event's fields: its SCHEMA, 1 unless the class says otherwise."""
    return int(getattr(event_type, "SCHEMA", 1))
