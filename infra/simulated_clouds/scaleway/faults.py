"""What may go wrong between a client and the simulated Scaleway, told beforehand: for the n-th call, or for a share.

    before the deed   status rate_limited server_error denied reset hang out_of_stock quota
    instead of it     swallowed (a success, nothing is done) nonsense (200 and no JSON) late (504, done after_s later)
    after it          done_then_504 done_then_reset partial_page slow

The surprising rule: faults are counted each by itself, from the moment it was added, so two faults for one call do not
shift one another; the first that matches, in the order of adding, decides.
"""

import fnmatch
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import msgspec

FaultKind = Literal[
    "status",
    "rate_limited",
    "server_error",
    "denied",
    "reset",
    "hang",
    "out_of_stock",
    "quota",
    "swallowed",
    "nonsense",
    "late",
    "done_then_504",
    "done_then_reset",
    "partial_page",
    "slow",
]
MAX_FAULTS = 1_000
MAX_PAUSE_S = 3_600.0


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that goes wrong.

    Attributes:
        operation: the SDK's name of the call ("create_server", "server_action:poweron", "block:delete_volume"), or a
            pattern of such names ("*", "block:*").
        zone: only there; "" everywhere.
        nth: the first matching call that it hits, 1 is the next one.
        times: how many it hits from there on; 0: all of them.
        share: instead of nth and times: the part of all matching calls that it hits, drawn with `seed`.
        status, type, message: of kind "status".
        retry_after_s: of kind "rate_limited".
        after_s: "late": simulated seconds until it is done; "slow" and "hang": real seconds of silence.
        cut: "partial_page": how many entries of the page are missing.
    """

    kind: FaultKind
    operation: str = "*"
    zone: str = ""
    nth: int = 1
    times: int = 1
    share: float = 0.0
    seed: int = 0
    status: int = 500
    type: str = "internal"
    message: str = "internal error"
    retry_after_s: int = 1
    after_s: float = 600.0
    cut: int = 1

    def __post_init__(self) -> None:
        if self.nth < 1 or self.times < 0 or self.cut < 1:
            raise ValueError("nth and cut begin at 1, times at 0")
        if not 0 <= self.share <= 1 or not 0 <= self.after_s <= MAX_PAUSE_S:
            raise ValueError(f"share is a part of 1, after_s at most {MAX_PAUSE_S}")
        if not 400 <= self.status <= 599:
            raise ValueError("status is that of a refusal, 400 to 599")


@dataclass
class _Set:
    """A fault, how many calls it has matched, how many it has hit."""

    fault: Fault
    chance: Random
    matched: int = 0
    hit: int = 0


@dataclass
class Faults:
    """Those that are set; `hits` counts what happened, by kind."""

    hits: dict[str, int] = field(default_factory=dict)
    _set: list[_Set] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Raises ValueError beyond MAX_FAULTS."""
        if len(self._set) >= MAX_FAULTS:
            raise ValueError(f"at most {MAX_FAULTS} faults")
        self._set.append(_Set(fault, Random(fault.seed)))  # noqa: S311 - a seeded draw, not a secret

    def clear(self) -> None:
        self._set.clear()

    def all(self) -> list[Fault]:
        return [entry.fault for entry in self._set]

    def next(self, names: tuple[str, ...], zone: str, *, swallowable: bool = False) -> Fault | None:
        """The fault of this call, which counts it for every fault that it matches."""
        chosen: _Set | None = None
        for entry in self._set:
            if self._matches(entry.fault, names, zone, swallowable=swallowable) and _due(entry) and chosen is None:
                chosen = entry
        if chosen is None:
            return None
        chosen.hit += 1
        self.hits[chosen.fault.kind] = self.hits.get(chosen.fault.kind, 0) + 1
        return chosen.fault

    def _matches(self, fault: Fault, names: tuple[str, ...], zone: str, *, swallowable: bool) -> bool:
        if fault.zone not in ("", zone) or (fault.kind == "swallowed" and not swallowable):
            return False
        return any(fnmatch.fnmatchcase(name, fault.operation) for name in names)


def _due(entry: _Set) -> bool:
    """Counts the call; whether it is among those that the fault hits."""
    fault = entry.fault
    entry.matched += 1
    if fault.share:
        return entry.chance.random() < fault.share
    return entry.matched >= fault.nth and (fault.times == 0 or entry.hit < fault.times)
