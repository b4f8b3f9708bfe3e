"""One reading of a stream for many readers: nobody misses a message, and nobody's slowness stops the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

import infra.following
from infra.embedded.child import wait_until
from infra.following import SharedFollow

PATIENCE_S = 60.0


class Message(msgspec.Struct, frozen=True):
    position: int
    payload: bytes = b"."


class Stream:
    """Messages 1 to `end`, in batches; more can come; it can break."""

    def __init__(self, end: int, *, batch: int = 10) -> None:
        self.end = end
        self.readings: list[int] = []
        self.delivered = 0
        self._batch = batch
        self._changed = asyncio.Condition()
        self._fault: Exception | None = None

    async def grow(self, messages: int) -> None:
        async with self._changed:
            self.end += messages
            self._changed.notify_all()

    async def fail(self, fault: Exception) -> None:
        async with self._changed:
            self._fault = fault
            self._changed.notify_all()

    @asynccontextmanager
    async def read(self, after: int) -> AsyncIterator[AsyncIterator[Sequence[Message]]]:
        self.readings.append(after)
        yield self._batches(after)

    async def _batches(self, position: int) -> AsyncIterator[Sequence[Message]]:
        while True:
            async with self._changed:
                while not self._fault and position >= self.end:
                    await self._changed.wait()
            if self._fault:
                raise self._fault
            last = min(position + self._batch, self.end)
            self.delivered += last - position
            yield [Message(n) for n in range(position + 1, last + 1)]
            position = last


class Reader:
    """Notes what it was given; stands still while it is told to."""

    def __init__(self, shared: SharedFollow[Message], stack: AsyncExitStack) -> None:
        self._shared = shared
        self._stack = stack
        self.seen: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def start(self, after: int = 0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(after))

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        return task

    async def reached(self, position: int) -> None:
        async def is_there() -> bool:
            return bool(self.seen) and self.seen[-1] >= position

        await wait_until(is_there, f"position {position}", PATIENCE_S)

    async def _run(self, after: int) -> None:
        async with self._shared.follow(after=after) as batches:
            async for messages in batches:
                self.seen += [message.position for message in messages]
                await self.go_on.wait()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 100 messages that waits 50 ms."""
    monkeypatch.setattr(infra.following, "WINDOW_MESSAGES", 100)
    monkeypatch.setattr(infra.following, "TAKE_MESSAGES", 20)
    monkeypatch.setattr(infra.following, "GATHER_S", 0.05)
    monkeypatch.setattr(infra.following, "PATIENCE_S", 0.05)


async def test_each_reader_gets_every_message_of_one_reading() -> None:
    stream = Stream(50)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        readers = [Reader(shared, stack) for _ in range(5)]
        for reader in readers:
            await reader.start()
        for reader in readers:
            await reader.reached(50)
        await stream.grow(1)
        for reader in readers:
            await reader.reached(51)
        assert all(reader.seen == list(range(1, 52)) for reader in readers)
    assert (stream.readings, stream.delivered, shared.readings) == ([0], 51, 0)


@pytest.mark.usefixtures("small")
async def test_one_that_is_far_behind_reads_by_itself_until_it_has_caught_up() -> None:
    stream = Stream(1_000)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        near, far = Reader(shared, stack), Reader(shared, stack)
        await near.start(after=990)
        await near.reached(1_000)
        await far.start(after=0)
        await far.reached(1_000)
        await stream.grow(10)
        await near.reached(1_010)
        await far.reached(1_010)
        assert far.seen == list(range(1, 1_011))
        assert near.seen == list(range(991, 1_011))
        assert (stream.readings, shared.readings) == ([990, 0], 1)


@pytest.mark.usefixtures("small")
async def test_a_reader_that_stands_still_does_not_stop_the_others() -> None:
    stream = Stream(1_000)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        still, others = Reader(shared, stack), [Reader(shared, stack) for _ in range(3)]
        still.go_on.clear()
        for reader in [still, *others]:
            await reader.start()
        for reader in others:
            await reader.reached(1_000)
        assert len(still.seen) <= 20
        still.go_on.set()
        await still.reached(1_000)
        await stream.grow(1)
        for reader in [still, *others]:
            await reader.reached(1_001)
            assert reader.seen == list(range(1, 1_002))
        assert shared.readings == 1


@pytest.mark.usefixtures("small")
async def test_what_nobody_has_taken_yet_is_bounded() -> None:
    """A lone reader that stands still is waited for, however long: there is nobody to go on for."""
    stream = Stream(1_000)
    async with AsyncExitStack() as stack:
        still = Reader(SharedFollow(stream.read), stack)
        still.go_on.clear()
        await still.start()
        await still.reached(1)
        await asyncio.sleep(0.2)  # four times the window's patience
        assert stream.delivered <= 120
        still.go_on.set()
        await still.reached(1_000)
        assert still.seen == list(range(1, 1_001))
    assert stream.readings == [0]


@pytest.mark.usefixtures("small")
async def test_large_messages_fill_the_window_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.following, "WINDOW_BYTES", 25)
    stream = Stream(1_000)
    async with AsyncExitStack() as stack:
        still = Reader(SharedFollow(stream.read), stack)
        still.go_on.clear()
        await still.start()
        await still.reached(1)
        await asyncio.sleep(0.1)
        assert stream.delivered <= 50


async def test_a_fault_of_the_stream_reaches_every_reader_after_what_came_before_it() -> None:
    stream = Stream(30)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        readers = [Reader(shared, stack) for _ in range(3)]
        tasks = [await reader.start() for reader in readers]
        for reader in readers:
            await reader.reached(30)
        await stream.fail(RuntimeError("a hole"))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(end) for end in ends] == ["a hole"] * 3
    assert shared.readings == 0


async def test_one_that_fails_leaves_the_others_alone() -> None:
    stream = Stream(30)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        reader = Reader(shared, stack)
        await reader.start()
        with pytest.raises(ZeroDivisionError):
            await _fail(shared)
        await stream.grow(5)
        await reader.reached(35)
        assert reader.seen == list(range(1, 36))


async def _fail(shared: SharedFollow[Message]) -> None:
    async with shared.follow(after=0) as batches:
        async for _ in batches:
            raise ZeroDivisionError


async def test_a_reader_ahead_of_the_others_asks_the_stream_itself() -> None:
    """A shared window would keep it waiting for ever where the stream is shorter than it believes."""
    stream = Stream(30)
    shared = SharedFollow(stream.read)
    async with AsyncExitStack() as stack:
        near, ahead = Reader(shared, stack), Reader(shared, stack)
        await near.start()
        await near.reached(30)
        await ahead.start(after=35)
        await stream.grow(10)
        await ahead.reached(40)
        await near.reached(40)
        assert ahead.seen == list(range(36, 41))
        assert near.seen == list(range(1, 41))
    assert stream.readings == [0, 35]
