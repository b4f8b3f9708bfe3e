"""Keeps read models: follows a stream from each one's checkpoint and applies it, batch by batch, for ever.

    checkpoint ──> follow ──> batch ──┬─ something of ours:  BEGIN, move the checkpoint, apply, COMMIT
         ^                            └─ nothing of ours:    move the checkpoint, together with the other bystanders
         └──── again, after a delay ──── lost Postgres or NATS, another writer, a damaged log, a bug

The checkpoint is the fence: it moves in the transaction of the rows, first, and only from where this writer believes it
to be. So a batch is applied exactly once, however often anybody dies, and a second writer stops before it wrote.

Transactions do not wait for the disk (synchronous_commit off). After a crash Postgres may have lost the last of them as
a whole, rows and checkpoint alike, and the log is read again from there. So an idle projection watches its connection:
when that is lost, it looks at its checkpoint again, rather than waiting for the next message with rows missing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import msgspec
import nats.errors
import psycopg
import structlog
from nats.aio.client import Client
from psycopg.pq import TransactionStatus

from domain.message import Recorded
from domain.usage import UsageRecord
from infra.cancellation import heed_cancellation
from infra.events.chain import CheckedReader
from infra.events.codec import Codec
from infra.events.port import EventLog, GapError, LogUnavailableError
from infra.events.pull import StreamMessage, follow_messages
from infra.events.reads import ApiError, last_position
from infra.events.streams import USAGE
from infra.following import SharedFollow
from infra.postgres import connect, ensure_schema
from projections.checkpoint import Move, begin, move, shown_from
from projections.projection import Connection, Entry, LogDamagedError, Projection, UsageEntry

_log = structlog.get_logger(__name__)

READ_MESSAGES = 2000
"""Most messages that are taken from a stream at once."""
FIRST_RETRY_DELAY_S = 0.1
LONGEST_RETRY_DELAY_S = 10.0
ANOTHER_WRITER_DELAY_S = 2.0
"""How long a standby waits before it looks whether the active writer is still there."""
DAMAGED_LOG_DELAY_S = 30.0
"""A person has to act; the healthy replica that they point us to is picked up without a restart."""
HEAD_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 10
AFTER_YOU_S = 0.002
FEW_ENTRIES = 20
"""Read models that keep every event let those go first whose readers wait for them, as long as events come singly."""
FROZEN_WRITER_S = 30
"""A writer that stands still within a transaction loses it, and holds up its successor no longer."""
IDLE_CHECK_S = 0.5
"""How soon an idle writer notices that its Postgres is gone."""


class AnotherWriterError(RuntimeError):
    """Somebody else moved the checkpoint: another process keeps this read model. Nothing was written."""


class Source(Protocol):
    """A stream as projections see it: batches of raw messages in order, and what a projection wants of them."""

    def follow(self, *, after: int) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Any]]]:
        """Batches of messages that have a `position`, without a gap."""
        ...

    def entries(self, projection: Projection, messages: Sequence[Any]) -> Sequence[Any]:
        """Those that the projection folds, decoded."""
        ...

    async def head(self) -> int:
        """Position of the stream's newest message; raises OSError when it cannot be learned."""
        ...


class EventMessage:
    """One message of EVENTS on its way to several projections: its event is decoded when the first one wants it."""

    __slots__ = ("_decoded", "entry")

    def __init__(self, message: Recorded) -> None:
        self.entry = Entry(message.position, message.subject, message.payload, message.envelope, None)
        self._decoded: Entry | None = None

    @property
    def position(self) -> int:
        return self.entry.position

    @property
    def payload(self) -> bytes:
        return self.entry.payload

    def decoded(self, codec: Codec) -> Entry:
        if self._decoded is None:
            entry = self.entry
            event = codec.decode_event(entry.envelope)
            self._decoded = Entry(entry.position, entry.subject, entry.payload, entry.envelope, event)
        return self._decoded


class EventSource:
    """The stream EVENTS, read once for all projections that are near one another (following.py)."""

    def __init__(self, log: EventLog, codec: Codec) -> None:
        self._log = log
        self._checked = CheckedReader(log)
        self._codec = codec
        self._shared: SharedFollow[EventMessage] = SharedFollow(self._read)

    def follow(self, *, after: int) -> AbstractAsyncContextManager[AsyncIterator[Sequence[EventMessage]]]:
        return self._shared.follow(after=after)

    def entries(self, projection: Projection, messages: Sequence[EventMessage]) -> Sequence[Entry]:
        wanted = projection.aggregates
        if wanted is None:
            return [message.entry for message in messages]
        return [message.decoded(self._codec) for message in messages if message.entry.envelope.aggregate in wanted]

    async def head(self) -> int:
        return await self._log.head()

    @asynccontextmanager
    async def _read(self, after: int) -> AsyncIterator[AsyncIterator[Sequence[EventMessage]]]:
        async with self._checked.follow(after=after, batch=READ_MESSAGES) as batches:
            yield ([EventMessage(message) for message in messages] async for messages in batches)


class UsageSource:
    """The stream USAGE."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._decoder = msgspec.json.Decoder(UsageRecord)

    @asynccontextmanager
    async def follow(self, *, after: int) -> AsyncIterator[AsyncIterator[Sequence[StreamMessage]]]:
        async with follow_messages(self._nc, USAGE, after=after, batch=READ_MESSAGES, contiguous=True) as batches:
            yield batches

    def entries(self, _projection: Projection, messages: Sequence[StreamMessage]) -> Sequence[UsageEntry]:
        return [UsageEntry(message.position, self._decoder.decode(message.payload)) for message in messages]

    async def head(self) -> int:
        try:
            return await last_position(self._nc, USAGE, timeout_s=HEAD_TIMEOUT_S)
        except (nats.errors.Error, ApiError) as error:
            raise LogUnavailableError(f"cannot learn where {USAGE} ends: {error!r}") from error


class Bystanders:
    """Moves the checkpoints of projections that had nothing to do in a batch, several in one statement.

    An event concerns two or three read models of ten; the others would pay a transaction each to say so. Whoever comes
    while a statement is on its way goes with the next one.
    """

    def __init__(self, postgres_url: str) -> None:
        self._postgres_url = postgres_url
        self._connection: Connection | None = None
        self._waiting: dict[Move, asyncio.Future[None]] = {}
        self._turn = asyncio.Lock()

    async def move(self, wanted: Move) -> None:
        """Returns when the checkpoint has moved.

        Raises:
            AnotherWriterError: it was not where it should have been.
            psycopg.Error: Postgres is away.
        """
        moved = self._waiting[wanted] = asyncio.get_running_loop().create_future()
        async with self._turn:
            if not moved.done():
                await self._move_all()
        await moved

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _move_all(self) -> None:
        await asyncio.sleep(0)  # lets those that the same message woke come along
        waiting, self._waiting = self._waiting, {}
        try:
            moved = await self._moved(list(waiting))
        except BaseException as error:
            await self.close()
            fault = error if isinstance(error, psycopg.Error) else psycopg.OperationalError("interrupted")
            for future in waiting.values():
                _fail(future, fault)
            if not isinstance(error, psycopg.Error):
                raise
            return
        for wanted, future in waiting.items():
            if wanted.projection.schema not in moved:
                _fail(future, AnotherWriterError(_fenced(wanted)))
            elif not future.done():
                future.set_result(None)

    async def _moved(self, moves: Sequence[Move]) -> set[str]:
        if self._connection is None:
            self._connection = await _connect_writer(self._postgres_url, "bystanders", autocommit=True)
        return await move(self._connection, moves)


async def _connect_writer(
    postgres_url: str,
    name: str,
    *,
    autocommit: bool = False,
    search_path: str = "platform",
    statement_timeout_s: int = STATEMENT_TIMEOUT_S,
) -> Connection:
    return await connect(
        postgres_url,
        name,
        autocommit=autocommit,
        search_path=search_path,
        synchronous_commit="off",
        statement_timeout=f"{statement_timeout_s}s",
        lock_timeout=f"{LOCK_TIMEOUT_S}s",
        idle_in_transaction_session_timeout=f"{FROZEN_WRITER_S}s",
    )


async def connect_projector(
    postgres_url: str,
    projection: Projection,
    *,
    autocommit: bool = False,
    statement_timeout_s: int = STATEMENT_TIMEOUT_S,
) -> Connection:
    """A connection that finds the projection's tables and may write them."""
    return await _connect_writer(
        postgres_url,
        f"projection-{projection.name}",
        autocommit=autocommit,
        search_path=projection.schema,
        statement_timeout_s=statement_timeout_s,
    )


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: whoever waited may have been stopped meanwhile


def _fenced(wanted: Move) -> str:
    return f"another writer keeps {wanted.projection.schema}: its checkpoint is no longer at {wanted.previous}"


class Projector:
    """Keeps one read model. `run` never returns; whatever goes wrong, it says so, waits and goes on.

    Args:
        projection: what to keep.
        source: the stream that it folds.
        postgres_url: where its tables live.
        bystanders: shared by the projectors of this process.

    Attributes:
        started: set once its tables exist.
        built: set once readers may see them: they have caught up for the first time.
    """

    def __init__(self, projection: Projection, source: Source, postgres_url: str, bystanders: Bystanders) -> None:
        self._projection = projection
        self._source = source
        self._postgres_url = postgres_url
        self._bystanders = bystanders
        self._delay_s = FIRST_RETRY_DELAY_S
        self.started = asyncio.Event()
        self.built = asyncio.Event()
        self._log = _log.bind(projection=projection.schema)

    @property
    def schema(self) -> str:
        return self._projection.schema

    async def run(self) -> None:
        while True:  # endless by contract; each failure waits, longer each time
            heed_cancellation()
            delay_s = await self._run_until_it_fails()
            await asyncio.sleep(delay_s)

    async def keep(self) -> None:
        """Follows and applies until something goes wrong; never returns.

        Raises:
            AnotherWriterError: see the class.
            LogDamagedError, GapError: the log has a hole, was altered, or is not the one we read before.
            psycopg.Error, OSError: Postgres or NATS is away.
        """
        async with _closing(
            await connect_projector(self._postgres_url, self._projection, autocommit=True)
        ) as connection:
            position = await ensure_schema(connection, self._projection, head=await self._source.head())
            shown = await shown_from(connection, self._projection)
            self.started.set()
            self._log.info("projection_started", position=position)
            async with _while_connected(connection), self._source.follow(after=position) as batches:
                if position >= shown:
                    self.built.set()
                async for messages in batches:
                    heed_cancellation()
                    step = Move(self._projection, previous=position, position=messages[-1].position)
                    await self._take(connection, messages, step)
                    position = step.position
                    self._delay_s = FIRST_RETRY_DELAY_S
                    if position >= shown:
                        self.built.set()

    async def _take(self, connection: Connection, messages: Sequence[Any], step: Move) -> None:
        entries = self._source.entries(self._projection, messages)
        if not entries:
            await self._bystanders.move(step)
            return
        if self._projection.aggregates is None and len(entries) <= FEW_ENTRIES:
            await asyncio.sleep(AFTER_YOU_S)
        if not await begin(connection, step):
            raise AnotherWriterError(_fenced(step))
        await self._projection.apply(entries, connection)
        await connection.commit()  # whatever fails before it ends the connection, and with it the transaction

    async def _run_until_it_fails(self) -> float:
        """Returns how long to wait before the next try, in seconds."""
        try:
            await self.keep()
        except (OSError, psycopg.OperationalError) as error:
            self._log.warning("projection_interrupted", reason=str(error).strip(), retry_s=self._delay_s)
        except AnotherWriterError as error:
            self._log.warning("projection_has_another_writer", reason=str(error), retry_s=ANOTHER_WRITER_DELAY_S)
            return ANOTHER_WRITER_DELAY_S
        except (LogDamagedError, GapError) as error:
            self._log.critical("log_damaged", reason=str(error), retry_s=DAMAGED_LOG_DELAY_S)
            return DAMAGED_LOG_DELAY_S
        except Exception:  # noqa: BLE001 - a bug in one read model must not end the others; it is logged whole
            self._log.exception("projection_failed", retry_s=self._delay_s)
        delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, LONGEST_RETRY_DELAY_S)
        return delay_s


@asynccontextmanager
async def _closing(connection: Connection) -> AsyncIterator[Connection]:
    """Closes for certain. psycopg's own way out rolls back first, and whoever is stopped during that leaves it open."""
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _while_connected(connection: Connection) -> AsyncIterator[None]:
    """Ends its body with psycopg.OperationalError when the connection is lost while nobody uses it."""
    loop, life = asyncio.get_running_loop(), asyncio.timeout(None)
    try:
        async with life:
            watch = asyncio.create_task(_when_lost(connection, lambda: life.reschedule(loop.time())))
            try:
                yield
            finally:
                watch.cancel()
    except TimeoutError as error:
        if not life.expired():
            raise
        raise psycopg.OperationalError("the connection was lost while idle") from error


async def _when_lost(connection: Connection, act: Callable[[], None]) -> None:
    while True:  # for as long as the connection is kept
        await asyncio.sleep(IDLE_CHECK_S)
        if _is_lost(connection):
            return act()


def _is_lost(connection: Connection) -> bool:
    """Asks the socket, not the server; whoever is using the connection notices by themselves."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        return connection.closed
    try:
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return connection.closed
