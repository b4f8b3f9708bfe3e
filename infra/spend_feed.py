"""Keeps the gateway's book of spending: started from the best copy at hand, then following USAGE.

    snapshot on disk ──┐
    Postgres (usage) ──┴─ the newer ──> SpendBook <── USAGE from its position on, every record of every gateway
                                            └──> snapshot on disk, every few seconds

Serves with Postgres and NATS away from what it knew. The surprising rule: it follows USAGE only while anybody has a
limit of spending at all, since a record costs each gateway a few microseconds to read, and most platforms have none.
With the first such limit it starts over from the better copy, and counts exactly within a second or two.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from domain.usage import UsageRecord
from gateway.spend import SpendBook, SpendSnapshot, month_of
from infra.cancellation import heed_cancellation
from infra.events.port import GapError
from infra.events.pull import follow_messages
from infra.events.reads import ApiError, last_position
from infra.events.streams import USAGE
from infra.whole_files import replace_file

READ_MESSAGES = 500
SAVE_INTERVAL_S = 10.0
"""How much of USAGE is read again after a crash, at most."""
WANTED_CHECK_S = 1.0
RETRY_DELAY_S = 1.0
DAMAGED_STREAM_DELAY_S = 30.0
"""A person has to act; meanwhile our own requests are still counted."""
HEAD_TIMEOUT_S = 2.0
FRESH_S = 600.0
"""Records of so many minutes are read again rather than Postgres asked, whose client costs 12 MB."""

_FREE_IN = b'"input_eur_micros_per_million":0,'
_FREE_OUT = b'"output_eur_micros_per_million":0,'
_FREE_AT_THE_END = b'"output_eur_micros_per_million":0}'
"""No text within a record can hold these: its quotes would be escaped."""

_log = structlog.get_logger(__name__)
_records = msgspec.json.Decoder(UsageRecord)
_snapshots = msgspec.json.Decoder(SpendSnapshot)


def utc_now() -> datetime:
    return datetime.now(UTC)


class SpendFeed:
    """One book and its copies.

    Args:
        book: told of every record.
        path: of the snapshot that this gateway saves to and may start from.
        is_wanted: whether anybody has a limit of spending; asked again and again.
        postgres_url: "" for none.
        utc: wall clock.
    """

    def __init__(
        self,
        book: SpendBook,
        path: Path,
        *,
        is_wanted: Callable[[], bool],
        postgres_url: str,
        utc: Callable[[], datetime] = utc_now,
    ) -> None:
        self._book = book
        self._path = path
        self._is_wanted = is_wanted
        self._postgres_url = postgres_url
        self._utc = utc
        self._saved = 0

    async def start(self) -> None:
        """Takes the newer copy, when one is newer than what the book has, and anybody has a limit of spending.

        Postgres is not asked beside a snapshot of the last minutes: USAGE brings the rest.
        """
        if not self._is_wanted():
            return
        copies = [await asyncio.to_thread(self._from_disk)]
        if copies[0] is None or not self._is_fresh():
            copies.append(await self._from_postgres())
        newest = max((copy for copy in copies if copy is not None), key=lambda copy: copy.position, default=None)
        if newest is not None and newest.position > self._book.position:
            self._book.start_from(newest)
        _log.info("spend_book_started", position=self._book.position)

    async def follow(self, nc: Client) -> None:
        """Follows USAGE while that is wanted, until cancelled; survives what the stream suffers."""
        while not self._is_wanted():
            heed_cancellation()
            await asyncio.sleep(WANTED_CHECK_S)
        await self.start()
        while True:
            heed_cancellation()
            try:
                await self._follow(nc)
            except GapError as error:
                _log.critical("usage_damaged", position=self._book.position, reason=str(error))
                await self._after_damage(nc)
            except (nats.errors.Error, ApiError, OSError) as error:
                _log.warning("spend_feed_interrupted", reason=repr(error))
                await asyncio.sleep(RETRY_DELAY_S)

    async def keep_saved(self) -> None:
        """Saves the book while it changes, until cancelled."""
        while True:
            heed_cancellation()
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.save()

    async def save(self) -> None:
        """A copy on disk; what cannot be saved now is saved later."""
        if self._book.position == self._saved:
            return
        snapshot = self._book.snapshot()
        try:
            await asyncio.to_thread(replace_file, self._path, [msgspec.json.encode(snapshot)])
            self._saved = snapshot.position
        except OSError as error:
            _log.info("spend_snapshot_not_saved", reason=str(error))

    async def _follow(self, nc: Client) -> None:
        after = self._book.position
        async with follow_messages(nc, USAGE, after=after, batch=READ_MESSAGES, contiguous=True) as batches:
            async for messages in batches:
                for message in messages:
                    self._take(message.position, message.payload)

    def _take(self, position: int, payload: bytes) -> None:
        if is_free(payload):
            self._book.passed(position)
            return
        try:
            self._book.seen(position, _records.decode(payload))
        except msgspec.MsgspecError as error:
            _log.error("usage_record_unreadable", position=position, reason=str(error))
            self._book.passed(position)

    async def _after_damage(self, nc: Client) -> None:
        """A stream that is shorter than what was seen is another stream; a hole waits for a person."""
        try:
            head = await last_position(nc, USAGE, timeout_s=HEAD_TIMEOUT_S)
        except (nats.errors.Error, ApiError):
            head = self._book.position
        if head < self._book.position:
            self._book.start_from(SpendSnapshot(position=0, month="", keys={}, organizations={}))
        else:
            await asyncio.sleep(DAMAGED_STREAM_DELAY_S)

    def _is_fresh(self) -> bool:
        """Of the snapshot on disk."""
        try:
            return self._utc().timestamp() - self._path.stat().st_mtime <= FRESH_S
        except OSError:
            return False

    def _from_disk(self) -> SpendSnapshot | None:
        try:
            return _snapshots.decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeError) as error:
            _log.warning("spend_snapshot_unreadable", reason=str(error))
            return None

    async def _from_postgres(self) -> SpendSnapshot | None:
        if not self._postgres_url:
            return None
        reader = await asyncio.to_thread(_reader)
        return await reader(self._postgres_url, month_of(self._utc()))


def _reader() -> Callable[[str, str], Awaitable[SpendSnapshot | None]]:
    from infra.spend_copy import read_copy  # noqa: PLC0415 - 12 MB of psycopg, for those who limit spending alone

    return read_copy


def is_free(payload: bytes) -> bool:
    """Whether a record has no price, as most have none: told at a tenth of the cost of decoding it.

    False for every record that has one, and for those that are spelled in another way than ours.
    """
    return _FREE_IN in payload and (_FREE_OUT in payload or payload.endswith(_FREE_AT_THE_END))
