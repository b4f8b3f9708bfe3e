"""API keys, as their owners list them: name, shown prefix, when used, when revoked. Only the secret's hash is known.

When a key was last used comes from the read model `usage`, so it may lag behind by what the gateway has in its spool.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace
from psycopg import sql

from domain.api_key import ApiKeyEvent, ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.ids import ApiKeyId, OrganizationId, UserId
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, Direction, find_all, find_one, page_rows
from projections.table import Table, known

_TABLES = """
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    key_prefix text NOT NULL,
    key_sha256 text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at);
CREATE INDEX api_keys_by_hash ON api_keys (key_sha256)
"""

Column = Literal["name", "key_prefix", "created_at", "revoked_at"]


class ApiKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key; `key_prefix` is what may be shown of it."""

    id: ApiKeyId
    organization_id: OrganizationId
    owner: UserId
    name: str
    key_prefix: str
    key_sha256: str
    created_at: datetime
    revoked_at: datetime | None


class ApiKeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows `offset` to `offset + limit`, and how many there are."""

    offset: int
    limit: int
    total_count: int
    rows: list[ApiKeyView]


class _Count(msgspec.Struct, frozen=True):
    count: int


_api_keys = Table("api_keys", ApiKeyView, key=("id",))


async def list_api_keys(
    connection: Connection, organization_id: str, *, owner: str | None = None, revoked: bool = True
) -> list[ApiKeyView]:
    """The organisation's keys, or one owner's, newest first; with the revoked ones unless told otherwise."""
    query = """
        SELECT * FROM api_keys
        WHERE organization_id = %(organization)s AND (%(owner)s::text IS NULL OR owner = %(owner)s)
          AND (revoked_at IS NULL OR %(revoked)s)
        ORDER BY created_at DESC, id DESC LIMIT %(rows)s
    """
    parameters = {"organization": organization_id, "owner": owner, "revoked": revoked, "rows": MAX_LIST_ROWS}
    return await find_all(connection, ApiKeyView, query, parameters)


async def search_api_keys(
    connection: Connection,
    organization_id: str,
    *,
    owner: str | None = None,
    offset: int = 0,
    limit: int = 200,
    sort_by: Column = "created_at",
    sort_dir: Direction = "desc",
) -> ApiKeyPage:
    """One page of the organisation's keys (SPEC 1.4)."""
    where = sql.SQL("organization_id = %(organization)s AND (%(owner)s::text IS NULL OR owner = %(owner)s)")
    order = sql.SQL("{} {}, id").format(sql.Identifier(sort_by), sql.SQL(sort_dir.upper()))
    query = sql.SQL("SELECT * FROM api_keys WHERE {} ORDER BY {} LIMIT %(rows)s OFFSET %(offset)s").format(where, order)
    parameters = {"organization": organization_id, "owner": owner, "rows": page_rows(limit), "offset": max(0, offset)}
    rows = await find_all(connection, ApiKeyView, query, parameters)
    counting = sql.SQL("SELECT count(*) AS count FROM api_keys WHERE {}").format(where)
    counted = await find_one(connection, _Count, counting, parameters)
    return ApiKeyPage(
        offset=max(0, offset), limit=page_rows(limit), total_count=counted.count if counted else 0, rows=rows
    )


async def find_api_key(connection: Connection, organization_id: str, api_key_id: str) -> ApiKeyView | None:
    query = "SELECT * FROM api_keys WHERE organization_id = %s AND id = %s"
    return await find_one(connection, ApiKeyView, query, (organization_id, api_key_id))


async def find_api_key_by_hash(connection: Connection, key_sha256: str) -> ApiKeyView | None:
    """Who presents this key; revoked ones too, so ask `revoked_at`."""
    return await find_one(connection, ApiKeyView, "SELECT * FROM api_keys WHERE key_sha256 = %s LIMIT 1", (key_sha256,))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _api_keys.fold(entries, connection, _fold)


def _fold(row: ApiKeyView | None, entry: Entry) -> ApiKeyView:
    event: ApiKeyEvent = entry.event
    match event:
        case ApiKeyIssued():
            return ApiKeyView(
                id=ApiKeyId(entry.envelope.id),
                organization_id=entry.envelope.organization,
                owner=event.owner,
                name=event.name,
                key_prefix=event.key_prefix,
                key_sha256=event.key_sha256,
                created_at=entry.envelope.at,
                revoked_at=None,
            )
        case ApiKeyRenamed():
            return replace(known(row, entry), name=event.name)
        case ApiKeyRevoked():
            return replace(known(row, entry), revoked_at=entry.envelope.at)
        case _:
            assert_never(event)


API_KEYS = Projection("api_keys", 1, _TABLES, apply, aggregates=frozenset({"api_key"}))
