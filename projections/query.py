"""Reading rows as frozen structs, and pages of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from psycopg import sql
from psycopg.rows import kwargs_row

from projections.projection import Connection

R = TypeVar("R")

MAX_PAGE_ROWS = 500
"""SPEC 1.4's most rows in one page of a search."""
MAX_LIST_ROWS = 1000
"""Most rows in a list without pages; who has more searches."""

Direction = Literal["asc", "desc"]
Query = str | sql.SQL | sql.Composed
Parameters = Mapping[str, Any] | Sequence[Any]


async def find_all(
    connection: Connection, make: Callable[..., R], query: Query, parameters: Parameters = ()
) -> list[R]:
    """Runs a query and makes each row with its columns as keyword arguments, most often by a struct's own type."""
    async with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchall()


async def find_one(
    connection: Connection, make: Callable[..., R], query: Query, parameters: Parameters = ()
) -> R | None:
    """The first row, or None."""
    async with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchone()


def page_rows(limit: int) -> int:
    """The asked number of rows, within 1 and MAX_PAGE_ROWS."""
    return max(1, min(limit, MAX_PAGE_ROWS))
