"""How far each projection has read its stream: one row each, moved in the transaction of the rows that it stands for.

    UPDATE ... WHERE position = previous      hits one row: we are the writer      hits none: another one is active

The row is a fence and a lock in one: it is moved first, so a second writer waits there, finds the position changed, and
has written nothing. Each move is announced on a Postgres channel, so that readers wait without asking again and again.
One that begins while the stream is long already is not shown before it has reached where the stream ended then.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg import sql
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
    shown_from bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (name, version)
) WITH (fillfactor = 50)
"""
NEWER_COLUMNS = {"shown_from": "bigint NOT NULL DEFAULT 0"}
"""Those that an older release's table lacks; they are added where they are missing."""
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

_BEGIN = sql.SQL("""
BEGIN;
UPDATE platform.checkpoints SET position = {position}, updated_at = now()
WHERE name = {name} AND version = {version} AND position = {previous}
RETURNING pg_notify('projections', name || '_v' || version || ' ' || position)
""")


class Checkpoint(msgspec.Struct, frozen=True):
    """One row.

    Attributes:
        updated_at: when it last moved.
        shown_from: where its stream ended when its tables were made; before that position they are being built.
    """

    name: str
    version: int
    position: int
    updated_at: datetime
    shown_from: int = 0

    @property
    def schema(self) -> str:
        return f"{self.name}_v{self.version}"

    @property
    def built_percent(self) -> int:
        """100 as soon as readers may see it."""
        return 100 if self.position >= self.shown_from else 100 * self.position // self.shown_from


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


async def begin(connection: Connection, wanted: Move) -> bool:
    """Begins a transaction, and with it moves and announces one checkpoint: one round trip for both.

    Args:
        connection: in autocommit; the caller commits.
        wanted: the step. Its values stand in the text, since two statements in one message take no parameters.

    Returns: False when the checkpoint was not at its `previous` position.
    """
    query = _BEGIN.format(
        name=sql.Literal(wanted.projection.name),
        version=sql.Literal(wanted.projection.version),
        previous=sql.Literal(wanted.previous),
        position=sql.Literal(wanted.position),
    )
    async with connection.cursor() as cursor:
        await cursor.execute(query, prepare=False)
        cursor.nextset()
        return cursor.rowcount == 1


async def position_of(connection: Connection, projection: Projection) -> int:
    """Up to where the projection's rows are complete."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT position FROM platform.checkpoints WHERE name = %s AND version = %s",
            (projection.name, projection.version),
        )
        return int(await cursor.fetchone() or 0)


async def shown_from(connection: Connection, projection: Projection) -> int:
    """Position from which on readers may see the projection's tables."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT shown_from FROM platform.checkpoints WHERE name = %s AND version = %s",
            (projection.name, projection.version),
        )
        return int(await cursor.fetchone() or 0)


async def create_table(connection: Connection) -> None:
    """The table of checkpoints, with every column of today; call it under a lock of your own."""
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    await connection.execute(TABLES)
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'platform.checkpoints'::regclass AND NOT attisdropped"
        )
        missing = NEWER_COLUMNS.keys() - set(await cursor.fetchall())
    for column in sorted(missing):  # ALTER TABLE shuts everybody out for a moment, even where it has nothing to do
        await connection.execute(f"ALTER TABLE platform.checkpoints ADD COLUMN {column} {NEWER_COLUMNS[column]}")


async def list_checkpoints(connection: Connection) -> list[Checkpoint]:
    """All of them, superseded versions included; lag = the stream's head - position."""
    async with connection.cursor(row_factory=class_row(Checkpoint)) as cursor:
        await cursor.execute(
            "SELECT name, version, position, updated_at, shown_from FROM platform.checkpoints ORDER BY 1, 2"
        )
        return await cursor.fetchall()
