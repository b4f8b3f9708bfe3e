"""Requests that wait for a worker of one model: who is next, who has waited long enough, who is one too many.

    enter ──> [ tenant A: high · normal · low ]  ──freed──> the tenant with the least running ──> its first ──> wake
              [ tenant B: ...                 ]  ──sweep──> past its deadline: 503 queue_timeout
                       └── full: the last of the tenant with the most waiting: 429 queue_full

Between tenants: fair by the places of workers that each holds, divided by its weight (requests differ in length a
thousandfold, so counting requests would be no measure): what runs now, and what ran on average lately (shares.py).
Within a tenant: priority, then who came first. A deadline only expires; it hurries nobody, so that asking for less
patience gains nothing. The surprising rule: a priority orders a tenant's own requests and no others, or everybody's
would be high.

Nothing starves: while a tenant waits, the burden of those who are served instead rises until it is the lightest; and
whoever waits behind their own tenant's hurry has a deadline.
"""

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.patience import Priority
from gateway.shares import Shares
from gateway.tickets import Tickets, TicketState
from gateway.wire import Refusal

MAX_WAITING = 1000
"""Requests for one model; at 30 s of patience a fleet that serves 33 requests a second still reaches the last."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bodies that wait for one model."""
MAX_PASSED_OVER = 4
"""Tenants whose first request the free worker does not suit (it was tried already), before the rest is left alone."""
TIDY_S = 1.0
"""How often what is over is forgotten."""
RETRY_AFTER_S = 5
_RANKS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}
_RETRY_AFTER = ((b"retry-after", b"%d" % RETRY_AFTER_S),)

Place = tuple[str, str]
"""(organisation of the workers, model code)"""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Waiting:
    """One request that waits. Neither of its calls may raise.

    Attributes:
        tenant: the caller's organisation.
        deadline_s: monotonic.
        ticket: the client's own id for it, or "".
        wake: tries to take a worker; True: it did.
        refuse: it has waited long enough, or was pushed out.
    """

    place: Place
    tenant: str
    priority: Priority
    deadline_s: float
    wake: Callable[[], bool]
    refuse: Callable[[Refusal], None]
    ticket: str = ""
    size_bytes: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client is told of its ticket.

    Attributes:
        position: among its organisation's requests for this model, 1 is next. waiting: how many those are.
        first_entered_s_ago: from then on its place counts.
    """

    ticket: str
    state: TicketState
    model: str = ""
    position: int = 0
    waiting: int = 0
    first_entered_s_ago: float = 0.0


class Queue:
    """All waiting requests of this gateway. Not thread-safe, no I/O; everything returns at once.

    Args:
        now_s: monotonic.
        tickets: what is remembered of clients' tickets.
        weight_of: how much of a model a tenant may have beside the others, at the same need.
    """

    def __init__(
        self, *, now_s: Callable[[], float], tickets: Tickets, weight_of: Callable[[str], float] = lambda _: 1.0
    ) -> None:
        self._now_s = now_s
        self._tickets = tickets
        self._shares = Shares(now_s=now_s, weight_of=weight_of)
        self._lines: dict[Place, _Line] = {}
        self._entries: dict[Waiting, _Entry] = {}
        self._numbers = itertools.count()
        self._deadlines: list[tuple[float, int]] = []
        self._by_number: dict[int, Waiting] = {}
        self._tidied_s = now_s()

    def __len__(self) -> int:
        return len(self._entries)

    def began(self, place: Place, tenant: str) -> None:
        """A request of the tenant was given to a worker, whether or not it had waited."""
        self._shares.began(place, tenant)

    def ended(self, place: Place, tenant: str) -> None:
        """It left its worker; somebody who waits may have the place."""
        self._shares.ended(place, tenant)
        self.freed(place)

    def has_waiting(self, place: Place) -> bool:
        line = self._lines.get(place)
        return line is not None and line.count > 0

    def enter(self, waiting: Waiting) -> None:
        """Takes its place.

        Raises:
            Refusal: 429 queue_full.
        """
        self._make_room(waiting)
        now_s, number = self._now_s(), next(self._numbers)
        waited_s = self._tickets.entered(waiting.tenant, waiting.ticket, waiting.place) if waiting.ticket else 0.0
        self._keep(_Entry(waiting, (_RANKS[waiting.priority], now_s - waited_s, number)))
        heapq.heappush(self._deadlines, (waiting.deadline_s, number))

    def leave(self, waiting: Waiting) -> None:
        """Its client has gone; nothing happens when it does not wait any more."""
        if self._remove(waiting):
            self._away(waiting)

    def freed(self, place: Place) -> None:
        """A worker of this model has room, or may have: those whose turn it is are woken until one finds none."""
        line = self._lines.get(place)
        if line is None or not line.count:
            return
        line.freed_again = True
        if line.is_serving:  # a wake that failed at once frees its worker again, from within
            return
        line.is_serving = True
        try:
            while line.freed_again and line.count:
                line.freed_again = False
                self._serve(place, line)
        finally:
            line.is_serving = False
            self._drop_if_empty(place, line)

    def sweep(self) -> None:
        """To be called a few times a second: refuses who is past the deadline, and tries the others once more.

        A worker can become free without anybody saying so: a breaker closes, a silent one is heard again.
        """
        now_s = self._now_s()
        while self._deadlines and self._deadlines[0][0] <= now_s:
            waiting = self._by_number.get(heapq.heappop(self._deadlines)[1])
            if waiting is not None:
                self._remove(waiting)
                self._away(waiting)
                waiting.refuse(_timed_out())
        if len(self._deadlines) > 2 * len(self._entries) + MAX_WAITING:
            self._deadlines = [one for one in self._deadlines if one[1] in self._by_number]
            heapq.heapify(self._deadlines)
        for place in list(self._lines):
            self.freed(place)
        if now_s - self._tidied_s >= TIDY_S:
            self._tidied_s = now_s
            self._shares.sweep()
            self._tickets.sweep()

    def told(self, tenant: str, ticket: str) -> bytes:
        """Where the request with this ticket stands, as the body of `GET /v1/queue/<ticket>`."""
        return msgspec.json.encode(self.position_of(tenant, ticket))

    def position_of(self, tenant: str, ticket: str) -> Standing:
        """Of a tenant's own ticket; another's is unknown."""
        known = self._tickets.find(tenant, ticket)
        if known is None:
            return Standing(ticket=ticket, state="unknown")
        line = self._lines.get(known.place)
        own = line.of(tenant) if line is not None else ()
        position = next((n for n, entry in enumerate(own, start=1) if entry.waiting.ticket == ticket), 0)
        return Standing(
            ticket=ticket,
            state=known.state,
            model=known.place[1],
            position=position,
            waiting=len(own),
            first_entered_s_ago=round(self._tickets.age_s(known), 1),
        )

    # ---- inside

    def _serve(self, place: Place, line: "_Line") -> None:
        passed: set[str] = set()
        has_served = False
        while line.count and len(passed) < MAX_PASSED_OVER:
            tenant = self._shares.lightest(place, (one for one in line.tenants if one not in passed))
            if tenant is None:
                return
            entry = line.of(tenant)[0]
            waiting = entry.waiting
            line.take_out(entry)
            self._forget(entry)  # before it is woken: its client may leave from within
            if not waiting.wake():
                self._keep(entry)
                if has_served:
                    return  # there was room, and now there is none
                passed.add(tenant)
                continue
            has_served = True
            self._shares.served(place, tenant)
            if waiting.ticket:
                self._tickets.served(waiting.tenant, waiting.ticket)

    def _make_room(self, waiting: Waiting) -> None:
        while (line := self._lines.get(waiting.place)) is not None:
            is_long = line.count >= MAX_WAITING
            if not is_long and line.size_bytes + waiting.size_bytes <= MAX_WAITING_BYTES:
                return
            tenant = line.largest(by_bytes=not is_long)
            own = line.burden(waiting.tenant, by_bytes=not is_long) + (1 if is_long else waiting.size_bytes)
            if line.burden(tenant, by_bytes=not is_long) <= own:
                raise _full()
            last = line.of(tenant)[-1].waiting
            self._remove(last)
            self._away(last)
            last.refuse(_full())

    def _remove(self, waiting: Waiting) -> bool:
        entry = self._entries.get(waiting)
        if entry is None:
            return False
        line = self._lines[waiting.place]
        line.take_out(entry)
        self._forget(entry)
        self._drop_if_empty(waiting.place, line)
        return True

    def _keep(self, entry: "_Entry") -> None:
        self._lines.setdefault(entry.waiting.place, _Line()).put(entry)
        self._entries[entry.waiting] = entry
        self._by_number[entry.key[2]] = entry.waiting

    def _forget(self, entry: "_Entry") -> None:
        del self._entries[entry.waiting]
        del self._by_number[entry.key[2]]

    def _away(self, waiting: Waiting) -> None:
        if waiting.ticket:
            self._tickets.left(waiting.tenant, waiting.ticket)

    def _drop_if_empty(self, place: Place, line: "_Line") -> None:
        if not line.count and not line.is_serving and self._lines.get(place) is line:
            del self._lines[place]


class _Entry:
    """A place in a line; `key` (rank, since when, number) orders those of one tenant."""

    __slots__ = ("key", "waiting")

    def __init__(self, waiting: Waiting, key: tuple[int, float, int]) -> None:
        self.waiting = waiting
        self.key = key


class _Line:
    """Who waits for one model, by tenant."""

    __slots__ = ("count", "freed_again", "is_serving", "size_bytes", "tenants")

    def __init__(self) -> None:
        self.tenants: dict[str, list[_Entry]] = {}
        self.count = 0
        self.size_bytes = 0
        self.is_serving = False
        self.freed_again = False

    def of(self, tenant: str) -> list[_Entry]:
        """Its waiting requests, the next one first."""
        return self.tenants.get(tenant, [])

    def put(self, entry: _Entry) -> None:
        waiting = entry.waiting
        own = self.tenants.setdefault(waiting.tenant, [])
        own.insert(bisect_left(own, entry.key, key=_key), entry)
        self.count += 1
        self.size_bytes += waiting.size_bytes

    def take_out(self, entry: _Entry) -> None:
        waiting = entry.waiting
        own = self.tenants[waiting.tenant]
        del own[bisect_left(own, entry.key, key=_key)]
        self.count -= 1
        self.size_bytes -= waiting.size_bytes
        if not own:
            del self.tenants[waiting.tenant]

    def largest(self, *, by_bytes: bool) -> str:
        """The tenant with the most waiting; somebody waits."""
        return max(self.tenants, key=lambda tenant: self.burden(tenant, by_bytes=by_bytes))

    def burden(self, tenant: str, *, by_bytes: bool) -> int:
        """How much of the line is one tenant's."""
        own = self.of(tenant)
        return sum(entry.waiting.size_bytes for entry in own) if by_bytes else len(own)


def _key(entry: _Entry) -> tuple[int, float, int]:
    return entry.key


def _full() -> Refusal:
    message = f"Too many requests wait for this model already. Try again in {RETRY_AFTER_S} seconds."
    return Refusal(429, "queue_full", message, headers=_RETRY_AFTER)


def _timed_out() -> Refusal:
    message = (
        "No worker of this model became free in time. Try again, or wait longer (x-inventiv-max-wait, in seconds)."
    )
    return Refusal(503, "queue_timeout", message, headers=_RETRY_AFTER)
