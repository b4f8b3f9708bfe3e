"""What a read model's tables hold, as one hash a table: the same rows, the same hash, on whichever server.

Rows are read in the order of their primary key, byte by byte, as COPY writes them, with every setting fixed that
changes how a value is written.
"""

from hashlib import sha256

import msgspec
from psycopg import sql
from psycopg.rows import scalar_row

from projections.projection import Connection, Projection

SHOWN_KEYS = 3
"""Of the rows that differ, so many are named."""
_PLAIN = (
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A table whose rows differ.

    Attributes:
        only_living, only_rebuilt: rows that the other one lacks; a changed row counts in both.
        keys: the first of their primary keys, as text.
    """

    table: str
    living_sha256: str
    rebuilt_sha256: str
    only_living: int
    only_rebuilt: int
    keys: tuple[str, ...]


async def table_hashes(connection: Connection, projection: Projection) -> dict[str, str]:
    """Table -> SHA-256 (hex) of its rows. All tables as of one moment only within a transaction that sees one."""
    hashes = {}
    async with connection.transaction():
        for setting in _PLAIN:
            await connection.execute(setting)
        for table in projection.table_names:
            hashes[table] = await _table_hash(connection, projection, table)
    return hashes


async def differences(connection: Connection, living: Projection, rebuilt: Projection) -> tuple[Difference, ...]:
    """The tables that are not the same in both; give it a transaction that sees one moment."""
    of_living, of_rebuilt = await table_hashes(connection, living), await table_hashes(connection, rebuilt)
    return tuple(
        [
            await _difference(connection, living, rebuilt, table, (of_living[table], of_rebuilt[table]))
            for table in of_living
            if of_living[table] != of_rebuilt[table]
        ]
    )


async def _table_hash(connection: Connection, projection: Projection, table: str) -> str:
    place = sql.Identifier(projection.schema, table)
    key = await _key_of(connection, projection, table)
    order = sql.SQL(", ").join(
        sql.SQL('{} COLLATE "C"').format(sql.Identifier(column)) if kind == "text" else sql.Identifier(column)
        for column, kind in key.items()
    )
    rows = sha256()
    query = sql.SQL("COPY (SELECT * FROM {} ORDER BY {}) TO STDOUT").format(place, order)
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        async for data in copy:
            rows.update(data)
    return rows.hexdigest()


async def _key_of(connection: Connection, projection: Projection, table: str) -> dict[str, str]:
    """The columns of the primary key, with their types; of all columns, where a table has none."""
    query = """
        SELECT a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute AS a LEFT JOIN pg_index AS i ON i.indrelid = a.attrelid AND i.indisprimary
        WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
          AND (i.indrelid IS NULL OR a.attnum = ANY(i.indkey))
        ORDER BY array_position(i.indkey::int2[], a.attnum), a.attnum
    """
    columns = await connection.execute(query, (f"{projection.schema}.{table}",))
    return dict(await columns.fetchall())


async def _difference(
    connection: Connection, living: Projection, rebuilt: Projection, table: str, hashes: tuple[str, str]
) -> Difference:
    ours, theirs = sql.Identifier(living.schema, table), sql.Identifier(rebuilt.schema, table)
    key = await _key_of(connection, living, table)
    names = sql.SQL(", ").join(map(sql.Identifier, key))

    async def missing(here: sql.Identifier, there: sql.Identifier) -> tuple[int, list[str]]:
        lost = sql.SQL("(SELECT * FROM {} EXCEPT ALL SELECT * FROM {}) AS lost").format(here, there)
        async with connection.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(lost))
            count = int(await cursor.fetchone() or 0)
            shown = sql.SQL("SELECT concat_ws('/', {}) FROM {} LIMIT {}").format(names, lost, SHOWN_KEYS)
            await cursor.execute(shown)
            return count, await cursor.fetchall()

    only_living, keys = await missing(ours, theirs)
    only_rebuilt, more_keys = await missing(theirs, ours)
    return Difference(
        table=table,
        living_sha256=hashes[0],
        rebuilt_sha256=hashes[1],
        only_living=only_living,
        only_rebuilt=only_rebuilt,
        keys=tuple(dict.fromkeys([*keys, *more_keys]))[:SHOWN_KEYS],
    )
