"""The dead-man switch: a machine that its control plane has not answered for too long switches itself off.

    answer ──> heard ──> on disk          no answer ──> missed          silent for the owner's bound ──> due

Only an answer that accepts a report counts, or one that asks to wait for the machine's address. No route, a 5xx and a
401 are all the same silence: in none of them does anybody know of this machine, and it costs money. The surprising
rule: it is never due before this very process has asked and was not answered; and one that finds the bound passed when
it starts (the agent was stopped, the clock was wrong) gets a chance to be heard first, once for each silence, however
often the agent restarts meanwhile.

Time is the boot clock, which nobody can set and which counts on while the machine sleeps. Only from one boot to the
next does the wall clock have to do; a clock that went back counts as no time at all.
"""

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec

CHANCE_S = 30.0
"""After a restart of the agent; a whole platform may be starting beside it."""
CHANCE_AFTER_BOOT_S = 120.0
"""The network may take its time, and the clock be wrong."""
LEAST_POLL_S = 0.02
LONGEST_POLL_S = 1.0
KEPT_SHARE = 0.05
"""What is on disk may be this share of the bound behind, so that not every heartbeat is written."""
LONGEST_KEPT_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BootClock:
    """Seconds since the machine booted, which boot that was, and the time of day."""

    def boot_id(self) -> str:
        """Empty where the system does not say; then no two boots are the same."""
        with contextlib.suppress(OSError):
            return _BOOT_ID.read_text().strip()
        return ""

    def boottime_s(self) -> float:
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def wall_s(self) -> float:
        return time.time()


class LastHeard(msgspec.Struct, frozen=True):
    """When the control plane was last heard, by both clocks; `not_before_s`: the end of this silence's chance."""

    instance_id: str
    boot_id: str
    boottime_s: float
    wall_s: float
    not_before_s: float = 0.0


class DeadMan:
    """Counts one worker's silence.

    Args:
        path: keeps it over a restart of the agent.
        instance_id: whose silence; another one's is not counted.
        bound_s: 0 switches it off.
    """

    def __init__(self, path: Path, *, instance_id: str, bound_s: float, clock: BootClock | None = None) -> None:
        self._path = path
        self._instance_id = instance_id
        self._bound_s = bound_s
        self._clock = clock or BootClock()
        self._boot_id = self._clock.boot_id()
        self._missed = False
        self._silent_since_s = self._clock.boottime_s()
        self._not_before_s = 0.0
        self._kept_at_s = float("-inf")
        if bound_s:
            self._resume()

    def heard(self) -> None:
        """The control plane accepted a report."""
        self._missed = False
        self._silent_since_s = now_s = self._clock.boottime_s()
        had_a_chance, self._not_before_s = bool(self._not_before_s), 0.0
        is_old = now_s - self._kept_at_s >= min(LONGEST_KEPT_S, KEPT_SHARE * self._bound_s)
        if self._bound_s and (is_old or had_a_chance):
            self._keep()

    def missed(self) -> None:
        """It was asked, and did not."""
        self._missed = True

    @property
    def silent_s(self) -> float:
        return self._clock.boottime_s() - self._silent_since_s

    def is_due(self) -> bool:
        in_time = self._clock.boottime_s() >= self._not_before_s
        return bool(self._bound_s) and self._missed and in_time and self.silent_s >= self._bound_s

    async def due(self) -> None:
        """Returns when the machine should be switched off; without a bound, never."""
        while not self.is_due():
            left_s = self._bound_s - self.silent_s if self._bound_s else LONGEST_POLL_S
            await asyncio.sleep(min(LONGEST_POLL_S, max(LEAST_POLL_S, left_s)))

    def forget(self) -> None:
        """The next life counts from its own beginning."""
        self._path.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Goes on counting where the last life of this agent stopped."""
        now_s, kept = self._clock.boottime_s(), self._read()
        if kept is not None:
            if self._boot_id and kept.boot_id == self._boot_id:
                self._silent_since_s = min(now_s, kept.boottime_s)
                self._not_before_s, chance_s = kept.not_before_s, min(CHANCE_S, self._bound_s)
            else:
                self._silent_since_s = now_s - max(0.0, self._clock.wall_s() - kept.wall_s)
                chance_s = min(CHANCE_AFTER_BOOT_S, self._bound_s)
            if not self._not_before_s and self.silent_s + chance_s >= self._bound_s:
                self._not_before_s = now_s + chance_s
        self._keep()

    def _read(self) -> LastHeard | None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            kept = msgspec.json.decode(self._path.read_bytes(), type=LastHeard)
            return kept if kept.instance_id == self._instance_id else None
        return None

    def _keep(self) -> None:
        """A disk that does not take it costs accuracy over a restart, and nothing else."""
        now_s = self._kept_at_s = self._clock.boottime_s()
        heard_at_s = self._clock.wall_s() - (now_s - self._silent_since_s)
        entry = LastHeard(self._instance_id, self._boot_id, self._silent_since_s, heard_at_s, self._not_before_s)
        with contextlib.suppress(OSError):
            draft = self._path.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(entry))
            draft.replace(self._path)
