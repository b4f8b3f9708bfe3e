"""Each request's account, from its first byte to the stream USAGE, with the disk in between so that none is lost.

    open(draft) ─┐                                  ┌─ every 50 ms: one write, one fsync
    progress ... ├──> journal (memory-mapped slots) ┴──> spool files ──publish in batches──> USAGE ──> removed
    record ──────┘

Draft, progress and final record are stores into memory that outlives `kill -9`; so a request is accounted for from the
moment it was opened, and a power cut takes at most what ran then and the last 50 ms. What a crash leaves behind is
published at the next start; the request id is the message id and the read model's key, so that twice counts once. The
surprising rule: when records can no longer be kept (disk full, the spool at its bound, no slot free), the gateway takes
no new requests, since it could not account for them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Protocol

import msgspec
import structlog

from domain.usage import usage_subject

SYNC_DELAY_S = 0.05
"""Records gather this long before one fsync and one batch carry them all."""
WRITE_RECORDS = 1_000
"""Most records in one write, about 1 MB."""
BATCH_RECORDS = 2_000
"""Most records published at once; a batch waits for one fsync of the server's, however many it carries."""
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 5.0
FLUSH_TIMEOUT_S = 3.0
"""How long a stopping gateway tries to publish what is left; the rest stays in the spool."""

log = structlog.get_logger(__name__)


class _Address(msgspec.Struct):
    """What of a record says where it goes; the rest is not looked at again."""

    request_id: str
    organization_id: str
    deployment_id: str


_decoder = msgspec.json.Decoder(_Address)


class Spool(Protocol):
    """Records on disk, oldest first. Everything but `sync` is called on the event loop and returns at once."""

    def append(self, records: Sequence[bytes]) -> None:
        """Hands records (no newline in them) to the operating system, all of them or none.

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


class Journal(Protocol):
    """The accounts of running requests, where the process's death does not reach. Returns at once."""

    @property
    def has_room(self) -> bool: ...

    def open(self, record: bytes) -> int:
        """Keeps a record, or only its opening, until its slot is freed; -1 when there is no room, or it is too long."""
        ...

    def progress(self, slot: int, tail: bytes) -> None:
        """What an open record's counts are by now: the end of what the engine told; see Relay.progress."""
        ...

    def finish(self, slot: int, tail: bytes) -> bool:
        """The request is over: `tail` is all of its final record that was not in the one it was opened with, and the
        slot goes on keeping it. False when it does not fit.
        """
        ...

    def free(self, slot: int) -> None: ...


class NoJournal:
    """Keeps nothing: what runs when the process is killed has no record, and finished ones go to the disk at once."""

    has_room = True

    def open(self, record: bytes) -> int:  # noqa: ARG002 - see Journal
        return -1

    def progress(self, slot: int, tail: bytes) -> None:
        pass

    def finish(self, slot: int, tail: bytes) -> bool:  # noqa: ARG002 - see Journal
        return False

    def free(self, slot: int) -> None:
        pass


class Posting(msgspec.Struct, frozen=True):
    """One message for USAGE; `message_id` is what the stream recognises a repetition by."""

    subject: str
    message_id: str
    payload: bytes


Publish = Callable[[Sequence[Posting]], Awaitable[None]]
"""Returns when every posting is stored; raises OSError when that is not certain, and is then called again."""


class Meter:
    """Takes records, keeps them, publishes them. `run` must be running for them to leave.

    Attributes:
        progress: (slot, tail), for every chunk of every stream; the journal's own method, since each call counts.
    """

    def __init__(self, spool: Spool, publish: Publish, journal: Journal | None = None) -> None:
        self._spool = spool
        self._publish = publish
        self._journal: Journal = journal or NoJournal()
        self._covers = journal is not None
        self.progress: Callable[[int, bytes], None] = self._journal.progress
        self._unwritten: deque[tuple[bytes, int]] = deque()
        self._failing = False
        self._written = asyncio.Event()
        self._publishable = asyncio.Event()
        self._publishable.set()

    @property
    def accepting(self) -> bool:
        """False when a further record might not be kept; bounds `_unwritten` to the requests already open."""
        return not self._failing and self._journal.has_room and not self._spool.is_full

    def open(self, draft: bytes, replacing: int = -1) -> int:
        """Writes down what a request is booked with if this process dies; before an engine hears of it.

        Args:
            draft: a UsageRecord as JSON, as far as it is known; the same request id as the final record.
            replacing: the slot of the same request's attempt before this one.

        Returns:
            Its slot; -1 when it cannot be kept, so that the request must not be served.
        """
        slot = self._journal.open(draft)
        if replacing < 0:
            return slot if self._covers else 0
        if slot < 0:
            return replacing  # the earlier draft names another worker, and is better than none
        self._journal.free(replacing)
        return slot

    def record(self, line: bytes, slot: int = -1, *, tail: bytes = b"") -> None:
        """The request is over: keeps its account, in the slot it was opened in if it fits there; never raises.

        Args:
            line: its UsageRecord as JSON.
            slot: of `open`.
            tail: what of the line was not known when it was opened.
        """
        kept = slot
        if slot < 0 or not self._journal.finish(slot, tail):
            kept = self._journal.open(line)
            if kept >= 0 and slot >= 0:
                self._journal.free(slot)
        self._unwritten.append((line, kept if kept >= 0 else slot))
        if kept < 0:
            self._write()
        self._written.set()

    def publish_soon(self) -> None:
        """The spool has got records from elsewhere."""
        self._publishable.set()

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
        """Brings the records to the spool, and only then lets the journal forget them."""
        while self._unwritten:
            batch = list(islice(self._unwritten, WRITE_RECORDS))
            try:
                self._spool.append([line for line, _ in batch])
            except OSError as error:
                self._failing = True
                log.error("usage_not_spooled", records=len(self._unwritten), reason=str(error))  # noqa: TRY400 - the reason says it all
                return
            for _, slot in batch:
                self._unwritten.popleft()
                if slot >= 0:
                    self._journal.free(slot)
        self._failing = False

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
            self._write()
            await asyncio.to_thread(self._sync)
            self._publishable.set()
            if self._failing:
                await asyncio.sleep(RETRY_LONGEST_S)
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
