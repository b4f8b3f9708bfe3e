"""The ledger's rows in Postgres: platform.effects, one row for each deed.

    reaction, event_id, name, key ──> intended | done | refused | unknown, attempts, since when

The surprising rule: unlike its neighbours in this schema, this table waits for the disk. It is no read model: nothing
else knows that a deed with no event of its own was begun, so a row that was lost would be a deed done twice. Rows are
never deleted (some 300 bytes each).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
import psycopg_pool
from psycopg import sql

from handlers.ports import Effect
from infra.effects import EffectRow, EffectsUnavailableError, State
from infra.postgres import new_pool
from projections.projection import Connection

POOL_CONNECTIONS = 4
STATEMENT_TIMEOUT_S = 10
CREATE_ATTEMPTS = 3
"""Two processes that create the schema at once: the second fails, and finds it the next time."""
MAX_LISTED = 1000

_TABLES = """
CREATE SCHEMA IF NOT EXISTS platform;
CREATE TABLE IF NOT EXISTS platform.effects (
    reaction text NOT NULL,
    event_id text NOT NULL,
    name text NOT NULL,
    key text NOT NULL,
    subject text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    intended_at timestamptz NOT NULL,
    ended_at timestamptz,
    detail text NOT NULL,
    PRIMARY KEY (event_id, reaction, name, key)
);
CREATE INDEX IF NOT EXISTS effects_unfinished ON platform.effects (intended_at) WHERE state IN ('intended', 'unknown');
CREATE INDEX IF NOT EXISTS effects_by_time ON platform.effects (intended_at)
"""
_SELECT = sql.SQL(
    "SELECT reaction, event_id, name, key, subject, state, attempts, intended_at, ended_at,"
    " extract(epoch FROM clock_timestamp() - intended_at)::float8, detail FROM platform.effects"
)
_THIS_ROW = sql.SQL("(event_id, reaction, name, key) = (%s, %s, %s, %s)")
_INTEND = (
    "INSERT INTO platform.effects (event_id, reaction, name, key, subject, state, attempts, intended_at, detail)"
    " VALUES (%s, %s, %s, %s, %s, 'intended', 1, clock_timestamp(), '') ON CONFLICT DO NOTHING RETURNING attempts"
)
_INTEND_AGAIN = sql.SQL(
    "UPDATE platform.effects SET state = 'intended', attempts = attempts + 1, intended_at = clock_timestamp(),"
    " ended_at = NULL, detail = '' WHERE {} AND attempts = %s AND state = %s RETURNING attempts"
).format(_THIS_ROW)
_END = sql.SQL("UPDATE platform.effects SET state = %s, detail = %s, ended_at = clock_timestamp() WHERE {}").format(
    _THIS_ROW
)


class EffectTables:
    """Implements infra.effects.EffectRows. Open it with `async with`; it connects by itself, again and again."""

    def __init__(self, postgres_url: str) -> None:
        self._pool = new_pool(
            postgres_url,
            "effects",
            max_size=POOL_CONNECTIONS,
            synchronous_commit="on",
            statement_timeout=f"{STATEMENT_TIMEOUT_S}s",
        )
        self._created = False
        self._creating = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def intend(self, effect: Effect) -> EffectRow | None:
        """See the port."""
        async with self._connection() as connection:
            cursor = await connection.execute(_INTEND, (*_key(effect), effect.subject))
            if await cursor.fetchone() is not None:
                return None
            cursor = await connection.execute(_SELECT + sql.SQL(" WHERE ") + _THIS_ROW, _key(effect))
            return _row(await cursor.fetchone())

    async def intend_again(self, found: EffectRow) -> bool:
        """See the port."""
        async with self._connection() as connection:
            values = (*_key(found.effect), found.attempts, found.state)
            cursor = await connection.execute(_INTEND_AGAIN, values)
            return await cursor.fetchone() is not None

    async def end(self, effect: Effect, state: State, detail: str) -> None:
        """See the port."""
        async with self._connection() as connection:
            await connection.execute(_END, (state, detail, *_key(effect)))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                await connection.set_autocommit(True)
                await self._create_tables(connection)
                yield connection
        except psycopg.errors.UndefinedTable as error:  # a Postgres that was wiped while we ran
            self._created = False
            raise EffectsUnavailableError("the ledger's table is gone; it is created again") from error
        except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed) as error:
            raise EffectsUnavailableError(f"the ledger's Postgres does not answer: {error}") from error

    async def _create_tables(self, connection: Connection) -> None:
        if self._created:
            return
        async with self._creating:
            for attempt in range(1, CREATE_ATTEMPTS + 1):
                try:
                    await connection.execute(_TABLES)
                except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateSchema):
                    if attempt == CREATE_ATTEMPTS:
                        raise
                else:
                    self._created = True
                    return


async def effects_of(connection: Connection, event_ids: Sequence[str]) -> list[EffectRow]:
    """What was done to the world because of these events, in the order in which it was begun; none without a ledger."""
    query = _SELECT + sql.SQL(" WHERE event_id = ANY(%s) ORDER BY intended_at, name, key")
    return await _find(connection, query, (list(event_ids),))


async def list_effects(connection: Connection, *, unfinished: bool = False, limit: int = 100) -> list[EffectRow]:
    """The newest deeds, newest first; `unfinished`: only those of which nobody knows whether they were done."""
    which = sql.SQL(" WHERE state IN ('intended', 'unknown')") if unfinished else sql.SQL("")
    query = _SELECT + which + sql.SQL(" ORDER BY intended_at DESC LIMIT %s")
    return await _find(connection, query, (min(limit, MAX_LISTED),))


async def _find(connection: Connection, query: sql.Composed, values: tuple[object, ...]) -> list[EffectRow]:
    cursor = await connection.execute("SELECT to_regclass('platform.effects') IS NOT NULL")
    if await cursor.fetchone() != (True,):
        return []
    return [_row(row) for row in await (await connection.execute(query, values)).fetchall()]


def _key(effect: Effect) -> tuple[str, str, str, str]:
    return effect.event_id, effect.reaction, effect.name, effect.key


def _row(row: Any) -> EffectRow:
    reaction, event_id, name, key, subject, state, attempts, intended_at, ended_at, age_s, detail = row
    return EffectRow(
        effect=Effect(reaction=reaction, event_id=event_id, name=name, key=key, subject=subject),
        state=state,
        attempts=attempts,
        intended_at=intended_at,
        ended_at=ended_at,
        age_s=age_s,
        detail=detail,
    )
