"""The event log on NATS JetStream.

    append: publish (one message) or atomic batch (several) ──> ack ──────────────────────────> position
                                        │ conflict, or no answer: unknown
                                        └──> ask the leader what follows `expected` on each subject
                                               our message ──> position      another's ──> Conflict
                                               nothing     ──> publish again, within the retry budget

The surprising rule: neither an error nor a timeout is believed. A timeout may have stored the messages, and a conflict
may be a conflict with ourselves, so the leader is asked for our own message ids before anything is concluded.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client

from domain.message import Recorded
from infra.events.codec import decode_recorded
from infra.events.connection import refusal_since
from infra.events.port import FOLLOWS, Append, AppendRefusedError, Conflict, LogUnavailableError, check_appends
from infra.events.pull import StreamMessage, follow_messages
from infra.events.reads import ApiError, ApiFault, PageReader, Stored, last_position, leader_last, leader_next
from infra.events.streams import EVENTS

T = TypeVar("T")

REPLY_TIMEOUT_S = 2.0
RETRY_BUDGET_S = 20.0
"""A cluster needs 5.2 to 6.6 s to elect a new leader; three times that, for one election that fails."""
FIRST_RETRY_DELAY_S = 0.01
LONGEST_RETRY_DELAY_S = 0.5

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST_SEQUENCE = 10071
_ANOTHER_WRITE_IN_FLIGHT = 10164
_BATCH_INCOMPLETE = 10176
_DUPLICATE_IN_BATCH = 10201
_TOO_MANY_OPEN_BATCHES = 10210
_LOOK_AGAIN = frozenset(
    {_WRONG_LAST_SEQUENCE, _ANOTHER_WRITE_IN_FLIGHT, _BATCH_INCOMPLETE, _DUPLICATE_IN_BATCH, _TOO_MANY_OPEN_BATCHES}
)


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: ApiFault | None = None


_acks = msgspec.json.Decoder(_Ack)


class _NotStoredYet(Exception):  # noqa: N818 - an observation
    """Nothing of an append is in the stream: it failed, or it is still on its way."""


class JetStreamLog:
    """An EventLog (see port.py) on one stream.

    Args:
        nc: from connect_writer; `follow` may have a log of its own on a connection from connect_reader.
        stream: its name.
        reply_timeout_s: after which one request's outcome is unknown.
        retry_budget_s: after which an operation gives up with LogUnavailableError.
    """

    def __init__(
        self,
        nc: Client,
        stream: str = EVENTS,
        *,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        retry_budget_s: float = RETRY_BUDGET_S,
    ) -> None:
        self._nc = nc
        self._stream = stream
        self._reply_timeout_s = reply_timeout_s
        self._retry_budget_s = retry_budget_s
        self._pages = PageReader(nc, stream)

    async def append(self, appends: Sequence[Append]) -> int:
        """See the port."""
        check_appends(appends)
        subjects = ", ".join(append.subject for append in appends)
        return await self._persist(f"append to {subjects}", lambda: self._try_append(appends))

    async def append_once(self, appends: Sequence[Append]) -> int:
        """One try, for a caller who falls back on `append`: after any error it is unknown what is stored.

        Returns:
            Position of the last message; they are stored contiguously, in the order given.

        Raises:
            ApiError: the server refused, or takes a message for a duplicate.
            nats.errors.Error, OSError: no answer.
        """
        ack = await self._publish(appends)
        if ack.error is not None:
            raise ApiError(ack.error.code, ack.error.err_code, ack.error.description)
        if ack.duplicate:
            raise ApiError(400, _DUPLICATE_IN_BATCH, "duplicate")
        return ack.seq

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]:
        """See the port. Not stale either: what a lagging replica left out is read through the leader."""
        return [_recorded(message) for message in await self.read_stored(subject, after=after)]

    async def read_stored(self, subject: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """As `read`, at most `limit`, for streams whose messages are no envelopes; subject ">" is the whole stream."""
        return await self._persist(f"read {subject}", lambda: self._try_read(subject, after, limit))

    async def last(self, subject: str) -> Recorded | None:
        """See the port."""
        found = await self.last_stored(subject)
        return _recorded(found) if found else None

    async def last_stored(self, subject: str) -> Stored | None:
        """As `last`, for streams whose messages are no envelopes; wildcards allowed."""
        return await self._persist(
            f"last of {subject}",
            lambda: leader_last(self._nc, self._stream, subject, timeout_s=self._reply_timeout_s),
        )

    async def head(self) -> int:
        """See the port."""
        return await self._persist(
            f"head of {self._stream}",
            lambda: last_position(self._nc, self._stream, timeout_s=self._reply_timeout_s),
        )

    @asynccontextmanager
    async def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        """See the port."""
        async with (
            follow_messages(
                self._nc, self._stream, after=after, subjects=subjects, batch=batch, contiguous=not subjects
            ) as batches,
            aclosing(_decoded(batches)) as decoded,
        ):
            yield decoded

    async def _try_append(self, appends: Sequence[Append]) -> int:
        try:
            ack = await self._publish(appends)
        except (nats.errors.MaxPayloadError, nats.errors.BadSubjectError) as error:
            raise AppendRefusedError(f"append to {appends[0].subject} is refused: {error}") from error
        except nats.errors.ConnectionClosedError:
            raise
        except (nats.errors.Error, OSError):
            return await self._find_own(appends)
        if ack.error is None and not ack.duplicate:
            return ack.seq
        if ack.error is None or ack.error.err_code in _LOOK_AGAIN or ack.error.code == 503:
            return await self._find_own(appends)
        raise AppendRefusedError(
            f"append to {appends[0].subject} is refused: {ack.error.description} (err_code {ack.error.err_code})"
        )

    async def _publish(self, appends: Sequence[Append]) -> _Ack:
        messages = [
            (append.subject, _headers(append, number), payload)
            for append in appends
            for number, (_, payload) in enumerate(append.messages)
        ]
        if len(messages) > 1:
            batch_id = secrets.token_hex(8)  # a new one each time: a batch that was begun cannot be begun again
            for number, (subject, headers, payload) in enumerate(messages, start=1):
                headers["Nats-Batch-Id"] = batch_id
                headers["Nats-Batch-Sequence"] = str(number)
                if number < len(messages):
                    await self._nc.publish(subject, payload, headers=headers)
            messages[-1][1]["Nats-Batch-Commit"] = "1"
        subject, headers, payload = messages[-1]
        reply = await self._nc.request(subject, payload, headers=headers, timeout=self._reply_timeout_s)
        return _acks.decode(reply.data)

    async def _find_own(self, appends: Sequence[Append]) -> int:
        """Looks through the leader for our first message of each subject.

        An append is all or nothing and its check says what it follows, so wherever the first message after `expected`
        is ours, all are stored. Later messages of other writers may follow it.

        Returns:
            Position of our last message.

        Raises:
            Conflict: another message follows, or the subject never came as far as expected.
            _NotStoredYet: every subject is as expected; the messages may still be on their way.
        """
        taken = []
        for append in appends:
            if append.expected == FOLLOWS:
                continue  # stored if its beginning is
            first = await leader_next(
                self._nc, self._stream, append.subject, append.expected + 1, timeout_s=self._reply_timeout_s
            )
            if first is None:
                last = await leader_last(self._nc, self._stream, append.subject, timeout_s=self._reply_timeout_s)
                if (last.position if last else 0) != append.expected:
                    taken.append(append.subject)
            elif first.message_id() == append.messages[0][0]:
                before = sum(len(earlier.messages) for earlier in appends[: appends.index(append)])
                return first.position - before + sum(len(each.messages) for each in appends) - 1
            else:
                taken.append(append.subject)
        if taken:
            raise Conflict(taken)
        raise _NotStoredYet

    async def _try_read(self, subject: str, after: int, limit: int | None) -> list[Stored]:
        wanted = sys.maxsize if limit is None else limit
        (page, more), newest = await asyncio.gather(
            self._pages.page(subject, after + 1, timeout_s=self._reply_timeout_s, messages=wanted),
            leader_last(self._nc, self._stream, subject, timeout_s=self._reply_timeout_s),
        )
        found = page
        while more and len(found) < wanted:  # bounded: each page moves on by at least one message
            page, more = await self._pages.page(
                subject, found[-1].position + 1, timeout_s=self._reply_timeout_s, messages=wanted - len(found)
            )
            found += page
        end = newest.position if newest else 0
        while len(found) < wanted and (reached := found[-1].position if found else after) < end:
            missed = await leader_next(self._nc, self._stream, subject, reached + 1, timeout_s=self._reply_timeout_s)
            if missed is None:
                break
            found.append(missed)
        return found

    async def _persist(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tries until there is an answer, or the budget is spent.

        Raises:
            LogUnavailableError: the budget is spent, the connection is closed, or the server cannot ever do it.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self._retry_budget_s
        delay_s = FIRST_RETRY_DELAY_S
        while True:  # bounded by the deadline
            try:
                return await attempt()
            except (_NotStoredYet, nats.errors.Error, OSError, ApiError) as error:
                if refusal := refusal_since(self._nc, began):
                    raise LogUnavailableError(f"{operation}: {refusal}") from error
                hopeless = isinstance(error, nats.errors.ConnectionClosedError) or (
                    isinstance(error, ApiError) and error.status != 503
                )
                if hopeless or loop.time() + delay_s > deadline:
                    raise LogUnavailableError(f"{operation}: {error!r}") from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_DELAY_S)


def _headers(append: Append, number: int) -> dict[str, str]:
    headers = {"Nats-Msg-Id": append.messages[number][0]}
    if number == 0 and append.expected != FOLLOWS:  # on a later message of a subject it is taken for a conflict
        headers[_EXPECTED] = str(append.expected)
    return headers


def _recorded(message: Stored) -> Recorded:
    return decode_recorded(message.position, message.subject, message.payload)


async def _decoded(batches: AsyncIterator[list[StreamMessage]]) -> AsyncGenerator[Sequence[Recorded], None]:
    async for messages in batches:
        yield [decode_recorded(message.position, message.subject, message.payload) for message in messages]
