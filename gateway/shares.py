"""How much of a model each tenant holds: its requests that run there now, and how many ran on average lately.

    burden = (running + MEMORY_WEIGHT x average over about MEMORY_S) / weight          the lightest is served next

The memory makes the difference under a flood: with places of eight workers and nine tenants everybody has one running
or none, and by that alone the flooding tenant is as light as any. The surprising rule: who was idle is let in sooner
than who was busy, for as long as its average takes to catch up.
"""

from collections.abc import Callable, Iterable
from math import exp

MEMORY_S = 30.0
"""About as long as an answer takes; in a simulation of floods, 10 to 60 s made little difference."""
MEMORY_WEIGHT = 2.0
FORGOTTEN = 0.01
"""An average that small is none."""

Place = tuple[str, str]


class _Share:
    """One tenant's at one model."""

    __slots__ = ("at_s", "average", "running", "turn")

    def __init__(self, at_s: float) -> None:
        self.running = 0
        self.average = 0.0
        self.at_s = at_s
        self.turn = 0

    def pass_time(self, now_s: float) -> None:
        if now_s > self.at_s:
            kept = exp((self.at_s - now_s) / MEMORY_S)
            self.average = self.average * kept + self.running * (1 - kept)
            self.at_s = now_s


class Shares:
    """Mutable, in memory, one event loop.

    Args:
        now_s: monotonic.
        weight_of: a tenant's; with twice the weight it may hold twice as much.
    """

    def __init__(self, *, now_s: Callable[[], float], weight_of: Callable[[str], float]) -> None:
        self._now_s = now_s
        self._weight_of = weight_of
        self._shares: dict[tuple[Place, str], _Share] = {}
        self._turn = 0

    def began(self, place: Place, tenant: str) -> None:
        now_s = self._now_s()
        share = self._shares.get((place, tenant))
        if share is None:
            share = self._shares[place, tenant] = _Share(now_s)
        share.pass_time(now_s)
        share.running += 1

    def ended(self, place: Place, tenant: str) -> None:
        share = self._shares[place, tenant]
        share.pass_time(self._now_s())
        share.running -= 1

    def served(self, place: Place, tenant: str) -> None:
        """It had its turn; among equals it comes after the others now."""
        share = self._shares.get((place, tenant))
        if share is not None:
            self._turn += 1
            share.turn = self._turn

    def lightest(self, place: Place, tenants: Iterable[str]) -> str | None:
        now_s = self._now_s()
        return min(tenants, key=lambda tenant: self._burden(place, tenant, now_s), default=None)

    def sweep(self) -> None:
        """Forgets who has nothing running and had nothing for long."""
        now_s = self._now_s()
        for key, share in list(self._shares.items()):
            if not share.running:
                share.pass_time(now_s)
                if share.average < FORGOTTEN:
                    del self._shares[key]

    def _burden(self, place: Place, tenant: str, now_s: float) -> tuple[float, int]:
        share = self._shares.get((place, tenant))
        if share is None:
            return (0.0, 0)
        share.pass_time(now_s)
        return ((share.running + MEMORY_WEIGHT * share.average) / self._weight_of(tenant), share.turn)
