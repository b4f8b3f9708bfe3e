"""Each request's account, from the counts to the stream USAGE, with the disk in between so that none is lost.

    record ──write──> spool file ──fsync (<= 50 ms)──> publish in batches ──acknowledged──> removed from the spool

A record is written to the file before the client's last byte leaves: it outlives `kill -9` at once, and a power cut
after the fsync. What a crash leaves behind is published at the next start; the request id is the message id and the
read model's key, so that twice counts once. The surprising rule: when records can no longer be kept (disk full, the
spool at its bound), the gateway takes no new requests, since it could not account for them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from domain.usage import UsageRecord, usage_subject

SYNC_DELAY_S = 0.05
"""Records gather this long before one fsync and one batch carry them all."""
BATCH_RECORDS = 100
"""Most records published at once."""
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 5.0
FLUSH_TIMEOUT_S = 3.0
"""How long a stopping gateway tries to publish what is left; the rest stays in the spool."""

log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(UsageRecord)


class Spool(Protocol):
    """Records on disk, oldest first. Everything but `sync` is called on the event loop and returns at once."""

    def append(self, record: bytes) -> None:
        """Hands one record (no newline in it) to the operating system.

        Raises:
            OSError: not written.
        """
        ...

    def sync(self) -> None:
        """Waits for the disk; blocking, called on a thread."""
        ...

    def oldest(self, limit: int) -> Sequence[bytes]:
        """The oldest records, at most `limit`; the same again until they are removed."""
        ...

    def remove(self, count: int) -> None:
        """Forgets the `count` oldest records."""
        ...

    @property
    def is_full(self) -> bool: ...


class Posting(msgspec.Struct, frozen=True):
    """One message for USAGE; `message_id` is what the stream recognises a repetition by."""

    subject: str
    message_id: str
    payload: bytes


Publish = Callable[[Sequence[Posting]], Awaitable[None]]
"""Returns when every posting is stored; raises OSError when that is not certain, and is then called again."""


class Meter:
    """Takes records, keeps them, publishes them. `run` must be running for them to leave."""

    def __init__(self, spool: Spool, publish: Publish) -> None:
        self._spool = spool
        self._publish = publish
        self._unwritten: deque[bytes] = deque()
        self._written = asyncio.Event()
        self._publishable = asyncio.Event()
        self._publishable.set()

    @property
    def accepting(self) -> bool:
        """False when a further record might not be kept; bounds `_unwritten` to the requests already open."""
        return not self._unwritten and not self._spool.is_full

    def record(self, record: UsageRecord) -> None:
        """Writes it down now; never raises."""
        self._unwritten.append(msgspec.json.encode(record))
        self._write()
        self._written.set()

    async def run(self) -> None:
        """Syncs and publishes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_synced())
            tasks.create_task(self._keep_published())

    async def flush(self) -> None:
        """Last call of a stopping gateway, after `run` was cancelled: sync, and one bounded try to publish."""
        self._write()
        await asyncio.to_thread(self._sync)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                while await self._publish_batch():
                    pass
        except (OSError, TimeoutError) as error:
            log.warning("usage_left_in_spool", reason=str(error))

    def _write(self) -> None:
        try:
            while self._unwritten:
                self._spool.append(self._unwritten[0])
                self._unwritten.popleft()
        except OSError as error:
            log.error("usage_not_spooled", records=len(self._unwritten), reason=str(error))  # noqa: TRY400 - the reason says it all

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:
            log.error("usage_not_synced", reason=str(error))  # noqa: TRY400 - the reason says it all

    async def _keep_synced(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            await asyncio.sleep(SYNC_DELAY_S)
            await asyncio.to_thread(self._sync)
            self._publishable.set()
            if self._unwritten:
                await asyncio.sleep(RETRY_LONGEST_S)
                self._write()
                self._written.set()

    async def _keep_published(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            await self._publishable.wait()
            self._publishable.clear()
            try:
                while await self._publish_batch():
                    pause_s = RETRY_FIRST_S
            except OSError as error:
                log.warning("usage_not_published", reason=str(error), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_LONGEST_S)
                self._publishable.set()

    async def _publish_batch(self) -> bool:
        """Publishes the oldest batch; False when there was none."""
        lines = self._spool.oldest(BATCH_RECORDS)
        if not lines:
            return False
        await self._publish([posting for line in lines if (posting := _posting(line)) is not None])
        self._spool.remove(len(lines))
        return True


def _posting(line: bytes) -> Posting | None:
    """None for a line that a power cut tore; it was never a whole record."""
    try:
        record = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeError) as error:
        log.error("usage_record_unreadable", length_bytes=len(line), reason=str(error))  # noqa: TRY400 - see above
        return None
    return Posting(usage_subject(record.organization_id, record.deployment_id), record.request_id, line)
