"""Processes under measurement: each on a core of its own, seen with all its children; ended with us.

    on_core(0): gateway under measurement          on_core(1): load, fake engine, nats-server

CPU is what the scheduler says each thread ran, in nanoseconds. The surprising rule: a child inherits the core of
whoever starts it, so that no thread of its own ever runs elsewhere; setting it afterwards would miss the first ones.
"""

import fcntl
import os
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.embedded.child import spawn

Command = Sequence[object]
"""Its words; each as str() says it."""

PROC = Path("/proc")
MB = 1_000_000


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within the block runs on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> tuple[int, int]:
    """One for the gateway, one for everything else: the first and the last that we may use.

    Raises:
        RuntimeError: there is only one, so that load and gateway would steal each other's time.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise RuntimeError("this measurement needs two cores: one for the gateway, one for the load")
    return allowed[0], allowed[-1]


async def start(command: Command, *, core: int, log: Path, variables: Mapping[str, str]) -> Process:
    """A child on that core that dies with us; its whole environment is `variables`."""
    with on_core(core):
        return await spawn([str(word) for word in command], env=variables, log_path=log)


@contextmanager
def alone(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one measurement at a time on this machine: two would measure each other."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another measurement runs; waiting for its end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def family(pid: int) -> list[int]:
    """The process and all that came of it; empty when it is gone, or when there is none (0)."""
    if not pid:
        return []
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def cpu_ns(pids: Sequence[int], proc: Path = PROC) -> int:
    """Time on a processor of all threads of these processes; of those that have ended, none."""
    return sum(_ran_ns(file) for pid in pids for file in proc.glob(f"{pid}/task/*/schedstat"))


def _ran_ns(file: Path) -> int:
    try:
        return parse_schedstat(file.read_text())
    except OSError:  # the thread has ended
        return 0


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a processor: the first of the three numbers, see the kernel's Documentation/scheduler."""
    return int(text.split(maxsplit=1)[0])


def others_cores(began_s: float, busy_before_s: float) -> float:
    """Cores that somebody else kept busy on average since then, while we measured.

    Args:
        began_s: time.monotonic() of then.
        busy_before_s: busy_s() of then; the children that have ended since are known only now.
    """
    return max(0.0, (busy_s() - busy_before_s) / (time.monotonic() - began_s))


def busy_s() -> float:
    """Seconds that this machine's cores have worked for others than ourselves and our ended children."""
    machine, own = psutil.cpu_times(), os.times()
    ours_s = own.user + own.system + own.children_user + own.children_system
    return float(machine.user + machine.nice + machine.system) - ours_s


def resident_mb(pids: Sequence[int]) -> float:
    """Memory that is in RAM, megabytes (10^6 bytes); what two processes share counts in each."""
    return sum(_resident(pid) for pid in pids) / MB


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
