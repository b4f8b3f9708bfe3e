"""The doors through which the outer rooms reach the event log, as types."""

from collections.abc import Callable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from domain.decider import Decider
from domain.ids import EventId
from domain.message import Context

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

Clock = Callable[[], datetime]
NewId = Callable[[], str]


class Receipt(msgspec.Struct, Generic[E], frozen=True):
    """What a command did.

    Attributes:
        position: stream position after which its effect is visible (of its last event, or of the state that already
            held); the API's `Event-Position`.
        version: the aggregate's version afterwards.
        events: the new events; empty when nothing had to change.
        event_ids: their ids, in the same order.
    """

    position: int
    version: int
    events: tuple[E, ...]
    event_ids: tuple[EventId, ...]


class Loaded(msgspec.Struct, Generic[S], frozen=True):
    """An aggregate's state; version 0 and position 0 when it has no event yet."""

    state: S
    version: int
    position: int


class Dispatch(Protocol):
    """The one write door: load, decide, append, again on conflict.

    Raises:
        Rejected: the decision refused; the head of the log was checked first, so a stale cache cannot refuse.
        OSError: the log could not be reached, or the outcome stayed unknown after its bounded retries.
    """

    async def __call__(
        self, decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C, context: Context
    ) -> Receipt[E]: ...


class Load(Protocol):
    """Reads an aggregate's current state (through the leader, so that it is never stale)."""

    async def __call__(self, decider: Decider[C, E, S], organization: str, aggregate_id: str) -> Loaded[S]: ...
