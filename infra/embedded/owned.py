"""What a server is to the one who owns it: `async with` it, or start, stop and kill it; the rest lies in child.py.

    EmbeddedNats, EmbeddedPostgres ── say what to run (child.Server) ──> OwnedServer runs it, one process at a time

The surprising rule: this is inherited, against the custom of the house. Held as a part, its methods would have to be
written out in each server again, and they are all it is.
"""

import asyncio
import signal
from types import TracebackType
from typing import Protocol, TypeVar

from infra.embedded import child
from infra.embedded.child import Server


class _Owned(Server, Protocol):
    """A server with this file's methods."""

    _process: asyncio.subprocess.Process | None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


S = TypeVar("S", bound=_Owned)


class OwnedServer:
    """Start, stop, kill and `async with` for a class that is a child.Server."""

    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self: _Owned) -> None:
        """Returns once it answers.

        Raises:
            EmbeddedServerError: it does not start; nothing is left running.
        """
        self._process = await child.start(self)

    async def stop(self: _Owned) -> None:
        """Politely, bounded; safe to repeat."""
        await _end(self, self.stop_signal)

    async def kill(self: _Owned) -> None:
        """SIGKILL and wait for the end: what a crash looks like, for tests."""
        await _end(self, signal.SIGKILL)

    async def __aenter__(self: S) -> S:  # noqa: PYI019 - Self cannot say that it is _Owned too
        await self.start()
        return self

    async def __aexit__(
        self: _Owned, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _end(server: _Owned, wanted: signal.Signals) -> None:
    if server._process is not None:  # noqa: SLF001 - OwnedServer's own; a protocol cannot say "this file's"
        await child.stop(server._process, wanted)  # noqa: SLF001 - see above
        server._process = None  # noqa: SLF001 - see above
