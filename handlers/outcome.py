"""What a reaction answers, and what a fault in it amounts to.

    Done          seen and settled up to a version; perhaps "look again at"
    RetryAfter    not yet: look again after a pause
    Park          this aggregate stops here until a person retries or skips it; all others go on
    Stop          this reaction stops for all: going on would do harm

The surprising rule: a refused command is Done. The state moved while the reaction was deciding, and the event that
moved it is on its way here.
"""

from datetime import datetime

import msgspec

from domain.decider import Rejected

MAX_ATTEMPTS = 8
"""Tries of what fails for a reason of our own (a bug, an unknown event) before it is parked; about half a minute."""
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 30.0
"""Where the doubling ends. The world's faults (OSError) are retried at this pace for ever: nothing is abandoned."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is left to do for any event up to `version`, until `again_at` if that is given."""

    version: int
    again_at: datetime | None = None


class RetryAfter(msgspec.Struct, frozen=True):
    """`version` is the newest one that was looked at: what it says is covered by the next look."""

    seconds: float
    reason: str
    version: int = 0


class Park(msgspec.Struct, frozen=True):
    reason: str


class Stop(msgspec.Struct, frozen=True):
    reason: str


Outcome = Done | RetryAfter | Park | Stop


def pause_s(attempt: int) -> float:
    """Pause after the attempt with this number (0 is the first), in seconds."""
    return float(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 16)))


def outcome_of(fault: Exception, *, version: int, attempt: int, own_faults: int) -> Outcome:
    """What follows from an exception that left a reaction.

    Args:
        fault: the exception.
        version: of the event that woke the reaction.
        attempt: how often in a row it has been put off before.
        own_faults: how many of those were no refusal and no fault of the world.
    """
    match fault:
        case Rejected():
            return Done(version=version)
        case OSError():
            return RetryAfter(pause_s(attempt), _words(fault))
        case AssertionError():
            return Park(_words(fault))  # the impossible does not become possible by repetition
        case _ if own_faults + 1 >= MAX_ATTEMPTS:
            return Park(_words(fault))
        case _:
            return RetryAfter(pause_s(attempt), _words(fault))


def is_own_fault(fault: Exception) -> bool:
    return not isinstance(fault, Rejected | OSError)


def _words(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
