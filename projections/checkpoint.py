"""How far each projection has read its stream: one row each, moved in the transaction of the rows that it stands for.

    UPDATE ... WHERE position = previous      hits one row: we are the writer      hits none: another one is active

The row is a fence and a lock in one: it is moved first, so a second writer waits there, finds the position changed, and
has written nothing. Each move is announced on a Postgres channel, so that readers wait without asking again and again.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg.rows import class_row, scalar_row

from projections.projection import Connection, Projection

CHANNEL = "projections"
"""Payload of a notification: one line "<schema> <position>" for each checkpoint that moved."""

SCHEMA = "platform"
TABLES = """
CREATE TABLE IF NOT EXISTS platform.checkpoints (
    name text NOT NULL,
    version integer NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    tables_sha256 text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
) WITH (fillfactor = 50)
"""
# Half-empty pages keep the ever-changing row updates in place (HOT): no index entry a move, no vacuum to wait for.

MOVE = """
WITH wanted AS (
    SELECT * FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[]) AS w (name, version, previous, position)
), moved AS (
    UPDATE platform.checkpoints AS c SET position = w.position, updated_at = now() FROM wanted AS w
    WHERE c.name = w.name AND c.version = w.version AND c.position = w.previous
    RETURNING c.name || '_v' || c.version AS schema, c.position
), announced AS (
    SELECT pg_notify('projections', string_agg(schema || ' ' || position, E'\\n')) FROM moved HAVING count(*) > 0
)
SELECT schema FROM moved LEFT JOIN announced ON true
"""


class Checkpoint(msgspec.Struct, frozen=True):
    """`updated_at` is when it last moved."""

    name: str
    version: int
    position: int
    updated_at: datetime


class Move(msgspec.Struct, frozen=True):
    """One checkpoint's step, valid only from `previous`."""

    projection: Projection
    previous: int
    position: int


async def move(connection: Connection, moves: Sequence[Move]) -> set[str]:
    """Moves and announces checkpoints in one statement; returns the schemas of those that moved.

    A schema that is missing from the answer has another writer, or was not at its `previous` position.
    """
    columns = (
        [m.projection.name for m in moves],
        [m.projection.version for m in moves],
        [m.previous for m in moves],
        [m.position for m in moves],
    )
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(MOVE, columns)
        return set(await cursor.fetchall())


async def position_of(connection: Connection, projection: Projection) -> int:
    """Up to where the projection's rows are complete."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT position FROM platform.checkpoints WHERE name = %s AND version = %s",
            (projection.name, projection.version),
        )
        return int(await cursor.fetchone() or 0)


async def list_checkpoints(connection: Connection) -> list[Checkpoint]:
    """All of them, superseded versions included; lag = the stream's head - position."""
    async with connection.cursor(row_factory=class_row(Checkpoint)) as cursor:
        await cursor.execute("SELECT name, version, position, updated_at FROM platform.checkpoints ORDER BY 1, 2")
        return await cursor.fetchall()
