"""Holds the log to its word wherever it is followed: no position is left out, each envelope follows the one before it.

    batch ──> position = last + 1? ──> version = its aggregate's + 1, previous = hash of those bytes? ──> reader
                       └──────────────────── no: LogDamagedError, stop and tell a person

A reader keeps the head of each aggregate that it saw, within a bound. The surprising rule: an aggregate first seen in
its middle is taken at its word, since its beginning lies before the reader's own start, or was forgotten; from there on
its chain must hold. The audit log, whose heads are rows of a table, is the one reader that never forgets.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from domain.message import Recorded, payload_hash
from infra.events.port import EventLog
from projections.entry import LogDamagedError

HEADS_REMEMBERED = 10_000
"""Aggregates whose chain one reader follows; some 400 bytes each. Those that change most are remembered longest."""
READERS_REMEMBERED = 32
"""More than the read models of one process."""


class Chain:
    """What one reader has seen of the log.

    Args:
        after: position already known; nothing is known of what stands before it.
        remembered: bound of the memory, in aggregates.

    Attributes:
        position: up to where all was sound.
    """

    def __init__(self, *, after: int = 0, remembered: int = HEADS_REMEMBERED) -> None:
        self.position = after
        self._all_known = after == 0
        self._remembered = remembered
        self._heads: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def check(self, messages: Sequence[Recorded]) -> None:
        """The next messages of the unfiltered stream; all of them become known, or none.

        Raises:
            LogDamagedError: at the first one that does not go on from what was seen.
        """
        position, news = self.position, dict[str, tuple[int, str]]()
        for message in messages:
            position += 1
            if message.position != position:
                raise LogDamagedError(position, f"no such message; the next one is {message.position}")
            news[message.subject] = self._next_head(news, message)
        self.position = position
        for subject, head in news.items():
            self._heads[subject] = head
            self._heads.move_to_end(subject)
        while len(self._heads) > self._remembered:
            self._heads.popitem(last=False)
            self._all_known = False

    def _next_head(self, news: dict[str, tuple[int, str]], message: Recorded) -> tuple[int, str]:
        subject, envelope = message.subject, message.envelope
        head = news.get(subject) or self._heads.get(subject) or ((0, "") if self._all_known else None)
        if head is not None and envelope.version != head[0] + 1:
            raise LogDamagedError(message.position, f"{subject} goes from version {head[0]} to {envelope.version}")
        if head is not None and envelope.previous != head[1]:
            raise LogDamagedError(message.position, f"{subject} version {head[0]} is not as it was written")
        return envelope.version, payload_hash(message.payload)


class CheckedReader:
    """Follows a log and checks what it says.

    A follower that stopped, and one that starts from the same position, share what was seen before it: so a reader that
    tries again does not pass over the damage that it stopped at.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._left: OrderedDict[int, Chain] = OrderedDict()

    @asynccontextmanager
    async def follow(self, *, after: int, batch: int = 500) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        """EventLog.follow of all subjects; raises LogDamagedError as well."""
        chain = self._left.pop(after, None) or Chain(after=after)
        try:
            async with self._log.follow(after=after, batch=batch) as batches, aclosing(_sound(chain, batches)) as sound:
                yield sound
        finally:
            self._left[chain.position] = chain
            if len(self._left) > READERS_REMEMBERED:
                self._left.popitem(last=False)


async def _sound(chain: Chain, batches: AsyncIterator[Sequence[Recorded]]) -> AsyncGenerator[Sequence[Recorded], None]:
    async for batch in batches:
        chain.check(batch)
        yield batch
