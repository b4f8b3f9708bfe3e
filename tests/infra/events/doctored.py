"""A log that somebody tampered with: a message taken out, taken out and closed up, or altered where it stands."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed
from domain.message import Recorded
from infra.events.codec import decode_recorded
from infra.events.port import Append
from tests.examples import example
from tests.projections.grammar import Story

Damage = Callable[[list[Recorded], int], list[Recorded]]


def honest_messages(keys: int = 2, renames: int = 4) -> list[Recorded]:
    """Some API keys of acme, each issued and renamed, their events interleaved."""
    story = Story()
    for key in range(keys):
        story.happened("acme", f"k-{key}", example(ApiKeyIssued))
    for number in range(renames):
        for key in range(keys):
            story.happened("acme", f"k-{key}", ApiKeyRenamed(name=f"name {number}"))
    return [Recorded(e.position, e.subject, e.payload, e.envelope) for e in story.entries]


def hole(messages: list[Recorded], position: int) -> list[Recorded]:
    """As after bit rot: the server counts the message as deleted."""
    return [message for message in messages if message.position != position]


def closed_up(messages: list[Recorded], position: int) -> list[Recorded]:
    """As after a restore that left one out."""
    return [replace(message, position=number) for number, message in enumerate(hole(messages, position), start=1)]


def altered(messages: list[Recorded], position: int) -> list[Recorded]:
    """Still an envelope, still an event, but not the one that was written."""
    doctored = list(messages)
    old = doctored[position - 1]
    payload = old.payload.replace(b'"name":"', b'"name":"not ')
    assert payload != old.payload
    doctored[position - 1] = decode_recorded(old.position, old.subject, payload)
    return doctored


DAMAGES: Sequence[Damage] = (hole, closed_up, altered)


class DoctoredLog:
    """An EventLog of exactly these messages, whatever they are.

    Args:
        batch: most messages of one batch, so that a reader takes in some before it meets the damage.

    Attributes:
        messages: may be replaced, as by a person who repairs the log.
    """

    def __init__(self, messages: list[Recorded], *, batch: int = 2) -> None:
        self.messages = messages
        self._batch = batch

    async def append(self, appends: Sequence[Append]) -> int:
        raise AssertionError(f"nobody may build on a damaged log: {appends}")

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]:
        return [message for message in self.messages if message.subject == subject and message.position > after]

    async def last(self, subject: str) -> Recorded | None:
        return next((message for message in reversed(self.messages) if message.subject == subject), None)

    async def head(self) -> int:
        return self.messages[-1].position

    @asynccontextmanager
    async def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        yield self._batches(after, min(batch, self._batch))

    async def _batches(self, after: int, batch: int) -> AsyncIterator[Sequence[Recorded]]:
        found = [message for message in self.messages if message.position > after]
        for start in range(0, len(found), batch):
            yield found[start : start + batch]
        await asyncio.Event().wait()
