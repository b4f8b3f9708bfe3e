"""Child processes that belong to us: started, waited for, stopped, and never left behind.

    spawn ──> wait until ready ──> ... ──> stop: polite signal, grace, SIGKILL

The surprising rule: spawn from the main thread only. Linux ties "die with your parent" to the parent's *thread*, so a
child of a worker thread would be ended when that thread goes back to its pool.
"""

import asyncio
import contextlib
import ctypes
import os
import pwd
import secrets
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import structlog

_log = structlog.get_logger(__name__)

READY_TIMEOUT_S = 30.0
"""A log of a million messages recovers in under a second; a Postgres crash recovery may take some."""
STOP_GRACE_S = 10.0
KILL_GRACE_S = 5.0
POLL_S = 0.01
LOG_ROTATE_BYTES = 10_000_000
LOG_TAIL_BYTES = 2_000
_PR_SET_PDEATHSIG = 1
_PARENT_GONE_EXIT = 113


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot start or run; the message says which, why, and what to do."""


class Server(Protocol):
    """A local server as the supervisor sees it: prepare, spawn its command, wait until ready; again after a crash."""

    @property
    def name(self) -> str: ...

    @property
    def log_path(self) -> Path: ...

    @property
    def user(self) -> str | None:
        """The account that it must run as; None for our own."""
        ...

    @property
    def stop_signal(self) -> signal.Signals: ...

    async def prepare(self) -> None:
        """Makes files and folders; clears what a crash left. Idempotent; call before every spawn."""
        ...

    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        """All of the child's environment: ours may hold secrets, so nothing is inherited."""
        ...

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns once the server answers.

        Raises:
            EmbeddedServerError: it did not within timeout_s.
        """
        ...


async def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log_path: Path,
    user: str | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> asyncio.subprocess.Process:
    """Starts a child in a session of its own (no Ctrl-C from our terminal) that dies with us (Linux).

    Args:
        command: program and arguments; no shell.
        env: the whole environment of the child.
        log_path: receives stdout and stderr, appended; moved to `<name>.1` beyond LOG_ROTATE_BYTES.
        user: account to become; needs root.
        death_signal: what the kernel sends to the child when we die, however we die.

    Raises:
        EmbeddedServerError: called outside the main thread, unknown user, or the program cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedServerError("spawn children from the main thread: they die with the thread that made them")
    with _open_log(log_path) as log:
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                env=dict(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=_child_setup(user, death_signal),
            )
        except OSError as error:
            raise EmbeddedServerError(f"cannot start {command[0]}: {error}") from error


async def stop(
    process: asyncio.subprocess.Process,
    polite: signal.Signals = signal.SIGTERM,
    grace_s: float = STOP_GRACE_S,
) -> int:
    """Ends a child: the polite signal, at most grace_s, then SIGKILL. Returns its exit status; safe to repeat."""
    for wanted, wait_s in ((polite, grace_s), (signal.SIGKILL, KILL_GRACE_S)):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(wanted)
        try:
            return await asyncio.wait_for(process.wait(), wait_s)
        except TimeoutError:
            _log.warning("child_outlived_signal", pid=process.pid, signal=wanted.name, waited_s=wait_s)
    raise EmbeddedServerError(f"process {process.pid} survived SIGKILL for {KILL_GRACE_S} s")


async def start(server: Server) -> asyncio.subprocess.Process:
    """Prepares and spawns a server and waits until it answers; leaves nothing running when that fails.

    Raises:
        EmbeddedServerError: with the tail of the server's own log.
    """
    await server.prepare()
    process = await spawn(
        server.command(),
        env=server.environment(),
        log_path=server.log_path,
        user=server.user,
        death_signal=server.stop_signal,
    )
    try:
        await _ready_or_ended(server, process)
    except BaseException:
        await stop(process, server.stop_signal)
        raise
    return process


async def _ready_or_ended(server: Server, process: asyncio.subprocess.Process) -> None:
    ready = asyncio.ensure_future(server.wait_ready())
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            tail = log_tail(server.log_path)
            raise EmbeddedServerError(f"{server.name} ended at start with status {ended.result()}:\n{tail}")
        await ready
    finally:
        for task in (ready, ended):
            task.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)


async def together(*starts: Coroutine[Any, Any, None]) -> None:
    """All at once; the first failure stops the waiting for the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in starts:
                group.create_task(each)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def wait_until(answers: Callable[[], Awaitable[bool]], name: str, timeout_s: float) -> None:
    """Polls `answers` until it is true.

    Raises:
        EmbeddedServerError: it was not within timeout_s.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not await answers():  # noqa: ASYNC110 - the state lies outside this process; no event tells of it
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise EmbeddedServerError(f"{name} did not answer within {timeout_s} s") from None


def new_password() -> bytes:
    """192 random bits that need no quoting in a URL or a configuration file."""
    return secrets.token_urlsafe(24).encode()


def log_tail(log_path: Path) -> str:
    """The last LOG_TAIL_BYTES of a log, for an error message."""
    if not log_path.exists():
        return "(no log)"
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace").strip()


def _open_log(log_path: Path) -> BinaryIO:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > LOG_ROTATE_BYTES:
        log_path.replace(log_path.with_name(log_path.name + ".1"))
    log_path.touch(mode=0o600)
    return log_path.open("ab")


def _child_setup(user: str | None, death_signal: signal.Signals) -> Callable[[], None]:
    """What runs in the child between fork and exec. All look-ups happen here, before the fork."""
    account = _account(user)
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def setup() -> None:
        if account is not None:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)  # after setuid, which clears it
            if os.getppid() != parent:  # the parent died before prctl could know it
                os._exit(_PARENT_GONE_EXIT)

    return setup


def _account(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise EmbeddedServerError(f"there is no account named {user!r} on this machine") from None
