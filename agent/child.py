"""A child process that cannot outlive the agent, and leaves nothing behind when it ends.

    agent ──start──> this program again (`exec PID command`) ──> asks the kernel to end it with its parent PID
                                                            └──> becomes the command

Four ways lead to a stray process, and each is closed here: the agent dies (PR_SET_PDEATHSIG on Linux), the agent dies
before the child has asked for that (the parent's pid is compared), a former agent left its engine (pid file, believed
only when the start time matches too), the engine leaves its own children (each engine has a process group).

The detour over `exec` exists because a fork hook in a process with threads may hang, and the resolver uses threads.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil

from agent.build import own_location
from agent.event_log import RotatingFile

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""

KILL_TIMEOUT_S = 5.0
KILL_POLL_S = 0.01
LAST_READS = 16
READ_BYTES = 1 << 16
START_TIME_TOLERANCE_S = 0.5


class _PidFile(msgspec.Struct, frozen=True):
    pid: int
    started_at: float


def own_command(*arguments: str) -> list[str]:
    """The command line that runs this very program, from its archive or its sources, with other arguments."""
    location = own_location()
    if location.is_file():
        return [sys.executable, str(location), *arguments]
    return [sys.executable, "-c", _FROM_SOURCES, str(location), *arguments]


_FROM_SOURCES = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agent.__main__ import main; sys.exit(main())"


def become(parent_pid: int, command: Sequence[str]) -> NoReturn:
    """Ties this process to its parent's life, then turns it into `command`."""
    die_with(parent_pid)
    os.execvp(command[0], list(command))  # noqa: S606 - the agent's own command, without a shell


def die_with(parent_pid: int) -> None:
    """Has the kernel send SIGTERM to this process when its parent dies; ends it now when that has happened already."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only this process, only on Linux

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os._exit(1)


class Child:
    """One process at a time, its output in `log`, its pid in `pid_file`."""

    def __init__(self, *, pid_file: Path, log: RotatingFile) -> None:
        self._pid_file = pid_file
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._group: int | None = None
        self._output: int | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Starts `command`, after ending what a former agent may have left; returns the pid.

        Raises:
            OSError: the process could not be started.
        """
        await asyncio.to_thread(end_left_over, self._pid_file)
        # A pipe of our own: asyncio's would keep wait() from returning while a grandchild holds its other end.
        output, child_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_end,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError:
            os.close(output)
            raise
        finally:
            os.close(child_end)
        self._group = self._process.pid
        self._remember(self._process.pid)
        self._follow(output)
        return self._process.pid

    async def wait(self) -> int:
        """Waits until the process has ended, and ends what it left in its group; returns its exit status."""
        assert self._process is not None, "wait follows start"  # noqa: S101 - the impossible
        status = await self._process.wait()
        self._kill_group()
        self._close_output()
        return status

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL for the whole group after `timeout_s`; the process is gone when this returns."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        self._kill_group()
        await self._process.wait()
        self._close_output()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends the group at once, without waiting."""
        self._kill_group()

    def _kill_group(self) -> None:
        """Once for each start: later, the number may be somebody else's."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
            self._group = None

    def _remember(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            entry = _PidFile(pid, psutil.Process(pid).create_time())
            self._pid_file.write_bytes(msgspec.json.encode(entry))

    def _follow(self, output: int) -> None:
        self._close_output()
        os.set_blocking(output, False)
        self._output = output
        asyncio.get_running_loop().add_reader(output, self._copy_output)

    def _copy_output(self) -> bool:
        """Copies what has been said since; False when there is nothing, now or any more."""
        if self._output is None:
            return False
        try:
            chunk = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._forget_output()
            return False
        self._log.append(chunk)
        return True

    def _close_output(self) -> None:
        """Keeps the last words; a grandchild that goes on talking is not listened to for ever."""
        for _ in range(LAST_READS):
            if not self._copy_output():
                break
        self._forget_output()

    def _forget_output(self) -> None:
        if self._output is not None:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = None


def end_left_over(pid_file: Path) -> bool:
    """Kills the process group that `pid_file` names, if it is still that process; returns whether there was one."""
    try:
        entry = msgspec.json.decode(pid_file.read_bytes(), type=_PidFile)
        process = psutil.Process(entry.pid)
        same = abs(process.create_time() - entry.started_at) < START_TIME_TOLERANCE_S
        leads_its_group = os.getpgid(entry.pid) == entry.pid
    except (OSError, msgspec.MsgspecError, psutil.Error):
        return False
    if not (same and leads_its_group):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(entry.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while not _is_over(process) and time.monotonic() < deadline:
        time.sleep(KILL_POLL_S)
    return True


def _is_over(process: psutil.Process) -> bool:
    """A zombie is over too: it holds no port any more, and its new parent may take its time."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
