"""One reaction looks at one aggregate in one process at a time, and remembers up to which version it has looked.

    hold(reaction, aggregate, id) ──> a session lock in Postgres + the row of that pair ──> settle(...) ──> unlock

What it must guarantee, and what not. Reactions are level-triggered (they load the truth and do the next step), so order
of delivery means nothing, and one look settles every event up to the version it saw. Hence: no two looks at once; a
version is written only after all that it stands for is settled, parked, or covered by a durable timer; it never falls.
An event at or below it is acknowledged unread; a newer one is always looked at: nothing is skipped, nothing is lost.

The lock belongs to this process's one session, so it ends with the process (kill -9 too) and needs no lease. When the
session is lost, whatever runs behind it is interrupted: another process may begin. Should both still overlap for a
moment, the log's version check and the provider's fixed names hold; the gate spares work, it does not carry the truth.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self
from weakref import WeakValueDictionary

import msgspec
import psycopg
import structlog
from psycopg import AsyncConnection, sql

from infra.cancellation import heed_cancellation

_log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10.0
CHECK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 600.0
"""The longest single look; a provider's slowest call is a fraction of it."""
CREATE_ATTEMPTS = 3
"""Two processes that create the schema at once: the second fails, and finds it the next time."""

_TABLES = sql.SQL(
    """
    CREATE SCHEMA IF NOT EXISTS platform;
    CREATE TABLE IF NOT EXISTS platform.reaction_positions (
        reaction text NOT NULL,
        aggregate text NOT NULL,
        id text NOT NULL,
        version bigint NOT NULL,
        attempt integer NOT NULL,
        own_faults integer NOT NULL,
        done bigint NOT NULL DEFAULT 0,
        settled_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (reaction, aggregate, id)
    );
    ALTER TABLE platform.reaction_positions ADD COLUMN IF NOT EXISTS done bigint NOT NULL DEFAULT 0
    """
)


class GateUnavailableError(OSError):
    """Postgres does not answer, so nobody may look; try again later."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reaction is with an aggregate.

    Attributes:
        version: newest one that is settled: done, put off with a durable timer, or parked.
        done: newest one for which a look answered Done.
        attempt: looks in a row, with no new event between them, that ended in "again later".
        own_faults: how many of those failed for a reason of our own.
    """

    version: int = 0
    attempt: int = 0
    own_faults: int = 0
    done: int = 0


class Held:
    """The right to look, and the standing found; settle writes the new one."""

    def __init__(self, gate: "Gate", key: tuple[str, str, str], standing: Standing) -> None:
        self._gate = gate
        self._key = key
        self.standing = standing

    async def settle(self, standing: Standing) -> None:
        """Raises GateUnavailableError: not written; the look will be repeated."""
        await self._gate.write(self._key, standing)


class Gate:
    """One process's side of the gate. `async with` it; it connects by itself, again and again."""

    def __init__(self, postgres_url: str) -> None:
        self._url = postgres_url
        self._connection: AsyncConnection[Any] | None = None
        self._statements = asyncio.Lock()
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._looks: set[asyncio.Timeout] = set()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watch_session())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._lose()

    @contextlib.asynccontextmanager
    async def hold(self, reaction: str, aggregate: str, aggregate_id: str) -> AsyncIterator[Held | None]:
        """The right to look; None while another process has it. Callers of this process wait for one another.

        Raises:
            GateUnavailableError: Postgres is away.
            TimeoutError: the look took longer than LOOK_TIMEOUT_S, or the session was lost meanwhile.
        """
        key = (reaction, aggregate, aggregate_id)
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            elsewhere = False
            try:
                elsewhere = not await self._lock(key)
                if elsewhere:
                    yield None
                    return
                found = await self._standing(key)
                async with asyncio.timeout(LOOK_TIMEOUT_S) as look:
                    self._looks.add(look)
                    try:
                        yield Held(self, key, found)
                    finally:
                        self._looks.discard(look)
            finally:
                if not elsewhere:
                    await self._unlock(key)

    async def _standing(self, key: tuple[str, str, str]) -> Standing:
        rows = await self._execute(
            "SELECT version, attempt, own_faults, done FROM platform.reaction_positions"
            " WHERE (reaction, aggregate, id) = (%s, %s, %s)",
            key,
        )
        if not rows:
            return Standing()
        version, attempt, own_faults, done = rows[0]
        return Standing(version=version, attempt=attempt, own_faults=own_faults, done=done)

    async def write(self, key: tuple[str, str, str], standing: Standing) -> None:
        """Stores a standing; neither of its versions ever falls."""
        await self._execute(
            "INSERT INTO platform.reaction_positions AS p (reaction, aggregate, id, version, attempt, own_faults, done)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (reaction, aggregate, id) DO UPDATE SET"
            " version = greatest(p.version, excluded.version), attempt = excluded.attempt,"
            " own_faults = excluded.own_faults, done = greatest(p.done, excluded.done), settled_at = now()",
            (*key, standing.version, standing.attempt, standing.own_faults, standing.done),
        )

    async def _lock(self, key: tuple[str, str, str]) -> bool:
        rows = await self._execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", ("/".join(key),))
        return bool(rows[0][0])

    async def _unlock(self, key: tuple[str, str, str]) -> None:
        """Also when it is unknown whether we got the lock. A session that is gone has unlocked already."""
        if self._connection is None:
            return
        try:
            await self._execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", ("/".join(key),))
        except GateUnavailableError:
            pass
        except asyncio.CancelledError:
            await self._lose()  # whether it is unlocked is unknown; the session's end unlocks it for certain
            raise

    async def _execute(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        async with self._statements:
            try:
                async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                    connection = self._connection or await self._connect()
                    cursor = await connection.execute(statement.encode(), values)
                    return await cursor.fetchall() if cursor.description else []
            except (psycopg.Error, OSError) as error:
                await self._lose()
                raise GateUnavailableError(f"the gate's Postgres does not answer: {error}") from error

    async def _connect(self) -> AsyncConnection[Any]:
        connection = await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
        try:
            # A lost row costs one more look, so no look waits for the disk.
            await connection.execute("SET synchronous_commit = off")
            await _create_tables(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def _watch_session(self) -> None:
        while True:
            heed_cancellation()
            await asyncio.sleep(CHECK_EVERY_S)
            if self._looks:
                with contextlib.suppress(GateUnavailableError):
                    await self._execute("SELECT 1")

    async def _lose(self) -> None:
        """Closes the session and interrupts whatever ran behind its locks."""
        connection, self._connection = self._connection, None
        for look in self._looks:
            if not look.expired():
                look.reschedule(asyncio.get_running_loop().time())
        if connection is not None:
            _log.info("gate_session_closed", interrupted=len(self._looks))
            await connection.close()


async def _create_tables(connection: AsyncConnection[Any]) -> None:
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            await connection.execute(_TABLES)
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateSchema):
            if attempt == CREATE_ATTEMPTS:
                raise
        else:
            return
