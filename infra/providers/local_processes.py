"""The processes of the local provider: agents that live on when the handlers restart, as a rented machine would.

    start ──> pid and start time, remembered in the server's folder ──> is it alive? ──> end: SIGTERM, grace, SIGKILL

Each agent runs from the archive in its own server's folder. So its command line alone tells whose it is, and an agent
is found again even when the handlers died between starting it and writing that down. A pid alone proves nothing.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from infra.providers.local_files import PRIVATE_FILE, ProcessIdentity

START_TIME_TOLERANCE_S = 0.05
KILL_WAIT_S = 5.0
CHILDREN_GRACE_S = 1.0
"""An engine is told by the kernel that its agent is gone; it needs a moment to end."""
POLL_S = 0.02
LOG_ROTATE_BYTES = 10_000_000
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def start_agent(archive: Path, environment: Mapping[str, str], log: Path) -> ProcessIdentity:
    """Starts the agent in a session of its own, tied to nobody's life.

    Raises:
        OSError: it cannot be started.
    """
    return start_program([sys.executable, str(archive)], environment, log)


def start_program(command: Sequence[str], environment: Mapping[str, str], log: Path) -> ProcessIdentity:
    """Starts a program in a session of its own, with nothing inherited; its output goes to `log`.

    Raises:
        OSError: it cannot be started.
    """
    if log.exists() and log.stat().st_size > LOG_ROTATE_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    try:
        return ProcessIdentity(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:  # it is over already; its log says why
        return ProcessIdentity(pid, 0.0)


def alive(identity: ProcessIdentity | None) -> psutil.Process | None:
    """The very process, if it still runs; one that only waits to be reaped does not."""
    if identity is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(identity.pid)
        same = abs(process.create_time() - identity.started_at) <= START_TIME_TOLERANCE_S
        if same and process.status() not in _ENDED:
            return process
    return None


def find_agent(archive: Path) -> psutil.Process | None:
    """The agent that runs from this archive, found by its command line."""
    wanted = str(archive)
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        own = len(command) == 2 and command[1] == wanted  # its children have further arguments
        if own and process.info["status"] != psutil.STATUS_ZOMBIE:
            return process
    return None


def end_agent(process: psutil.Process, grace_s: float) -> bool:
    """SIGTERM to its group, SIGKILL after grace_s, then whatever its children left; True when all are gone."""
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    _signal_group(process, signal.SIGTERM)
    if _left(family[:1], grace_s):
        _signal_group(process, signal.SIGKILL)
    for remaining in _left(family, CHILDREN_GRACE_S):  # psutil compares start times: a reused pid is not hit
        with contextlib.suppress(psutil.NoSuchProcess):
            remaining.kill()
    return not _left(family, KILL_WAIT_S)


def _left(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run after at most timeout_s."""
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if _runs(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if _runs(process)]
    return left


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in _ENDED
    return False


def reap(pid: int) -> bool:
    """Takes leave of a child of ours that has ended; True when it is none of ours (any more)."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _signal_group(process: psutil.Process, wanted: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        if process.is_running() and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, wanted)
