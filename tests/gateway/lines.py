"""A model whose workers take so many requests at a time, before a real queue; and a simulation of it under load."""

import heapq
import itertools
import random
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import Any

from gateway.patience import Priority
from gateway.queueing import Place, Queue, Waiting
from gateway.tickets import Tickets
from gateway.wire import Refusal

PLACE: Place = ("acme", "model")
NOON_S = 1_800_000_000.0
SWEEP_S = 0.1
PATIENCE_S = 30.0
RETRY_S = 5.0


class Counter:
    """What becomes of requests: who was woken, in order, and who was refused, why."""

    def __init__(self, *, room: int = 0, tickets: Tickets | None = None, **given: Any) -> None:
        self.now_s = 0.0
        self.room = room
        self.tickets = tickets or Tickets(wall_s=lambda: NOON_S + self.now_s)
        self.queue = Queue(now_s=lambda: self.now_s, tickets=self.tickets, **given)
        self.woken: list[str] = []
        self.refused: dict[str, str] = {}
        self.waiting: dict[str, Waiting] = {}

    def enter(
        self,
        name: str,
        tenant: str = "a",
        *,
        priority: Priority = "normal",
        within_s: float = 30.0,
        wake: Callable[[], bool] | None = None,
        ticket: str = "",
        size_bytes: int = 0,
        place: Place = PLACE,
    ) -> None:
        self.waiting[name] = Waiting(
            place=place,
            tenant=tenant,
            priority=priority,
            deadline_s=self.now_s + within_s,
            ticket=ticket,
            size_bytes=size_bytes,
            wake=wake or (lambda: self._take(name, tenant)),
            refuse=lambda refusal: self._refuse(name, refusal),
        )
        try:
            self.queue.enter(self.waiting[name])
        except Refusal as refusal:
            self._refuse(name, refusal)

    def arrive(self, name: str, tenant: str, **given: Any) -> None:
        """As an exchange does it: straight to a worker where there is room and nobody waits."""
        if self.queue.has_waiting(PLACE) or not self._take(name, tenant):
            self.enter(name, tenant, **given)

    def free(self, count: int = 1) -> None:
        """A worker came with room for so many more."""
        self.room += count
        self.queue.freed(PLACE)

    def end(self, tenant: str) -> None:
        """One of the tenant's running requests is over."""
        self.room += 1
        self.queue.ended(PLACE, tenant)

    def leave(self, name: str) -> None:
        self.queue.leave(self.waiting[name])

    def _take(self, name: str, tenant: str) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.queue.began(PLACE, tenant)
        self.woken.append(name)
        return True

    def _refuse(self, name: str, refusal: Refusal) -> None:
        assert name not in self.refused
        self.refused[name] = refusal.code


class Traffic:
    """Tenants who each keep so many requests open at a model with `capacity` places, each busy for an exponential time.

    Args:
        clients: of each tenant; every one asks again as soon as it was answered.
        fair: False puts all tenants in one line: first come, first served.
    """

    def __init__(self, clients: dict[str, int], *, capacity: int, service_s: float, seed: int, fair: bool) -> None:
        self.service_s = service_s
        self.fair = fair
        self.chance = random.Random(seed)
        self.counter = Counter(room=capacity)
        self.waits: dict[str, list[float]] = {tenant: [] for tenant in clients}
        self.refused: Counts[str] = Counts()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for tenant, count in clients.items():
            for _ in range(count):
                self._later(self.chance.random(), self._asking(tenant))

    def run(self, for_s: float) -> None:
        while self._events and self._events[0][0] < for_s:
            at_s, _, act = heapq.heappop(self._events)
            if at_s - self.counter.now_s > SWEEP_S:
                self.counter.queue.sweep()
            self.counter.now_s = at_s
            act()

    def _later(self, in_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.counter.now_s + in_s, next(self._numbers), act))

    def _asking(self, tenant: str) -> Callable[[], None]:
        return lambda: self._ask(tenant)

    def _ask(self, tenant: str) -> None:
        counter, since_s, in_line = self.counter, self.counter.now_s, tenant if self.fair else "everybody"

        def end() -> None:
            counter.end(in_line)
            self._ask(tenant)

        def wake() -> bool:
            if not counter.room:
                return False
            counter.room -= 1
            counter.queue.began(PLACE, in_line)
            self.waits[tenant].append(counter.now_s - since_s)
            self._later(self.chance.expovariate(1 / self.service_s), end)
            return True

        def refuse(_: Refusal) -> None:
            self.refused[tenant] += 1
            self._later(RETRY_S, self._asking(tenant))

        if not counter.queue.has_waiting(PLACE) and wake():
            return
        deadline_s = since_s + PATIENCE_S
        waiting = Waiting(
            place=PLACE, tenant=in_line, priority="normal", deadline_s=deadline_s, wake=wake, refuse=refuse
        )
        try:
            counter.queue.enter(waiting)
        except Refusal as refusal:
            refuse(refusal)


def p99(waits: Sequence[float]) -> float:
    return sorted(waits)[int(0.99 * len(waits))]
