"""Fills a for-ever stream again, message for message at its old position, from wherever its messages were kept.

    source ──positions that the stream has──> must be the same, byte for byte      the rest ──atomic batches──> stream

Each batch says after which position it must come, so nobody can slip in between, and a lost answer is resolved by
looking at the stream's end. The surprising rule: what is there already is never trusted, always compared; so a refill
that was interrupted simply goes on.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import msgspec
import nats.errors
from nats.aio.client import Client

from infra.events.port import BATCH_MESSAGES_MAX
from infra.events.reads import ApiError, ApiFault, last_position
from infra.replay.stored import API_TIMEOUT_S, MESSAGE_ID, Message, stored_messages, stream_info

BATCH_BYTES = 8_000_000
"""Of payloads in one batch; the server holds it until the commit."""
RETRY_BUDGET_S = 30.0
"""For one batch; a cluster needs 5.2 to 6.6 s to elect a new leader."""
RETRY_DELAY_S = 0.5


class DifferentLogError(RuntimeError):
    """What the stream holds is not what the source holds; nothing was written."""

    def __init__(self, stream: str, position: int, found: str) -> None:
        super().__init__(f"{stream} at position {position:,}: {found}")
        self.position = position


class RefillError(RuntimeError):
    """The stream refused a batch, or somebody else writes to it; up to the position named, all is in place."""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: ApiFault | None = None


_acks = msgspec.json.Decoder(_Ack)


async def refill(
    nc: Client, stream: str, source: AsyncIterable[Sequence[Message]], *, advance: Callable[[int], None]
) -> tuple[int, int]:
    """Compares what the stream has with the source, and appends what it lacks.

    Args:
        nc: a writer's connection (connect_writer); no service may write meanwhile.
        stream: it exists.
        source: batches of all messages from position 1 on, without a gap.
        advance: told how many messages are done.

    Returns:
        (messages that were there, messages that were added).

    Raises:
        DifferentLogError: see the class.
        RefillError: see the class.
    """
    info = await stream_info(nc, stream)
    if info is None:
        raise RefillError(f"there is no stream {stream}; `inventiv migrate` creates it")
    _, state = info
    if state.messages != state.last_seq:
        found = f"it has {state.messages:,} messages up to {state.last_seq:,}; a stream with holes cannot be filled"
        raise DifferentLogError(stream, state.first_seq, found)
    same = added = 0
    async with stored_messages(nc, stream, until=state.last_seq) as stored, aclosing(_one_by_one(stored)) as there:
        async for messages in source:
            old = [message for message in messages if message.position <= state.last_seq]
            new = messages[len(old) :]
            for message in old:
                _require_same(stream, await anext(there, None), message)
            for batch in _batches(new):
                await _append(nc, stream, batch)
            same, added = same + len(old), added + len(new)
            advance(len(messages))
    return same, added


async def _one_by_one(batches: AsyncIterator[list[Message]]) -> AsyncGenerator[Message, None]:
    async for messages in batches:
        for message in messages:
            yield message


def _require_same(stream: str, there: Message | None, wanted: Message) -> None:
    if there is None:
        raise DifferentLogError(stream, wanted.position, "it cannot be read")
    for field in Message.__struct_fields__:
        if getattr(there, field) != getattr(wanted, field):
            raise DifferentLogError(stream, wanted.position, f"another {field.replace('_', ' ')} is stored there")


def _batches(messages: Sequence[Message]) -> list[list[Message]]:
    """Cut where an atomic batch would be too large."""
    batches: list[list[Message]] = []
    size = 0
    for message in messages:
        size += len(message.payload)
        if not batches or len(batches[-1]) >= BATCH_MESSAGES_MAX or size > BATCH_BYTES:
            batches.append([])
            size = len(message.payload)
        batches[-1].append(message)
    return batches


async def _append(nc: Client, stream: str, batch: Sequence[Message]) -> None:
    """Stores the batch at its positions; a lost answer is no answer, so the stream's end decides.

    Raises:
        RefillError: see the class.
    """
    before, after = batch[0].position - 1, batch[-1].position
    reason = ""
    deadline = asyncio.get_running_loop().time() + RETRY_BUDGET_S
    while asyncio.get_running_loop().time() < deadline:
        if reason:
            await asyncio.sleep(RETRY_DELAY_S)
        try:
            ack = await _publish(nc, batch)
            if ack.error is None and ack.seq == after:
                return
            reason = ack.error.description if ack.error else f"stored at {ack.seq:,}"
            head = await last_position(nc, stream, timeout_s=API_TIMEOUT_S)
        except (nats.errors.Error, ApiError, OSError) as error:
            reason = repr(error)
            continue
        if head == after:
            return
        if head != before:
            raise RefillError(f"{stream} ends at {head:,} instead of {before:,}: somebody else writes to it ({reason})")
    raise RefillError(f"{stream} does not take positions {before + 1:,} to {after:,}: {reason}")


async def _publish(nc: Client, batch: Sequence[Message]) -> _Ack:
    batch_id = secrets.token_hex(16)
    for number, message in enumerate(batch[:-1], start=1):
        headers = _headers(batch, number) | {"Nats-Batch-Id": batch_id}
        await nc.publish(message.subject, message.payload, headers=headers)
    headers = _headers(batch, len(batch))
    if len(batch) > 1:
        headers |= {"Nats-Batch-Id": batch_id, "Nats-Batch-Commit": "1"}
    reply = await nc.request(batch[-1].subject, batch[-1].payload, headers=headers, timeout=API_TIMEOUT_S)
    return _acks.decode(reply.data)


def _headers(batch: Sequence[Message], number: int) -> dict[str, str]:
    message = batch[number - 1]
    headers = {MESSAGE_ID: message.message_id} if message.message_id else {}
    if number == 1:
        headers["Nats-Expected-Last-Sequence"] = str(message.position - 1)
    return headers | ({"Nats-Batch-Sequence": str(number)} if len(batch) > 1 else {})
