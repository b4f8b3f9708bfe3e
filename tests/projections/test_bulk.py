"""Rows by COPY and rows as arrays: the same rows, whatever a stranger wrote into them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

import projections.table
from infra.postgres import connect
from projections.bulk import MAX_BIGINT
from projections.projection import Connection
from projections.table import Table
from tests.given import NOON

DDL = """
CREATE TABLE things (
    id text PRIMARY KEY, n bigint, share double precision, good boolean NOT NULL, at timestamptz, data bytea NOT NULL
)
"""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    n: int | None = 1
    share: float | None = 0.5
    good: bool = True
    at: datetime | None = NOON
    data: bytes = b"\x00\xff"


things = Table("things", Thing, key=("id",))

STRANGE = [
    Thing(id="plain"),
    Thing(id="empty", n=None, share=None, good=False, at=None, data=b""),
    Thing(id="zero\0byte"),
    Thing(id="a\ttab, a \\ and a\nline", at=NOON + timedelta(microseconds=1)),
    Thing(id="too large", n=2**80),
    Thing(id="too small", n=-(2**80)),
]


@pytest.fixture(params=["arrays", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the rows travel."""
    monkeypatch.setattr(projections.table, "MANY_ROWS", 1 if request.param == "copy" else 1_000)
    return str(request.param)


@asynccontextmanager
async def a_table(postgres_url: str) -> AsyncIterator[Connection]:
    async with await connect(postgres_url, "test") as connection:
        await connection.execute(DDL)
        yield connection
        await connection.rollback()


async def stored(connection: Connection) -> dict[str, Any]:
    rows = await connection.execute("SELECT * FROM things")
    return {row[0]: row[1:] for row in await rows.fetchall()}


@pytest.mark.usefixtures("way")
async def test_a_row_is_stored_as_it_is_or_as_postgres_can_hold_it(postgres_url: str) -> None:
    async with a_table(postgres_url) as connection:
        await things.add(connection, STRANGE)
        rows = await stored(connection)
    assert rows["plain"] == (1, 0.5, True, NOON, b"\x00\xff")
    assert rows["empty"] == (None, None, False, None, b"")
    assert rows["a\ttab, a \\ and a\nline"][3] == NOON + timedelta(microseconds=1)
    assert (rows["too large"][0], rows["too small"][0]) == (MAX_BIGINT, -MAX_BIGINT)
    assert "zero\N{REPLACEMENT CHARACTER}byte" in rows


@pytest.mark.usefixtures("way")
async def test_put_replaces_and_add_refuses_what_is_there(postgres_url: str) -> None:
    async with a_table(postgres_url) as connection:
        await things.put(connection, [Thing(id="a"), Thing(id="b")])
        await things.put(connection, [Thing(id="b", n=7), Thing(id="c")])
        assert {key: row[0] for key, row in (await stored(connection)).items()} == {"a": 1, "b": 7, "c": 1}
        assert await things.load(connection, [("b",), ("d",)]) == {("b",): Thing(id="b", n=7)}
        with pytest.raises(psycopg.errors.UniqueViolation):
            await things.add(connection, [Thing(id="c")])


@pytest.mark.usefixtures("way")
async def test_only_new_rows_are_added_and_named(postgres_url: str) -> None:
    async with a_table(postgres_url) as connection:
        assert await things.add_new(connection, []) == []
        assert await things.add_new(connection, [Thing(id="a"), Thing(id="b")]) == ["a", "b"]
        assert await things.add_new(connection, [Thing(id="b", n=7), Thing(id="c")]) == ["c"]
        assert (await stored(connection))["b"][0] == 1


@pytest.mark.usefixtures("way")
async def test_a_transaction_that_was_taken_back_leaves_nothing_for_the_next(postgres_url: str) -> None:
    async with await connect(postgres_url, "test", autocommit=True) as connection:
        await connection.execute(DDL)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await _put_then_fail(connection)
        async with connection.transaction():
            await things.put(connection, [Thing(id="c")])
        assert list(await stored(connection)) == ["c"]


async def _put_then_fail(connection: Connection) -> None:
    async with connection.transaction():
        await things.put(connection, [Thing(id="a"), Thing(id="b")])
        await things.add(connection, [Thing(id="b")])
