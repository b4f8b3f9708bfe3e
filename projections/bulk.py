"""Many rows into Postgres at once: binary COPY, straight into a table or by way of a temporary one.

    copy_rows:  rows ──COPY──> table                              new rows only
    staged:     rows ──COPY──> temporary table ──INSERT ... SELECT──> table, whatever the conflict shall mean

A row costs about 1 us of our time, where a parameter array of the same row costs 10 (every element is escaped in
Python); Postgres, too, is done in a third of the time. The surprising rule: a temporary table is emptied within the
transaction that filled it, so whoever comes next on this connection finds it empty, however the transaction ended.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

MAX_BIGINT = 2**63 - 1

Row = tuple[Any, ...]


async def copy_rows(
    connection: AsyncConnection[Any], table: str, types: Mapping[str, str], rows: Sequence[Row]
) -> None:
    """Adds rows by COPY.

    Args:
        connection: inside a transaction.
        table: its name, found on the search path.
        types: column -> Postgres type, in the order of the rows' values.
        rows: values that fit (see fitting).
    """
    statement = f"COPY {table} ({', '.join(types)}) FROM STDIN (FORMAT binary)"
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(types.values()))
        for row in rows:
            await copy.write_row(row)


@asynccontextmanager
async def staged(
    connection: AsyncConnection[Any], table: str, types: Mapping[str, str], rows: Sequence[Row]
) -> AsyncIterator[str]:
    """Lends the name of a temporary table of the same columns that holds the rows."""
    name = f"staged_{table}"
    await connection.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} (LIKE {table})")
    await copy_rows(connection, name, types, rows)
    yield name
    await connection.execute(f"TRUNCATE {name}")


def fitting(rows: Iterable[Row], types: Mapping[str, str]) -> list[Row]:
    """The rows as Postgres can hold them: numbers cut to a bigint, U+0000 in a text replaced by U+FFFD.

    A name or a provider's words may hold anything, and must not stop everybody's read model. Looking is cheaper than
    rewriting: columns in which all is well stay as they are.
    """
    columns = list(zip(*rows, strict=True))
    for n, kind in enumerate(types.values()):
        if not columns:
            break
        if kind == "bigint":
            columns[n] = _within_bigint(columns[n])
        elif kind == "text" and any(value is not None and "\0" in value for value in columns[n]):
            columns[n] = tuple(value and value.replace("\0", "\ufffd") for value in columns[n])
    return list(zip(*columns, strict=True))


def _within_bigint(column: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if all(value is None or -MAX_BIGINT <= value <= MAX_BIGINT for value in column):
        return column
    return tuple(value if value is None else max(-MAX_BIGINT, min(value, MAX_BIGINT)) for value in column)
