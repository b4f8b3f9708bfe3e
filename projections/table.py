"""A table whose rows are one frozen struct: loaded by key, folded in memory, written back in one statement.

    entries of a batch ──> SELECT the rows they touch ──> fold ──> INSERT ... SELECT ... ON CONFLICT DO UPDATE

A batch costs a few statements however many events it holds. The struct's fields are the table's columns, by name. Few
rows travel as arrays (one round trip), many by COPY (bulk.py: four round trips, a tenth of the work for each row).
"""
# ruff: noqa: S608 - the SQL is put together from names in our own code; values always travel as parameters

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.inspect import (
    BoolType,
    BytesType,
    DateTimeType,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
    type_info,
)
from psycopg.rows import class_row, scalar_row

from projections.bulk import Row, copy_rows, fitting, staged
from projections.projection import Connection, Entry, LogDamagedError

R = TypeVar("R", bound=msgspec.Struct)

MANY_ROWS = 100
"""From here on COPY is faster than arrays (measured on loopback: even at about 60 rows of 8 columns)."""

_COLUMN_TYPES: Mapping[type[Type], str] = {
    StrType: "text",
    LiteralType: "text",
    IntType: "bigint",
    BoolType: "boolean",
    FloatType: "double precision",
    DateTimeType: "timestamptz",
    BytesType: "bytea",
}


@dataclass(frozen=True)
class Table(Generic[R]):
    """One table of a projection.

    Attributes:
        name: unqualified.
        row: struct with one field a column.
        key: the columns of its primary key, the first fields of `row`.
    """

    name: str
    row: type[R]
    key: tuple[str, ...]

    async def fold(
        self, entries: Sequence[Entry], connection: Connection, step: Callable[[R | None, Entry], R]
    ) -> None:
        """Folds each entry into the row of its aggregate; for tables with one row an aggregate, keyed by its id."""
        rows = await self.load(connection, [(entry.envelope.id,) for entry in entries])
        for entry in entries:
            key = (entry.envelope.id,)
            rows[key] = step(rows.get(key), entry)
        await self.put(connection, rows.values())

    async def load(self, connection: Connection, keys: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], R]:
        """The stored rows of these keys; a key without a row is missing from the answer."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        async with connection.cursor(row_factory=class_row(self.row)) as cursor:
            await cursor.execute(self._select, [list(column) for column in zip(*wanted, strict=True)])
            return {self._key_of(row): row for row in await cursor.fetchall()}

    async def put(self, connection: Connection, rows: Iterable[R]) -> None:
        """Inserts new rows and replaces stored ones; each key at most once."""
        values = self._values(rows)
        if len(values) < MANY_ROWS:
            await self._write(connection, f"{self._insert(self._arrays)} {self._or_replace}", values)
            return
        async with staged(connection, self.name, self._types, values) as name:
            await connection.execute(f"{self._insert(self._from(name))} {self._or_replace}")

    async def add(self, connection: Connection, rows: Iterable[R]) -> None:
        """Inserts new rows; a key that is already stored is an error, for each event is folded once."""
        values = self._values(rows)
        if len(values) < MANY_ROWS:
            await self._write(connection, self._insert(self._arrays), values)
        else:
            await copy_rows(connection, self.name, self._types, values)

    async def add_new(self, connection: Connection, rows: Iterable[R]) -> list[str]:
        """Inserts the rows whose key (of one text column) is not stored yet; returns the keys of those."""
        values = self._values(rows)
        unless_stored = f"ON CONFLICT DO NOTHING RETURNING {', '.join(self.key)}"
        async with connection.cursor(row_factory=scalar_row) as cursor:
            if len(values) < MANY_ROWS:
                if not values:
                    return []
                await cursor.execute(f"{self._insert(self._arrays)} {unless_stored}", _turned(values))
                return await cursor.fetchall()
            async with staged(connection, self.name, self._types, values) as name:
                await cursor.execute(f"{self._insert(self._from(name))} {unless_stored}")
                return await cursor.fetchall()

    async def remove(self, connection: Connection, keys: Iterable[tuple[Any, ...]]) -> None:
        """Deletes the rows of these keys."""
        if wanted := sorted(set(keys)):
            await connection.execute(self._delete, [list(column) for column in zip(*wanted, strict=True)])

    async def _write(self, connection: Connection, statement: str, values: Sequence[Row]) -> None:
        if values:
            await connection.execute(statement, _turned(values))

    def _values(self, rows: Iterable[R]) -> list[Row]:
        return fitting(map(msgspec.structs.astuple, rows), self._types)

    def _key_of(self, row: R) -> tuple[Any, ...]:
        return tuple(getattr(row, column) for column in self.key)

    @cached_property
    def _types(self) -> dict[str, str]:
        """Column -> Postgres type, in the order of the struct's fields."""
        info = type_info(self.row)
        assert isinstance(info, StructType)  # noqa: S101 - what type_info says of a struct; narrows the type
        return {field.name: _column_type(field.type) for field in info.fields}

    @cached_property
    def _select(self) -> str:
        return f"SELECT {', '.join(self._types)} FROM {self.name} {self._where}"

    @cached_property
    def _delete(self) -> str:
        return f"DELETE FROM {self.name} {self._where}"

    @cached_property
    def _where(self) -> str:
        arrays = _arrays(self._types[column] for column in self.key)
        return f"WHERE ({', '.join(self.key)}) IN (SELECT * FROM unnest({arrays}))"

    @cached_property
    def _arrays(self) -> str:
        """Rows that come as one parameter a column."""
        return f"SELECT * FROM unnest({_arrays(self._types.values())})"

    @cached_property
    def _or_replace(self) -> str:
        others = ", ".join(f"{column} = excluded.{column}" for column in self._types if column not in self.key)
        return f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {others}"

    def _from(self, staged_name: str) -> str:
        return f"SELECT {', '.join(self._types)} FROM {staged_name}"

    def _insert(self, rows: str) -> str:
        return f"INSERT INTO {self.name} ({', '.join(self._types)}) {rows}"


def known(row: R | None, entry: Entry) -> R:
    """The row that an earlier event must have begun.

    Raises:
        LogDamagedError: it did not.
    """
    if row is None:
        raise never_begun(entry)
    return row


def never_begun(entry: Entry) -> LogDamagedError:
    return LogDamagedError(entry.position, f"{entry.envelope.type} on {entry.subject}, which was never begun")


def _turned(values: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*values, strict=True)]


def _column_type(field: Type) -> str:
    if isinstance(field, UnionType):
        (field,) = (member for member in field.types if not isinstance(member, NoneType))
    return _COLUMN_TYPES[type(field)]


def _arrays(types: Iterable[str]) -> str:
    return ", ".join(f"%s::{kind}[]" for kind in types)
