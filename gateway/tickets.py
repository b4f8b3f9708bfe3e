"""What is remembered of the tickets with which clients wait, so that a restart of the gateway costs nobody their place.

    entered ──> waiting ──served──> forgotten            noted in a small file as it happens (infra/queue_journal.py)
                  │ refused, expired, client gone ──> away ──entered──> waiting, with the time of its first coming
                  └ the gateway died ──────────────> lost_at_restart ──entered──> the same

For fifteen minutes from the first coming. The surprising rule: neither memory nor file has a ticket in the clear, for
clients write into it what they like: it is kept as a digest of tenant and ticket, which also keeps tenants apart.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Literal, Protocol

import msgspec

TICKET_S = 900.0
"""From its first coming on a ticket keeps its place for so long."""
MAX_TICKETS = 10_000
MAX_TICKETS_OF_TENANT = 1_000
"""A request beyond either waits like one without a ticket."""

TicketState = Literal["waiting", "away", "lost_at_restart", "unknown"]


class Ticket(msgspec.Struct, array_like=True):
    """One that is known; also a line of the journal.

    Attributes:
        name: digest of tenant and ticket.
        tenant: whose, as a digest: only ever counted.
        place: (organisation of the workers, model code).
        entered_at_s: seconds since 1970 (UTC), of the first time.
    """

    name: str
    tenant: str
    place: tuple[str, str]
    entered_at_s: float
    state: TicketState


class Gone(msgspec.Struct, array_like=True):
    """A line of the journal: this ticket is to be forgotten."""

    name: str


class Journal(Protocol):
    """Lines on disk, for the next process. Nothing of it raises: a ticket is a courtesy, and costs no request."""

    def append(self, line: bytes) -> None:
        """Hands one line (no newline in it) to the operating system."""
        ...

    @property
    def is_long(self) -> bool:
        """Much of it is of the past."""
        ...

    def replace(self, lines: Iterable[bytes]) -> None:
        """The whole of what still matters."""
        ...


class Tickets:
    """Mutable, in memory.

    Args:
        wall_s: seconds since 1970, UTC; the one clock that a restart leaves as it was.
        journal: None keeps them in memory alone.
    """

    def __init__(self, *, wall_s: Callable[[], float], journal: Journal | None = None) -> None:
        self._wall_s = wall_s
        self._journal = journal
        self._tickets: dict[str, Ticket] = {}
        self._held: Counter[str] = Counter()

    def entered(self, tenant: str, ticket: str, place: tuple[str, str]) -> float:
        """The request with this ticket waits; seconds since it first did."""
        name, now_s = _name(tenant, ticket), self._wall_s()
        known = self._tickets.get(name)
        if known is None or not self._is_fresh(known) or known.place != place:
            holder = _digest(tenant)
            if known is None and (len(self._tickets) >= MAX_TICKETS or self._held[holder] >= MAX_TICKETS_OF_TENANT):
                return 0.0
            known = Ticket(name, holder, place, now_s, "waiting")
        self._put(msgspec.structs.replace(known, state="waiting"))
        return max(0.0, now_s - known.entered_at_s)

    def left(self, tenant: str, ticket: str) -> None:
        """It waits no longer, and was not served."""
        known = self._tickets.get(_name(tenant, ticket))
        if known is not None:
            self._put(msgspec.structs.replace(known, state="away"))

    def served(self, tenant: str, ticket: str) -> None:
        """A worker has it; the ticket is used up."""
        self._forget(_name(tenant, ticket))

    def find(self, tenant: str, ticket: str) -> Ticket | None:
        known = self._tickets.get(_name(tenant, ticket))
        return known if known is not None and self._is_fresh(known) else None

    def age_s(self, ticket: Ticket) -> float:
        return max(0.0, self._wall_s() - ticket.entered_at_s)

    def sweep(self) -> None:
        """Forgets those whose time is over; those that still wait keep their place for as long as they wait."""
        for ticket in [t for t in self._tickets.values() if t.state != "waiting" and not self._is_fresh(t)]:
            self._forget(ticket.name)
        if self._journal is not None and self._journal.is_long:
            self._journal.replace(self.lines())

    def restore(self, lines: Iterable[bytes]) -> None:
        """What a process that died had noted; lines that it did not finish are passed over."""
        found: dict[str, Ticket] = {}
        for line in lines:
            try:
                noted = _decode(line)
            except (msgspec.MsgspecError, UnicodeError):
                continue
            if isinstance(noted, Gone):
                found.pop(noted.name, None)
            else:
                found[noted.name] = noted
        for ticket in found.values():
            if self._is_fresh(ticket) and ticket.name not in self._tickets and len(self._tickets) < MAX_TICKETS:
                state: TicketState = "lost_at_restart" if ticket.state == "waiting" else ticket.state
                self._put(msgspec.structs.replace(ticket, state=state))

    def lines(self) -> Iterator[bytes]:
        """All that is known, for a journal that begins anew."""
        return (msgspec.json.encode(ticket) for ticket in list(self._tickets.values()))

    def _is_fresh(self, ticket: Ticket) -> bool:
        return self._wall_s() - ticket.entered_at_s < TICKET_S

    def _put(self, ticket: Ticket) -> None:
        if ticket.name not in self._tickets:
            self._held[ticket.tenant] += 1
        self._tickets[ticket.name] = ticket
        if self._journal is not None:
            self._journal.append(msgspec.json.encode(ticket))

    def _forget(self, name: str) -> None:
        known = self._tickets.pop(name, None)
        if known is None:
            return
        self._held[known.tenant] -= 1
        if not self._held[known.tenant]:
            del self._held[known.tenant]
        if self._journal is not None:
            self._journal.append(msgspec.json.encode(Gone(name)))


_tickets = msgspec.json.Decoder(Ticket)
_gone = msgspec.json.Decoder(Gone)


def _decode(line: bytes) -> Ticket | Gone:
    return _tickets.decode(line) if line.count(b",") > 1 else _gone.decode(line)


def _name(tenant: str, ticket: str) -> str:
    return _digest(f"{tenant}\0{ticket}")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]
