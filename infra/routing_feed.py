"""Keeps the gateway's routing table: started from the best copy at hand, then folded from EVENTS as they happen.

    snapshot on disk, minutes old ─────────┐
    older, or none: Postgres (router), too ┼─ the newest ──> RoutingTable <── EVENTS, live      heartbeats ──> Loads
    nothing ───────────────────────────────┘                  │       └──> snapshot on disk, every few seconds
                                                              └── age: since the log last said that nothing was missing

So a gateway starts while Postgres, NATS or both are away, and goes on with what it knows, but not for ever: from an age
of `trust_s` on the table is not trusted to tell which keys still hold, wherever it came from. The surprising rule: a
copy alone is not good enough while the log can be had, since a key made a second ago would be called unknown; only
after a short grace without the log does the copy have to do.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.message import Recorded
from domain.telemetry import WorkerSeen, heartbeat_subject
from gateway.app import Readiness
from gateway.loads import Loads
from infra.cancellation import heed_cancellation
from infra.events.chain import CheckedReader
from infra.events.codec import Codec
from infra.events.port import EventLog, GapError, UnreadableMessageError
from infra.table_age import TableAge
from infra.whole_files import replace_file
from projections.entry import Entry, LogDamagedError
from projections.routing_rows import AGGREGATES
from projections.routing_snapshot import decode_snapshot, encode_snapshot
from projections.routing_table import RoutingTable, table_from

SAVE_INTERVAL_S = 5.0
"""How much of the log a gateway that starts from its snapshot alone has missed at most."""
CATCH_UP_GRACE_S = 2.0
"""How long a start waits for the log before a copy of the table has to do."""
TICK_S = 1.0
RETRY_DELAY_S = 1.0
DAMAGED_LOG_DELAY_S = 30.0
"""A person has to act; meanwhile the gateway serves with the table that it has."""
FRESH_S = 600.0
"""A snapshot is good enough up to this age, if it can be trusted at all: the log brings the rest within a second or so.
Postgres costs a start its client's 12 MB, and a wait while it is away.
"""
TRUST_S = 600
"""Default of INVENTIV_KEY_TRUST_S: ten minutes without the log are bridged."""
PROOF_INTERVAL_S = 2.0
PROOF_SAVE_INTERVAL_S = 60.0
"""On a quiet platform a snapshot is written anew only for its age."""
SILENCE_S = 10.0
"""Without a proof for so long the log counts as away, whatever its connection says of itself."""

_log = structlog.get_logger(__name__)
_heartbeats = msgspec.json.Decoder(WorkerSeen)


class _Copy(msgspec.Struct, frozen=True):
    """A table to start from, and when it was current (UTC)."""

    source: str
    table: RoutingTable
    current_at: datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


class RoutingFeed:
    """One table and what is known about its age.

    Args:
        snapshot_path: the file that this gateway saves to and may start from.
        now_s: monotonic clock.
        trust_s: age from which on the table is not trusted.
        utc: wall clock; a copy's age is told by it.

    Attributes:
        table: the gateway's; replaced only when the log itself was replaced.
        ready: set once the table can be trusted to know every key.
    """

    def __init__(
        self,
        snapshot_path: Path,
        now_s: Callable[[], float],
        *,
        trust_s: float = TRUST_S,
        utc: Callable[[], datetime] = utc_now,
    ) -> None:
        self.table = RoutingTable()
        self.ready = asyncio.Event()
        self._path = snapshot_path
        self._now_s = now_s
        self._trust_s = trust_s
        self._utc = utc
        self._source = "log"
        self._age = TableAge(now_s)
        self._saved = (0, 0.0)  # position, and when (monotonic)
        self._connected: Callable[[], bool] = lambda: False

    async def start(self, postgres_url: str) -> None:
        """Takes the newest copy; an empty table when there is none. Postgres is not asked beside a fresh snapshot."""
        copies = [await asyncio.to_thread(self._from_disk)]
        if postgres_url and not self._is_fresh(copies[0]):
            copies.append(await _from_postgres(postgres_url))
        found = [copy for copy in copies if copy is not None and copy.table.position]
        if newest := max(found, key=lambda copy: (copy.table.position, copy.current_at), default=None):
            self.table, self._source = newest.table, newest.source
            self._age.began_at(max(0.0, (self._utc() - newest.current_at).total_seconds()))
        if self._source == "disk":
            self._saved = (self.table.position, self._now_s())
        _log.info(
            "routing_table_started",
            source=self._source,
            position=self.table.position,
            age_s=round(self._age.age_s, 1),
        )

    async def settle(self, grace_s: float = CATCH_UP_GRACE_S) -> None:
        """Waits for the log to be caught up with; after the grace a copy is good enough, an empty table is not."""
        try:
            async with asyncio.timeout(grace_s):
                await self.ready.wait()
        except TimeoutError:
            if self._source != "log":
                self.ready.set()
        _log.info("ready", source=self._source, position=self.table.position, caught_up=self._connected())

    async def follow(self, log: EventLog, codec: Codec, connected: Callable[[], bool]) -> None:
        """Folds the log into the table until cancelled; survives what the log suffers."""
        reader = CheckedReader(log)
        while True:
            heed_cancellation()
            try:
                await self._follow(log, reader, codec, connected)
            except (GapError, LogDamagedError, UnreadableMessageError) as error:
                _log.critical("log_damaged", position=self.table.position, reason=str(error))
                await self._after_damage(log)
            except OSError as error:
                _log.warning("routing_feed_interrupted", reason=str(error))
                await asyncio.sleep(RETRY_DELAY_S)
            finally:
                self._connected = lambda: False

    async def keep_proven(self, log: EventLog) -> None:
        """Asks the log again and again where it ends, until cancelled; what the answers prove, see table_age.py.

        Args:
            log: gives up on one question after a few seconds.
        """
        while True:
            heed_cancellation()
            asked_s = self._now_s()
            try:
                self._age.answered(await log.head(), asked_s=asked_s)
                self._age.reached(self.table.position)
            except OSError as error:
                _log.info("routing_table_not_proven", age_s=round(self._age.age_s, 1), reason=str(error))
            await asyncio.sleep(PROOF_INTERVAL_S)

    async def keep_saved(self, loads: Loads) -> None:
        """Saves the table while it changes, and lets go of what belonged to ended instances, until cancelled."""
        while True:
            heed_cancellation()
            saved_position, saved_s = self._saved
            interval_s = PROOF_SAVE_INTERVAL_S if self.table.position == saved_position else SAVE_INTERVAL_S
            if self.table.position and self._now_s() - saved_s >= interval_s:
                await self.save()
                loads.forget(self.table.has_instance)
            await asyncio.sleep(TICK_S)

    async def save(self) -> None:
        current_at = self._utc() - timedelta(seconds=self._age.age_s)
        position, snapshot = self.table.position, self.table.snapshot(current_at)
        try:
            await asyncio.to_thread(replace_file, self._path, encode_snapshot(snapshot))
            self._saved = (position, self._now_s())
        except OSError as error:
            _log.warning("routing_snapshot_not_saved", reason=str(error))

    def lets_in(self) -> bool:
        """Whether the table can tell who may pass; asked with each request."""
        return self.ready.is_set() and self._age.age_s <= self._trust_s

    def readiness(self) -> Readiness:
        """For /readyz."""
        age_s = self._age.age_s
        return Readiness(
            ready=self.ready.is_set(),
            trusted=age_s <= self._trust_s,
            source=self._source,
            position=self.table.position,
            log_connected=self._connected() and age_s <= SILENCE_S,
            age_s=round(age_s, 1),
        )

    def _is_fresh(self, copy: _Copy | None) -> bool:
        if copy is None or not copy.table.position:
            return False
        return (self._utc() - copy.current_at).total_seconds() <= min(FRESH_S, self._trust_s)

    def _from_disk(self) -> _Copy | None:
        try:
            snapshot = decode_snapshot(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("routing_snapshot_unreadable", reason=str(error))
            return None
        return _Copy("disk", table_from(snapshot), snapshot.current_at)

    async def _follow(self, log: EventLog, reader: CheckedReader, codec: Codec, connected: Callable[[], bool]) -> None:
        asked_s, head = self._now_s(), await log.head()
        self._age.answered(head, asked_s=asked_s)
        async with reader.follow(after=self.table.position) as batches:
            self._connected = connected
            self._note_progress(head)
            async for batch in batches:
                for recorded in batch:
                    self._take(recorded, codec)
                self._note_progress(head)

    def _note_progress(self, head: int) -> None:
        self._age.reached(self.table.position)
        if self.table.position >= head and not self.ready.is_set():
            _log.info("routing_table_current", position=self.table.position)
            self.ready.set()

    def _take(self, recorded: Recorded, codec: Codec) -> None:
        """One event. What cannot be understood or folded is passed over: a gateway had better go on with the rest."""
        envelope = recorded.envelope
        if envelope.aggregate in AGGREGATES:
            try:
                event = codec.decode_event(envelope)
                self.table.apply(Entry(recorded.position, recorded.subject, recorded.payload, envelope, event))
            except Exception as error:  # noqa: BLE001 - whatever one event does, the other keys and workers go on
                _log.error("event_passed_over", position=recorded.position, type=envelope.type, reason=repr(error))
        self.table.position = max(self.table.position, recorded.position)

    async def _after_damage(self, log: EventLog) -> None:
        """A log that is shorter than what was seen is another log: begin anew with it. A hole waits for a person."""
        if await log.head() < self.table.position:
            self.ready.clear()
            self.table, self._source = RoutingTable(), "log"
        else:
            await asyncio.sleep(DAMAGED_LOG_DELAY_S)


async def follow_heartbeats(nc: Client, loads: Loads) -> None:
    """Tells `loads` of every heartbeat from now on.

    A plain subscription, not a reader of the stream TELEMETRY: only news tells how busy a worker is.
    """

    async def hear(message: Msg) -> None:
        try:
            seen = _heartbeats.decode(message.data)
        except msgspec.MsgspecError as error:
            _log.warning("heartbeat_not_understood", subject=message.subject, reason=str(error))
            return
        loads.heard(seen.instance_id, seen.queue_depth, seen.kv_cache_usage)

    await nc.subscribe(heartbeat_subject("*", "*"), cb=hear)


async def _from_postgres(postgres_url: str) -> _Copy | None:
    from infra.routing_copy import read_copy  # noqa: PLC0415 - 12 MB of psycopg, which most gateways never need

    found = await read_copy(postgres_url)
    return _Copy("postgres", *found) if found else None
