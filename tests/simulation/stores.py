"""What outlives a process of the control plane: the log, the turns, the timers, and how far its consumer has come.

The real ones are NATS and Postgres, each with its own tests of durability; here they are memory that no kill touches.
The surprising rule: whatever a dead process still asks for is refused, so that no `finally` of it writes anything.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import NamedTuple

from domain.instance import INSTANCE
from domain.instance_state import Instance
from infra.events.codec import Codec, decode_envelope
from infra.events.memory import MemoryLog
from infra.events.port import Append, LogUnavailableError
from infra.gate import Standing
from infra.parking import ParkedWork
from tests.simulation.chance import Chance
from tests.simulation.virtual_time import now

LOG_TIMEOUT_S = 5.0


class FaultyLog(MemoryLog):
    """A log whose answer may fail to arrive, before or after it stored.

    Attributes:
        instances: every instance as of the newest event, by id: what checks look at, at no cost of time.
        recorded: is told of each event of an instance, with the state before it.
    """

    def __init__(self, chance: Chance, codec: Codec) -> None:
        super().__init__()
        self._chance = chance
        self._codec = codec
        self.instances: dict[str, Instance] = {}
        self.recorded: Callable[[str, object, Instance], None] = lambda *_: None

    async def append(self, appends: Sequence[Append]) -> int:
        if not self._chance.strikes("log_away"):
            return await self._append(appends)
        stores = self._chance.dice.random() < 0.5
        position = await self._append(appends) if stores else 0
        await asyncio.sleep(LOG_TIMEOUT_S)
        raise LogUnavailableError(f"no answer; {position or 'nothing'} stored")

    async def _append(self, appends: Sequence[Append]) -> int:
        before = await self.head()
        position = await super().append(appends)
        if await self.head() > before:
            for append in appends:
                for _, payload in append.messages:
                    self._fold(payload)
        return position

    def _fold(self, payload: bytes) -> None:
        envelope = decode_envelope(payload)
        if envelope.aggregate == INSTANCE.aggregate:
            before = self.instances.get(envelope.id, INSTANCE.initial)
            event = self._codec.decode_event(envelope)
            self.recorded(envelope.id, event, before)
            self.instances[envelope.id] = INSTANCE.evolve(before, event, envelope.at)


@dataclass
class Seat:
    """One turn, held by one process."""

    turns: "MemoryTurns"
    key: tuple[str, str, str]
    standing: Standing

    async def settle(self, standing: Standing) -> None:
        before = self.turns.standings.get(self.key, Standing())
        self.turns.standings[self.key] = Standing(
            version=max(before.version, standing.version),
            done=max(before.done, standing.done),
            attempt=standing.attempt,
            own_faults=standing.own_faults,
        )


class MemoryTurns:
    """Implements infra.reacting.Turns for one process at a time; `standings` is what Postgres would keep."""

    def __init__(self) -> None:
        self.standings: dict[tuple[str, str, str], Standing] = {}
        self._locks: dict[tuple[str, str, str], asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, reaction: str, aggregate: str, aggregate_id: str, /) -> AsyncIterator[Seat | None]:
        key = (reaction, aggregate, aggregate_id)
        async with self._locks.setdefault(key, asyncio.Lock()):
            yield Seat(self, key, self.standings.get(key, Standing()))

    def release_all(self) -> None:
        """The process that held them is dead, and its session with it."""
        self._locks.clear()


class DueTimer(NamedTuple):
    at: datetime
    body: bytes
    generation: int


@dataclass
class MemoryTimers:
    """Durable wake-ups, one a key."""

    due: dict[str, DueTimer] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _generations: Iterator[int] = field(default_factory=count)

    async def schedule(self, key: str, at: datetime, body: bytes) -> None:
        self.due[key] = DueTimer(at, body, next(self._generations))
        self.changed.set()

    def ripe(self) -> list[tuple[str, DueTimer]]:
        return [(key, timer) for key, timer in self.due.items() if timer.at <= now()]

    def fired(self, key: str, timer: DueTimer) -> None:
        """Forgets it, unless it was scheduled again meanwhile."""
        if self.due.get(key) == timer:
            del self.due[key]


@dataclass
class MemoryParking:
    parked: dict[str, ParkedWork] = field(default_factory=dict)

    async def park(self, work: ParkedWork) -> None:
        self.parked[work.id] = work

    async def find(self, parked_id: str) -> ParkedWork | None:
        return self.parked.get(parked_id)

    async def remove(self, parked_id: str) -> None:
        self.parked.pop(parked_id, None)


@dataclass
class DurableCursor:
    """How far the consumer has come: everything up to `floor` is acknowledged, and what stands in `beyond`."""

    floor: int = 0
    beyond: set[int] = field(default_factory=set)

    def acknowledge(self, position: int) -> None:
        self.beyond.add(position)
        while self.floor + 1 in self.beyond:
            self.floor += 1
            self.beyond.discard(self.floor)

    def wants(self, position: int) -> bool:
        return position > self.floor and position not in self.beyond


@dataclass
class Stored:
    """All that a restart finds again."""

    log: FaultyLog
    turns: MemoryTurns = field(default_factory=MemoryTurns)
    timers: MemoryTimers = field(default_factory=MemoryTimers)
    parking: MemoryParking = field(default_factory=MemoryParking)
    cursor: DurableCursor = field(default_factory=DurableCursor)
