"""The event log in memory: for tests and simulations that need no durability. Same promises, same suite."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from domain.message import Recorded
from infra.events.codec import decode_recorded
from infra.events.port import FOLLOWS, Append, AppendRefusedError, Conflict, GapError, check_appends
from infra.events.streams import MAX_MESSAGE_BYTES


class MemoryLog:
    """An EventLog (see port.py). Lives as long as the object, in one event loop."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str, bytes]] = []  # (subject, id, payload); position = index + 1
        self._positions: dict[str, list[int]] = {}
        self._grown = asyncio.Condition()

    async def append(self, appends: Sequence[Append]) -> int:
        check_appends(appends)
        if any(len(payload) > MAX_MESSAGE_BYTES for append in appends for _, payload in append.messages):
            raise AppendRefusedError(f"append to {appends[0].subject} is refused: message size exceeds maximum allowed")
        taken = [
            append.subject
            for append in appends
            if append.expected not in (FOLLOWS, self._last_position(append.subject))
        ]
        if taken:
            return self._own_position(appends, taken)
        async with self._grown:
            for append in appends:
                for event_id, payload in append.messages:
                    self._messages.append((append.subject, event_id, payload))
                    self._positions.setdefault(append.subject, []).append(len(self._messages))
            self._grown.notify_all()
        return len(self._messages)

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]:
        return [self._recorded(position) for position in self._positions.get(subject, ()) if position > after]

    async def last(self, subject: str) -> Recorded | None:
        position = self._last_position(subject)
        return self._recorded(position) if position else None

    async def head(self) -> int:
        return len(self._messages)

    @asynccontextmanager
    async def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        yield self._batches(after, [subject.split(".") for subject in subjects], batch)

    async def _batches(self, position: int, filters: list[list[str]], batch: int) -> AsyncIterator[Sequence[Recorded]]:
        if len(self._messages) < position:
            raise GapError(f"the log ends at {len(self._messages)}, but position {position} has been seen")
        while True:
            async with self._grown:
                while len(self._messages) <= position:
                    await self._grown.wait()
            found: list[Recorded] = []
            while position < len(self._messages) and len(found) < batch:
                position += 1
                if _passes(self._messages[position - 1][0], filters):
                    found.append(self._recorded(position))
            if found:
                yield found

    def _last_position(self, subject: str) -> int:
        positions = self._positions.get(subject)
        return positions[-1] if positions else 0

    def _own_position(self, appends: Sequence[Append], taken: Sequence[str]) -> int:
        """The position of these very messages when they are stored already.

        Raises:
            Conflict: they are not; other messages came first.
        """
        first = appends[0]
        following = [position for position in self._positions.get(first.subject, ()) if position > first.expected]
        if following and self._messages[following[0] - 1][1] == first.messages[0][0]:
            return following[0] + sum(len(append.messages) for append in appends) - 1
        raise Conflict(taken)

    def _recorded(self, position: int) -> Recorded:
        subject, _, payload = self._messages[position - 1]
        return decode_recorded(position, subject, payload)


def _passes(subject: str, filters: list[list[str]]) -> bool:
    tokens = subject.split(".")
    return not filters or any(_matches(tokens, pattern) for pattern in filters)


def _matches(tokens: list[str], pattern: list[str]) -> bool:
    """NATS's wildcards: `*` is one token, a final `>` is one or more."""
    if pattern[-1] == ">":
        head = pattern[:-1]
        return len(tokens) > len(head) and _matches(tokens[: len(head)], head) if head else True
    return len(tokens) == len(pattern) and all(
        want in ("*", token) for want, token in zip(pattern, tokens, strict=True)
    )
