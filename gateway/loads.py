"""How busy and how alive each worker is, as far as this gateway knows: its own open requests, and heartbeats.

    our requests ──started/finished──> outstanding (exact)      heartbeats ──heard──> foreign load, last sign of life

Two rules surprise. A heartbeat's queue depth contains our own requests, so only what exceeds them counts as the load
that others put on the worker. And silence is believed only while somebody is heard: when no heartbeat arrives from
anyone (NATS or the API is away), workers are not stale, our ears are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

DEAF_SHARE = 0.5
"""Silence of everybody for this share of the stale limit means that the feed was away; all workers get a new term."""


class Load(msgspec.Struct):
    """One worker. Times in seconds on the gateway's monotonic clock.

    Attributes:
        outstanding: requests that this gateway has open there.
        foreign: requests that the engine reported beyond ours, at the last heartbeat.
        turn: rises with each request given to any worker; the lowest has waited longest.
        heard_s: last heartbeat; None before the first.
    """

    outstanding: int = 0
    foreign: int = 0
    turn: int = 0
    heard_s: float | None = None


class Loads:
    """Mutable, in memory, for one event loop.

    Args:
        stale_s: silence after which a worker is passed over; asked each time, for it is a setting that people change.
        now_s: monotonic clock.
    """

    def __init__(self, *, stale_s: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._stale_s = stale_s
        self._now_s = now_s
        self._loads: dict[str, Load] = {}
        self._turns = 0
        self._last_heard_s: float | None = None
        self._listening_since_s = 0.0

    def of(self, instance_id: str) -> Load:
        return self._loads.get(instance_id) or Load()

    def heard(self, instance_id: str, queue_depth: int) -> None:
        now_s = self._now_s()
        if self._last_heard_s is None or now_s - self._last_heard_s > DEAF_SHARE * self._stale_s():
            self._listening_since_s = now_s
        self._last_heard_s = now_s
        load = self._loads.setdefault(instance_id, Load())
        load.heard_s = now_s
        load.foreign = max(0, queue_depth - load.outstanding)

    def is_stale(self, instance_id: str) -> bool:
        now_s = self._now_s()
        if self._last_heard_s is None or now_s - self._last_heard_s > DEAF_SHARE * self._stale_s():
            return False
        heard_s = self.of(instance_id).heard_s
        since_s = self._listening_since_s if heard_s is None else max(heard_s, self._listening_since_s)
        return now_s - since_s > self._stale_s()

    @contextmanager
    def request_on(self, instance_id: str) -> Iterator[None]:
        """Counts one request as outstanding for as long as the block runs."""
        load = self._loads.setdefault(instance_id, Load())
        self._turns += 1
        load.turn = self._turns
        load.outstanding += 1
        try:
            yield
        finally:
            load.outstanding -= 1

    def forget(self, is_known: Callable[[str], bool]) -> None:
        """Drops what belongs to instances that have ended, so that memory follows the fleet."""
        for instance_id in [i for i, load in self._loads.items() if not load.outstanding and not is_known(i)]:
            del self._loads[instance_id]
