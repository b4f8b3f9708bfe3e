"""What keys and organisations have spent, as far as this gateway knows: what USAGE says, and what is on its way there.

    reserve ──> settle ──> unconfirmed ──(its record comes by in USAGE)──> booked
       └ at admission, by the estimate       └ ours, known by request id       └ everybody's, once

Bound: while USAGE can be read, a limit is passed by at most what is in flight on all gateways at that moment, and what
the others' records of the last second or so cost (they lie on disk for 50 ms, then travel). While it cannot be read,
each gateway goes on from what it knew and its own requests. The surprising rule: a record that comes by and is not
known as one of ours is simply added, so a book can start anywhere, as long as its position is right.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from domain.usage import UsageRecord, cost_eur_micros

MAX_UNCONFIRMED = 200_000
"""Requests with a price whose records have not come by; 40 MB. Beyond, the oldest count again when they do come by."""


class SpendSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A book as it is kept on disk.

    Attributes:
        position: of the last record of USAGE in it.
        month: "2026-11"; the one that `organizations` is about.
        keys, organizations: EUR millionths by id; who spent nothing is missing.
    """

    position: int
    month: str
    keys: Mapping[str, int]
    organizations: Mapping[str, int]


class Spending(msgspec.Struct, frozen=True, gc=False):
    """One request's money: whose, when, how much (EUR millionths)."""

    key_id: str
    organization_id: str
    month: str
    eur_micros: int


def month_of(at: datetime) -> str:
    """The calendar month in UTC that a moment belongs to."""
    at = at.astimezone(UTC)
    return f"{at.year:04}-{at.month:02}"


class SpendBook:
    """Mutable, in memory, one event loop."""

    def __init__(self) -> None:
        self.position = 0
        self._booked = _Sums()
        self._in_flight = _Sums()
        self._unconfirmed: dict[str, Spending] = {}

    def start_from(self, snapshot: SpendSnapshot) -> None:
        """What was booked up to the snapshot's position; what is in flight here stays so."""
        self.position = snapshot.position
        self._booked = _Sums(snapshot.month, snapshot.keys, snapshot.organizations)

    def snapshot(self) -> SpendSnapshot:
        """What is booked: the records of what is in flight come after its position."""
        booked = self._booked
        return SpendSnapshot(
            position=self.position,
            month=booked.month,
            keys=dict(booked.keys),
            organizations=dict(booked.organizations),
        )

    def by_key(self, key_id: str) -> int:
        """In all, what is in flight included."""
        return self._booked.keys.get(key_id, 0) + self._in_flight.keys.get(key_id, 0)

    def by_organization(self, organization_id: str, month: str) -> int:
        """In this month, what is in flight included."""
        return self._booked.of(organization_id, month) + self._in_flight.of(organization_id, month)

    def reserve(self, spending: Spending) -> None:
        self._in_flight.add(spending, 1)

    def settle(self, request_id: str, reserved: Spending, eur_micros: int) -> None:
        """The request is over and its record on its way, if it cost anything."""
        self._in_flight.add(reserved, -1)
        if eur_micros <= 0:
            return
        spent = msgspec.structs.replace(reserved, eur_micros=eur_micros)
        self._in_flight.add(spent, 1)
        self._unconfirmed[request_id] = spent
        if len(self._unconfirmed) > MAX_UNCONFIRMED:
            self._in_flight.add(self._unconfirmed.pop(next(iter(self._unconfirmed))), -1)

    def passed(self, position: int) -> None:
        """A record that cost nothing."""
        self.position = max(self.position, position)

    def seen(self, position: int, record: UsageRecord) -> None:
        """A record of USAGE, in order; one at a position that is known already changes nothing."""
        if position <= self.position:
            return
        self.position = position
        ours = self._unconfirmed.pop(record.request_id, None)
        if ours is not None:
            self._in_flight.add(ours, -1)
        spent = Spending(record.api_key_id, record.organization_id, month_of(record.at), cost_eur_micros(record))
        self._booked.add(spent, 1)


class _Sums:
    """EUR millionths of keys in all, and of organisations in the newest month that was heard of."""

    def __init__(
        self, month: str = "", keys: Mapping[str, int] | None = None, organizations: Mapping[str, int] | None = None
    ) -> None:
        self.month = month
        self.keys = dict(keys or {})
        self.organizations = dict(organizations or {})

    def of(self, organization_id: str, month: str) -> int:
        return self.organizations.get(organization_id, 0) if month == self.month else 0

    def add(self, spending: Spending, sign: int) -> None:
        if not spending.eur_micros:
            return
        _add(self.keys, spending.key_id, sign * spending.eur_micros)
        if spending.month > self.month:
            self.month = spending.month
            self.organizations.clear()
        if spending.month == self.month:
            _add(self.organizations, spending.organization_id, sign * spending.eur_micros)


def _add(sums: dict[str, int], name: str, amount: int) -> None:
    """Who has nothing is not kept."""
    total = sums.get(name, 0) + amount
    if total:
        sums[name] = total
    else:
        sums.pop(name, None)
