"""One reading of a stream for many readers, as long as they are near one another.

    stream ──> window (the last messages read) ──┬─> reader at 990       each takes what came after its own position,
                   ^                             ├─> reader at 1,000     in batches as large as it is behind
                   └── waits when it is full     └─> ...
    far behind: a window of its own, which ends where it meets the one ahead; its readers go over

A message is received and decoded once, however many read models want it. The window is bounded. When it is full it
waits for its slowest reader, so that all go through a long replay in step; but a reader that takes nothing for
PATIENCE_S is left behind, so nobody's fault or slowness stops the others for longer. The surprising rule: a position is
never taken on trust. A reader who is ahead of every window opens its own, and so learns whether the stream reaches it.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from infra.cancellation import heed_cancellation

WINDOW_MESSAGES = 32_000
WINDOW_BYTES = 32_000_000
"""Of payloads; decoded, they take about three times as much."""
TAKE_MESSAGES = 8_000
"""Most messages in one batch, and so in one transaction of a reader that is far behind."""
GATHER_S = 0.5
"""How long a new window keeps all that it has read, for those who start with it and are later by a login."""
PATIENCE_S = 2.0
"""A batch of a replay takes a tenth of a second; whoever needs so much longer stands still."""


class Message(Protocol):
    @property
    def position(self) -> int: ...

    @property
    def payload(self) -> bytes: ...


M = TypeVar("M", bound=Message)

Read = Callable[[int], AbstractAsyncContextManager[AsyncIterator[Sequence[M]]]]
"""after -> endless batches of what follows, in order."""


class SharedFollow(Generic[M]):
    """Follows a stream for several readers of one event loop.

    Args:
        read: follows the stream itself.
    """

    def __init__(self, read: Read[M]) -> None:
        self._read = read
        self._windows: list[_Window[M]] = []

    @property
    def readings(self) -> int:
        """How many times the stream is being read now."""
        return len(self._windows)

    @asynccontextmanager
    async def follow(self, *, after: int) -> AsyncIterator[AsyncIterator[Sequence[M]]]:
        """Endless non-empty batches with position > after, live at the end.

        Raises (while iterating): whatever `read` raises, once what came before it has been taken.
        """
        async with aclosing(self._batches(_Reader(after))) as batches:
            yield batches

    async def _batches(self, reader: "_Reader") -> AsyncGenerator[Sequence[M], None]:
        while True:  # endless by contract: each round goes from one window to the next
            heed_cancellation()
            window = self._window_at(reader.position)
            window.readers.append(reader)
            reader.left_behind = False
            try:
                while messages := await window.next_batch(reader):
                    yield messages
            finally:
                await self._leave(window, reader)

    def _window_at(self, position: int) -> "_Window[M]":
        for window in self._windows:
            if window.holds(position) and not window.ended:
                return window
        window = _Window(self, self._read, position)
        self._windows.append(window)
        return window

    async def _leave(self, window: "_Window[M]", reader: "_Reader") -> None:
        window.readers.remove(reader)
        window.made_room.set()
        if not window.readers and window in self._windows:
            self._windows.remove(window)
            await window.stop()

    def ahead_of(self, window: "_Window[M]") -> bool:
        """Whether another window goes on where this one is."""
        return any(w is not window and not w.ended and w.holds(window.last) for w in self._windows)


class _Reader:
    """Where one reader is.

    Attributes:
        position: of the last message it was given; it asks for more when it is done with that.
        left_behind: its window went on without it.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.left_behind = False
        self.wake = asyncio.Event()


class _Window(Generic[M]):
    """A stretch of the stream, and the task that moves it on.

    Attributes:
        last: position up to which it has read.
        ended: it reads no further; what it holds can still be taken.
    """

    def __init__(self, shared: SharedFollow[M], read: Read[M], after: int) -> None:
        self._shared = shared
        self._read = read
        self._messages: list[M] = []
        self._bytes = 0
        self._before = after
        self.last = after
        self.ended = False
        self._fault: BaseException | None = None
        self.readers: list[_Reader] = []
        self.made_room = asyncio.Event()
        self._gathered_at = asyncio.get_running_loop().time() + GATHER_S
        self._task = asyncio.create_task(self._run(), name="follow")

    def holds(self, position: int) -> bool:
        """Whether a reader who knows everything up to this position can go on here."""
        return self._before <= position <= self.last

    async def next_batch(self, reader: _Reader) -> Sequence[M]:
        """What comes after the reader's position; empty when it has to go on elsewhere."""
        self.made_room.set()
        while not reader.left_behind:
            if reader.position < self.last:
                start = bisect_right(self._messages, reader.position, key=_position)
                messages = self._messages[start : start + TAKE_MESSAGES]
                reader.position = messages[-1].position
                return messages
            if self._fault is not None:
                raise self._fault
            if self.ended:
                break
            reader.wake.clear()
            await reader.wake.wait()
        return ()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with self._read(self.last) as batches:
                async for messages in batches:
                    heed_cancellation()
                    self._take_in(messages)
                    if self._shared.ahead_of(self):
                        break
                    await self._make_room()
                    await asyncio.sleep(0)  # a replay never waits for its messages: let the others work as well
        except Exception as error:  # noqa: BLE001 - handed to every reader, each of which deals with it
            self._fault = error
        finally:
            self.ended = True
            self._wake_all()

    def _take_in(self, messages: Sequence[M]) -> None:
        self._messages.extend(messages)
        self._bytes += sum(len(message.payload) for message in messages)
        self.last = messages[-1].position
        self._wake_all()

    async def _make_room(self) -> None:
        """Waits for the slowest reader; without it, when only others are held up for too long."""
        loop = asyncio.get_running_loop()
        while self._is_full():
            if loop.time() < self._gathered_at:
                await asyncio.sleep(self._gathered_at - loop.time())
            places = {reader.position for reader in self.readers if not reader.left_behind} or {self.last}
            self._forget(min(places))
            if not self._is_full():
                return
            self.made_room.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.made_room.wait()
            except TimeoutError:
                if len(places) > 1:
                    self._leave_behind(min(places))

    def _is_full(self) -> bool:
        return len(self._messages) > WINDOW_MESSAGES or self._bytes > WINDOW_BYTES

    def _forget(self, position: int) -> None:
        """Lets go of half of a full window, but of nothing after the position."""
        known = bisect_right(self._messages, position, key=_position)
        gone = self._messages[: min(known, max(1, len(self._messages) // 2))]
        if gone:
            del self._messages[: len(gone)]
            self._bytes -= sum(len(message.payload) for message in gone)
            self._before = gone[-1].position

    def _leave_behind(self, position: int) -> None:
        """Those who are not beyond the position go on by themselves."""
        for reader in self.readers:
            if reader.position <= position:
                reader.left_behind = True
        self._wake_all()

    def _wake_all(self) -> None:
        for reader in self.readers:
            reader.wake.set()


def _position(message: Any) -> int:
    position: int = message.position
    return position
