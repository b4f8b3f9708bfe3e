"""Keeps the gateway's routing table: started from the best copy at hand, then folded from EVENTS as they happen.

    Postgres (router tables) ─┐
    snapshot on disk ─────────┼─ the newest ──> RoutingTable <── EVENTS, live        heartbeats ──> Loads
    nothing ──────────────────┘                     └──> snapshot on disk, every few seconds

So a gateway starts while Postgres, NATS or both are away, and goes on with what it knows. The surprising rule: a copy
alone is not good enough while the log can be had, since a key made a second ago would be called unknown; only after a
short grace without the log does the copy have to do.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from psycopg import sql

from domain.message import Recorded
from domain.telemetry import WorkerSeen, heartbeat_subject
from gateway.app import Readiness
from gateway.loads import Loads
from infra.cancellation import heed_cancellation
from infra.events.chain import CheckedReader
from infra.events.codec import Codec
from infra.events.port import EventLog, GapError, UnreadableMessageError
from infra.postgres import connect
from projections.projection import Entry, LogDamagedError
from projections.router import ROUTER, load_routing
from projections.routing_table import AGGREGATES, RoutingTable, encode_snapshot, table_from_snapshot

SAVE_INTERVAL_S = 5.0
"""How much of the log a gateway that starts from its snapshot alone has missed at most."""
CATCH_UP_GRACE_S = 2.0
"""How long a start waits for the log before a copy of the table has to do."""
TICK_S = 1.0
RETRY_DELAY_S = 1.0
DAMAGED_LOG_DELAY_S = 30.0
"""A person has to act; meanwhile the gateway serves with the table that it has."""
POSTGRES_TIMEOUT_S = 3.0

_log = structlog.get_logger(__name__)
_heartbeats = msgspec.json.Decoder(WorkerSeen)


class RoutingFeed:
    """One table and what is known about its age.

    Args:
        snapshot_path: the file that this gateway saves to and may start from.
        now_s: monotonic clock.

    Attributes:
        table: the gateway's; replaced only when the log itself was replaced.
        ready: set once the table can be trusted to know every key.
    """

    def __init__(self, snapshot_path: Path, now_s: Callable[[], float]) -> None:
        self.table = RoutingTable()
        self.ready = asyncio.Event()
        self._path = snapshot_path
        self._now_s = now_s
        self._source = "log"
        self._current_s = now_s()
        self._saved_position = 0
        self._connected: Callable[[], bool] = lambda: False

    async def start(self, postgres_url: str) -> None:
        """Takes the newest copy; an empty table when there is none."""
        copies = [("disk", await asyncio.to_thread(self._from_disk)), ("postgres", await _from_postgres(postgres_url))]
        for source, table in copies:
            if table is not None and table.position > self.table.position:
                self.table, self._source = table, source
        if self._source == "disk":
            self._saved_position = self.table.position
            self._current_s -= max(0.0, time.time() - self._path.stat().st_mtime)
        _log.info("routing_table_started", source=self._source, position=self.table.position)

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

    async def keep_saved(self, loads: Loads) -> None:
        """Saves the table while it changes, and lets go of what belonged to ended instances, until cancelled."""
        next_save_s = self._now_s()
        while True:
            heed_cancellation()
            if self._connected():
                self._current_s = self._now_s()
            if self._now_s() >= next_save_s and self.table.position != self._saved_position:
                await self.save()
                loads.forget(self.table.has_instance)
                next_save_s = self._now_s() + SAVE_INTERVAL_S
            await asyncio.sleep(TICK_S)

    async def save(self) -> None:
        position, data = self.table.position, encode_snapshot(self.table.snapshot())
        try:
            await asyncio.to_thread(_replace_file, self._path, data)
            self._saved_position = position
        except OSError as error:
            _log.warning("routing_snapshot_not_saved", reason=str(error))

    def readiness(self) -> Readiness:
        """For /readyz."""
        connected = self._connected()
        return Readiness(
            ready=self.ready.is_set(),
            source=self._source,
            position=self.table.position,
            log_connected=connected,
            age_s=0.0 if connected else round(self._now_s() - self._current_s, 1),
        )

    def _from_disk(self) -> RoutingTable | None:
        try:
            return table_from_snapshot(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("routing_snapshot_unreadable", reason=str(error))
            return None

    async def _follow(self, log: EventLog, reader: CheckedReader, codec: Codec, connected: Callable[[], bool]) -> None:
        head = await log.head()
        async with reader.follow(after=self.table.position) as batches:
            self._connected = connected
            self._note_progress(head)
            async for batch in batches:
                for recorded in batch:
                    self._take(recorded, codec)
                self._note_progress(head)

    def _note_progress(self, head: int) -> None:
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
        loads.heard(seen.instance_id, seen.queue_depth)

    await nc.subscribe(heartbeat_subject("*", "*"), cb=hear)


async def _from_postgres(postgres_url: str) -> RoutingTable | None:
    if not postgres_url:
        return None
    try:
        async with asyncio.timeout(POSTGRES_TIMEOUT_S):
            async with await connect(postgres_url, "gateway", autocommit=True) as connection:
                await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(ROUTER.schema)))
                return await load_routing(connection)
    except (psycopg.Error, OSError, msgspec.MsgspecError) as error:
        _log.warning("router_tables_unavailable", reason=str(error).strip())
        return None


def _replace_file(path: Path, data: bytes) -> None:
    """Old or new, never half: also after a power cut."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
