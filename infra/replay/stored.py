"""A stream as it lies: every stored message once, up to where the stream ends now, holes and all.

`follow_messages` brings them; what is added here is an end, the message id, and no opinion about gaps: those are for
the caller to judge.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from nats.aio.client import Client

from infra.events.pull import StreamMessage, follow_messages
from infra.events.reads import ApiError, Stored
from infra.events.streams import STREAM_NOT_FOUND

API_TIMEOUT_S = 10.0
READ_MESSAGES = 1000
SILENCE_S = 30.0
"""The server is gone, or the rest of the stream is: its state said that there are more messages."""
MESSAGE_ID = "Nats-Msg-Id"


class Message(msgspec.Struct, frozen=True):
    """A stored message; `message_id` is "" when it was stored without one."""

    position: int
    subject: str
    message_id: str
    payload: bytes


class StreamState(msgspec.Struct, frozen=True):
    """What the server says of a stream; positions are its sequences."""

    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0
    num_deleted: int = 0
    num_subjects: int = 0


async def stream_info(nc: Client, stream: str) -> tuple[dict[str, Any], StreamState] | None:
    """(configuration, state) of a stream, from its leader; None when there is no such stream.

    Raises:
        ApiError: the server refused.
        nats.errors.Error: no answer.
    """
    reply = await nc.request(f"$JS.API.STREAM.INFO.{stream}", timeout=API_TIMEOUT_S)
    info = msgspec.json.decode(reply.data, type=dict[str, Any])
    if error := info.get("error"):
        if error.get("err_code") == STREAM_NOT_FOUND:
            return None
        raise ApiError(error.get("code", 500), error.get("err_code", 0), error.get("description", ""))
    return info["config"], msgspec.convert(info["state"], StreamState)


async def end_of(nc: Client, stream: str) -> int:
    """Position of the stream's newest message; 0 when it is empty or missing. Raises like stream_info."""
    info = await stream_info(nc, stream)
    return info[1].last_seq if info is not None else 0


@contextlib.asynccontextmanager
async def stored_messages(
    nc: Client, stream: str, *, after: int = 0, until: int
) -> AsyncGenerator[AsyncGenerator[list[Message], None], None]:
    """Lends batches of the messages in (after, until], in order.

    Args:
        nc: any connection.
        stream: its name.
        after: where to begin.
        until: a position at or before the stream's end; ends earlier when nothing is left.

    Raises (while iterating):
        TimeoutError: nothing came for SILENCE_S.
    """
    async with aclosing(_batches(nc, stream, after, until)) as batches:
        yield batches


async def _batches(nc: Client, stream: str, after: int, until: int) -> AsyncGenerator[list[Message], None]:
    if not await _has_messages(nc, stream, after, until):
        return
    async with follow_messages(nc, stream, after=after, batch=READ_MESSAGES) as batches:
        while True:  # each batch moves on; the last one says that nothing is left
            async with asyncio.timeout(SILENCE_S):
                messages = await anext(batches)
            yield [_message(message) for message in messages if message.position <= until]
            if messages[-1].position >= until or messages[-1].pending == 0:
                return


async def _has_messages(nc: Client, stream: str, after: int, until: int) -> bool:
    """A follower of an empty range would wait for ever."""
    info = await stream_info(nc, stream)
    if info is None or after >= until:
        return False
    _, state = info
    return state.messages > 0 and after < state.last_seq


def _message(message: StreamMessage) -> Message:
    stored = Stored(message.position, message.subject, message.payload, message.raw_headers)
    return Message(message.position, message.subject, stored.message_id(), message.payload)
