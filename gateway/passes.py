"""Who was let in a moment ago is let in again without being looked at: most requests come from few keys.

    (credential, path) ──same table, same position, younger than FRESH_S──> the admission as it was found

Every event in the table makes all of it void at once, so a revocation counts with the next request; what depends on the
clock (an expiry, a share's end) may be late by FRESH_S. The surprising rule: a key that is bound to addresses is looked
at each time, and so is a request with a header that is there twice.
"""

import msgspec

from domain.ids import OrganizationId
from domain.limits import OrganizationLimits
from gateway.account import Openings
from gateway.admission import Asked
from gateway.http import Head
from gateway.resolution import Target
from gateway.wire import Route
from projections.routing_table import KnownKey, RoutingTable

FRESH_S = 1.0
"""How long an admission is remembered."""
MAX_REMEMBERED = 4096
"""Credentials at a time; one more, and all are looked at anew."""


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller's name for a model stands for, what its organisation is allowed, what its accounts begin with."""

    target: Target
    place: tuple[OrganizationId, str]
    limits: OrganizationLimits
    openings: Openings


class Pass(msgspec.Struct, kw_only=True):
    """One admission.

    Attributes:
        position: the table's.
        until_s: monotonic; good for so long.
        aims: by the model's name in a request.
    """

    route: Route
    key: KnownKey
    asked: Asked
    table: RoutingTable
    position: int
    until_s: float
    aims: dict[str, Aim]

    def holds(self, table: RoutingTable, now_s: float) -> bool:
        return self.position == table.position and self.table is table and now_s < self.until_s


class Passes:
    """Mutable, in memory, one event loop. `forget` is to be called about once a second: no credential stays longer."""

    def __init__(self) -> None:
        self._passes: dict[tuple[bytes, str], Pass] = {}

    def __len__(self) -> int:
        return len(self._passes)

    def find(self, head: Head, table: RoutingTable, now_s: float) -> Pass | None:
        known = self._passes.get((_lone_bearer(head), head.path))
        return known if known is not None and known.holds(table, now_s) else None

    def keep(self, head: Head, found: Pass) -> None:
        credential = _lone_bearer(head)
        if not credential or found.key.scope.networks:
            return
        if len(self._passes) >= MAX_REMEMBERED:
            self._passes.clear()
        self._passes[credential, head.path] = found

    def forget(self, now_s: float) -> None:
        """Lets go of what holds no more."""
        over = [name for name, known in self._passes.items() if known.until_s <= now_s]
        for name in over:
            del self._passes[name]


def _lone_bearer(head: Head) -> bytes:
    """The one credential of a request whose every header is there once; b"" when that is not so."""
    given = head.given
    if b"x-api-key" in given or len(given) != len(head.headers):
        return b""
    return given.get(b"authorization", b"")
