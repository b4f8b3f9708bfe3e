"""Keeps the children of `inventiv up` alive, and ends them in order.

    start ──> running ──dies──> restarting (0.2 s, 0.4 s ... 10 s) ──> running ──stop──> stopped
                 └──replace──> another one running; this one finishing ──> ends by itself

Every child obeys the same law, our roles as much as nats-server and Postgres. The surprising rule: a child that dies
again soon after its restart waits longer each time, and only 30 quiet seconds clear its record.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import psutil

from infra.embedded import child
from infra.embedded.child import EmbeddedServerError, Server
from infra.processes.running import ChildState, ChildView

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
HEALTHY_AFTER_S = 30.0
"""A child that lived this long since its last start begins again at FIRST_PAUSE_S."""


class _Child:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.state: ChildState = "starting"
        self.restarts = 0
        self.created_at: float | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.watch: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.process = await child.start(self.server)
        with contextlib.suppress(psutil.Error):  # it may have died within the last millisecond; the watch will see
            self.created_at = psutil.Process(self.process.pid).create_time()
        self.state = "running"

    def view(self) -> ChildView:
        alive = self.process if self.state in {"running", "finishing"} else None
        return ChildView(
            pid=alive.pid if alive else None,
            created_at=self.created_at if alive else None,
            state=self.state,
            restarts=self.restarts,
        )


class Supervisor:
    """Starts children, restarts those that die, stops them.

    Args:
        say: receives one line for each restart and each failed attempt.
        on_change: called after each change of any child's view.
        first_pause_s, longest_pause_s, healthy_after_s: the restart pauses.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        on_change: Callable[[], None] = lambda: None,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        healthy_after_s: float = HEALTHY_AFTER_S,
    ) -> None:
        self._say = say
        self._on_change = on_change
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._healthy_after_s = healthy_after_s
        self._children: dict[str, _Child] = {}
        self._finishing: list[_Child] = []

    def views(self) -> dict[str, ChildView]:
        return {name: kept.view() for name, kept in self._children.items()}

    def finishing(self) -> dict[str, ChildView]:
        """Children that were replaced and have not ended yet, by name and pid."""
        views = [(kept.server.name, kept.view()) for kept in self._finishing]
        return {f"{name}-{view.pid}": view for name, view in views}

    async def start(self, server: Server) -> float:
        """Starts a child, waits until it is ready and watches it from then on; returns how many seconds it took.

        Raises:
            EmbeddedServerError: it does not start at all; it is not watched then.
        """
        began = time.monotonic()
        kept = _Child(server)
        await kept.begin()
        self._children[server.name] = kept
        kept.watch = asyncio.create_task(self._watch(kept))
        self._on_change()
        return time.monotonic() - began

    async def replace(self, server: Server) -> None:
        """Starts a second child of the same name, which takes over by itself, and lets the first finish in peace.

        Raises:
            EmbeddedServerError: the first does not run, or the second does not start; the first is kept as before.
        """
        old = self._children.get(server.name)
        if old is None or old.state != "running" or old.watch is None:
            raise EmbeddedServerError(f"{server.name} does not run at the moment, so there is nothing to replace")
        old.watch.cancel()  # its end is no death, once the new one serves
        fresh = _Child(server)
        fresh.restarts = old.restarts
        try:
            await fresh.begin()
        except BaseException:
            old.watch = asyncio.create_task(self._watch(old))
            raise
        self._children[server.name] = fresh
        fresh.watch = asyncio.create_task(self._watch(fresh))
        old.state = "finishing"
        self._finishing.append(old)
        old.watch = asyncio.create_task(self._see_off(old))
        self._on_change()

    async def stop(self, name: str, grace_s: float) -> None:
        """Ends a child, those that it replaced, and their watches: the polite signal, at most grace_s, then SIGKILL.

        Unknown names are fine.
        """
        wanted = [kept for kept in self._finishing if kept.server.name == name]
        if name in self._children:
            wanted.append(self._children[name])
        await asyncio.gather(*(self._stop(kept, grace_s) for kept in wanted))
        self._finishing = [kept for kept in self._finishing if kept.state != "stopped"]
        self._on_change()

    async def _stop(self, kept: _Child, grace_s: float) -> None:
        if kept.state == "stopped":
            return
        kept.state = "stopped"
        if kept.watch is not None:
            kept.watch.cancel()
            await asyncio.gather(kept.watch, return_exceptions=True)
        if kept.process is not None:
            await child.stop(kept.process, kept.server.stop_signal, grace_s)

    def kill_all(self) -> None:
        """SIGKILL to every child: for someone who pressed Ctrl-C twice."""
        for kept in (*self._children.values(), *self._finishing):
            kept.state = "stopped"
            if kept.process is not None and kept.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    kept.process.send_signal(signal.SIGKILL)

    async def _watch(self, kept: _Child) -> None:
        pauses = self._pauses()
        while kept.process is not None:
            running_since = time.monotonic()
            status = await kept.process.wait()
            ended = time.monotonic()
            if ended - running_since >= self._healthy_after_s:
                pauses = self._pauses()
            kept.state = "restarting"
            self._on_change()
            attempts = await self._restart(kept, pauses)
            again = f", after {attempts} attempts" if attempts > 1 else ""
            kept.restarts += 1
            self._on_change()
            self._say(f"{kept.server.name} {_how(status)}; running again {time.monotonic() - ended:.1f} s later{again}")

    async def _see_off(self, kept: _Child) -> None:
        if kept.process is not None:
            status = await kept.process.wait()
            self._say(f"the {kept.server.name} that was replaced {_how(status)}")
        self._finishing.remove(kept)
        self._on_change()

    async def _restart(self, kept: _Child, pauses: Iterator[float]) -> int:
        """Tries until it runs, however long that takes (the pauses are bounded); returns the number of attempts."""
        attempts = 0
        for pause_s in pauses:
            attempts += 1
            await asyncio.sleep(pause_s)
            try:
                await kept.begin()
                break
            except (EmbeddedServerError, OSError) as error:
                reason = str(error).strip().splitlines()[-1]
                self._say(f"{kept.server.name} does not start: {reason} (log: {kept.server.log_path})")
        return attempts

    def _pauses(self) -> Iterator[float]:
        pause_s = self._first_pause_s
        while True:
            yield pause_s
            pause_s = min(2 * pause_s, self._longest_pause_s)


def _how(status: int) -> str:
    """Words for an exit status as asyncio gives it: negative for a signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
