"""An event loop whose clock only moves when nobody has anything to do: an hour passes in milliseconds, repeatably.

    ready callbacks ──> all run ──> none left ──> the clock jumps to the next timer ──> ...

The surprising rule: nothing outside may be waited for (no socket, thread or child), for outside time does not pass.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class DeadlockError(Exception):
    """Everybody waits, and no timer will ever wake anybody."""


class _Leap(selectors.SelectSelector):
    """Sleeps by moving the clock."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError(f"at {self.loop.time():.1f} s")
        self.loop.elapsed_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`elapsed_s` virtual seconds have passed since it was made."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        leap = _Leap()
        leap.loop = self
        super().__init__(leap)

    def time(self) -> float:
        return self.elapsed_s

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.elapsed_s)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Runs it on a loop of its own, and ends what it left running."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> datetime:
    """The running loop's virtual time."""
    return virtual_loop().now()


def virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
