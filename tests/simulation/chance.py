"""Everything that happens by chance in one simulated world, from one seed.

Swarm style: each seed turns on some of the faults, each with a share of its own, so that rare combinations come up as
often as harmless ones. After `end()` nothing goes wrong any more: what is then not in order within its bound, is a bug.
"""

from random import Random
from typing import Literal, TypeVar

T = TypeVar("T")

Fate = Literal["well", "fails_before", "fails_after", "hangs", "late", "doubled"]
FATES: tuple[Fate, ...] = ("fails_before", "fails_after", "hangs", "late", "doubled")
SHARES = (0.02, 0.1, 0.3)
LIKELY = 0.6
"""How often a kind of fault is on in a seed."""

Mishap = Literal[
    "event_dropped",
    "event_doubled",
    "event_delayed",
    "process_killed",
    "agent_dies",
    "agent_never_starts",
    "agent_cut_off",
    "server_deleted_by_hand",
    "log_away",
    "out_of_stock",
    "partial_listing",
]
MISHAPS: tuple[Mishap, ...] = Mishap.__args__  # type: ignore[attr-defined] # typing knows it only as a special form


class Chance:
    """One seed's dice, and which faults it has."""

    def __init__(self, seed: int, *, calm: bool = False) -> None:
        self.dice = Random(seed)
        self.shares: dict[str, float] = {}
        if not calm:
            for fault in (*FATES, *MISHAPS):
                if self.dice.random() < LIKELY:
                    self.shares[fault] = self.dice.choice(SHARES)

    def end(self) -> None:
        """Nothing goes wrong from here on."""
        self.shares.clear()

    def strikes(self, fault: str) -> bool:
        share = self.shares.get(fault)
        return share is not None and self.dice.random() < share

    def fate(self) -> Fate:
        """How a call of a provider ends."""
        return next((fate for fate in FATES if self.strikes(fate)), "well")

    def between(self, low: float, high: float) -> float:
        return self.dice.uniform(low, high)

    def pick(self, choices: list[T]) -> T:
        return self.dice.choice(choices)
