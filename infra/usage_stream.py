"""Usage records into the stream USAGE: a batch at a time, each under its request id, so that twice is stored once.

    postings ──many──> atomic batches of up to 1,000, one acknowledgement each ──refused──> each by itself
             └─few──────────────────────────────────────────────────────────────────────────────┘

A gateway answers more requests a second than it could publish one by one: a record by itself costs this process 40 us
and the server 100 us, in a batch 1.5 us and 14 us. The surprising rule: a batch that holds one known id is refused as a
whole. That happens after a reply was lost or a gateway died, and then each goes by itself, which the ids make harmless.
"""

import asyncio
import secrets
from collections.abc import Sequence

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from gateway.meter import Posting
from infra.events.port import BATCH_MESSAGES_MAX
from infra.events.reads import ApiFault
from infra.events.streams import USAGE

ACK_TIMEOUT_S = 5.0
BATCH_FROM_RECORDS = 12
"""Fewer are sooner stored one by one: a batch waits for a sync of its own."""
ALONE_AT_ONCE = 100
"""Records under way one by one."""
MESSAGE_ID = "Nats-Msg-Id"

_log = structlog.get_logger(__name__)


class UsageUnavailableError(OSError):
    """Not every record of the batch is known to be stored; publish the batch again."""


class _Ack(msgspec.Struct):
    """Of a batch; `count` messages were stored."""

    count: int = 0
    error: ApiFault | None = None


_acks = msgspec.json.Decoder(_Ack)


class UsageStream:
    """Implements gateway.meter.Publish. `connect` it once NATS answers; until then nothing can be published."""

    def __init__(self) -> None:
        self._nc: Client | None = None

    def connect(self, nc: Client) -> None:
        """A writer's connection: what it could not send at once, it never sends later."""
        self._nc = nc

    async def publish(self, postings: Sequence[Posting]) -> None:
        """Stores all of them.

        Raises:
            UsageUnavailableError: at least one was not acknowledged.
        """
        nc = self._nc
        if nc is None or not nc.is_connected:
            raise UsageUnavailableError("no NATS server answers")
        starts = range(0, len(postings), BATCH_MESSAGES_MAX)
        parts = [postings[start : start + BATCH_MESSAGES_MAX] for start in starts]
        outcomes = await asyncio.gather(*(_store(nc, part) for part in parts), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


async def _store(nc: Client, postings: Sequence[Posting]) -> None:
    if len(postings) < BATCH_FROM_RECORDS or not await _store_together(nc, postings):
        for start in range(0, len(postings), ALONE_AT_ONCE):
            await _store_each(nc, postings[start : start + ALONE_AT_ONCE])


async def _store_together(nc: Client, postings: Sequence[Posting]) -> bool:
    """As one atomic batch; False when the server refused it.

    Raises:
        UsageUnavailableError: no answer. The batch may be stored all the same; then the next one is refused.
    """
    batch_id = secrets.token_hex(8)
    *before, last = postings
    lines = [_publication(posting, batch_id.encode(), number) for number, posting in enumerate(before, start=1)]
    headers = {
        MESSAGE_ID: last.message_id,
        "Nats-Batch-Id": batch_id,
        "Nats-Batch-Sequence": str(len(postings)),
        "Nats-Batch-Commit": "1",
    }
    try:
        await nc._send_command(b"".join(lines))  # noqa: SLF001 - publish() costs four times as much, a header at a time
        reply = await nc.request(last.subject, last.payload, headers=headers, timeout=ACK_TIMEOUT_S)
        ack = _acks.decode(reply.data)
    except (nats.errors.Error, OSError, msgspec.MsgspecError) as error:
        raise UsageUnavailableError(f"a batch of {len(postings)} usage records: {error!r}") from error
    if ack.error is None and ack.count == len(postings):
        return True
    _log.info("usage_batch_refused", records=len(postings), reason=ack.error.description if ack.error else "incomplete")
    return False


def _publication(posting: Posting, batch_id: bytes, number: int) -> bytes:
    """One message of a batch as NATS's protocol spells it; nobody acknowledges it by itself."""
    headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n\r\n" % (
        posting.message_id.encode(),
        batch_id,
        number,
    )
    sizes = len(headers), len(headers) + len(posting.payload)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (posting.subject.encode(), *sizes, headers, posting.payload)


async def _store_each(nc: Client, postings: Sequence[Posting]) -> None:
    stream = nc.jetstream(timeout=ACK_TIMEOUT_S)
    answers = await asyncio.gather(
        *(stream.publish(p.subject, p.payload, stream=USAGE, headers={MESSAGE_ID: p.message_id}) for p in postings),
        return_exceptions=True,
    )
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if failures:
        raise UsageUnavailableError(f"{len(failures)} of {len(postings)} usage records: {failures[0]!r}")
