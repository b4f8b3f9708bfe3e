"""Usage records into the stream USAGE: a batch at a time, each under its request id, so that twice is stored once."""

import asyncio
from collections.abc import Sequence

from nats.aio.client import Client

from gateway.meter import Posting
from infra.events.streams import USAGE

ACK_TIMEOUT_S = 5.0
MESSAGE_ID = "Nats-Msg-Id"


class UsageUnavailableError(OSError):
    """Not every record of the batch is known to be stored; publish the batch again."""


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
        if self._nc is None:
            raise UsageUnavailableError("no NATS server has answered yet")
        stream = self._nc.jetstream(timeout=ACK_TIMEOUT_S)
        answers = await asyncio.gather(
            *(stream.publish(p.subject, p.payload, stream=USAGE, headers={MESSAGE_ID: p.message_id}) for p in postings),
            return_exceptions=True,
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            raise UsageUnavailableError(f"{len(failures)} of {len(postings)} usage records: {failures[0]!r}")
