"""Gateways tell one another what of the shared limits they use: core NATS, a few times a second.

    SharedCounts.tick ──statements──> gw.counts ──> SharedCounts.hear, on every other gateway

Nothing is stored and nothing is waited for: gateway/shared_counts.py holds whatever is late, lost or doubled. The
surprising rule: it ticks without NATS just the same, since the windows slide on, and silence has to be told from
deafness.
"""

import asyncio
from collections.abc import Callable

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from gateway.shared_counts import SharedCounts
from gateway.statements import COUNTS_SUBJECT, Statement
from infra.cancellation import heed_cancellation
from infra.events import wire

TICK_S = 0.2
"""Between two statements; rights follow the requests within two of them."""

_log = structlog.get_logger(__name__)
_statements = msgspec.msgpack.Decoder(Statement)


class LimitExchange:
    """One gateway's end of it.

    Args:
        shared: what is told and heard.
        now_s: monotonic.
    """

    def __init__(self, shared: SharedCounts, now_s: Callable[[], float]) -> None:
        self._shared = shared
        self._now_s = now_s
        self._ears: Client | None = None
        self._mouth: Client | None = None
        self._reconnects = 0

    async def connect(self, ears: Client, mouth: Client) -> None:
        """From now on the others are heard, and told.

        Args:
            ears: a reader's connection.
            mouth: a writer's, which sends nothing later that it could not send at once.
        """
        await wire.subscribe(ears, COUNTS_SUBJECT, self._hear)
        self._ears, self._mouth, self._reconnects = ears, mouth, ears.stats["reconnects"]
        self._shared.restate()

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            heed_cancellation()
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Tells the others what there is to tell."""
        ears = self._ears
        is_linked = ears is not None and ears.is_connected
        if ears is not None and is_linked and ears.stats["reconnects"] != self._reconnects:
            self._reconnects = ears.stats["reconnects"]
            self._shared.restate()
        for statement in self._shared.tick(self._now_s(), linked=is_linked):
            await self._say(statement)

    async def leave(self) -> None:
        """This gateway admits nothing new from now on; the others have its share at once."""
        self._shared.leave()
        await self.tick()

    async def close(self) -> None:
        """This process ends, and nothing runs here any more."""
        await self._say(self._shared.last_words())
        if self._mouth is not None and self._mouth.is_connected:
            try:
                await self._mouth.flush(timeout=1)
            except (nats.errors.Error, OSError) as error:
                _log.info("last_words_not_said", reason=repr(error))

    async def _say(self, statement: Statement) -> None:
        mouth = self._mouth
        if mouth is None or not mouth.is_connected:
            return
        try:
            await mouth.publish(COUNTS_SUBJECT, msgspec.msgpack.encode(statement))
        except (nats.errors.Error, OSError) as error:
            _log.info("counts_not_told", reason=repr(error))

    def _hear(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        try:
            statement = _statements.decode(payload)
        except (msgspec.MsgspecError, UnicodeError) as error:
            _log.warning("counts_not_understood", reason=str(error))
            return
        self._shared.hear(statement, self._now_s())
