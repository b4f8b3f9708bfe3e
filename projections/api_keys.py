"""API keys, as those who may see them list them: name, shown prefix, scope, flags, when revoked. Of a secret only the
hash is known.

A key belongs to a person (`owner`) or, without one, to its organisation, whose members all see it. When a key was last
used comes from the read model `usage`, so it may lag behind by what the gateway has in its spool.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, assert_never

import msgspec
from msgspec.structs import replace
from psycopg import sql

from domain.activation import Activation, activation_with, with_flag
from domain.api_key import (
    ApiKeyActivated,
    ApiKeyDeactivated,
    ApiKeyEvent,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRotated,
    ApiKeyScopeChanged,
)
from domain.ids import ApiKeyId, OrganizationId, UserId
from domain.key_scope import KeyScope
from projections.fingerprint import fingerprint
from projections.flags import FLAG_COLUMNS, NEVER_CHANGED, FlagChanges, changes_in, changes_of
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, Direction, find_all, find_one, page_rows
from projections.table import Table, known

_TABLES = f"""
-- scope holds {fingerprint(KeyScope)}
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    owner text,
    created_by text NOT NULL,
    made_by_key text,
    name text NOT NULL,
    key_prefix text NOT NULL,
    key_sha256 text NOT NULL,
    previous_sha256 text,
    previous_valid_until timestamptz,
    scope bytea NOT NULL,
    technical boolean NOT NULL,
    economic boolean NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    {FLAG_COLUMNS}
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at);
CREATE INDEX api_keys_by_hash ON api_keys (key_sha256);
CREATE INDEX api_keys_by_maker ON api_keys (made_by_key) WHERE made_by_key IS NOT NULL;
CREATE INDEX api_keys_by_previous_hash ON api_keys (previous_sha256) WHERE previous_sha256 IS NOT NULL
"""

Column = Literal["name", "key_prefix", "created_at", "last_used_at", "revoked_at"]


class ApiKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key; `key_prefix` is what may be shown of it.

    Attributes:
        owner: whose it is; None: the organisation's own.
        created_by: the person who made it, or who made the key that made it.
        made_by_key: the key that made it; None: a person did.
        previous_valid_until: up to when the secret before the last rotation works.
    """

    id: ApiKeyId
    organization_id: OrganizationId
    owner: UserId | None
    created_by: UserId
    made_by_key: ApiKeyId | None
    name: str
    key_prefix: str
    scope: KeyScope
    activation: Activation
    flag_changes: FlagChanges
    previous_valid_until: datetime | None
    created_at: datetime
    revoked_at: datetime | None


class ApiKeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows `offset` to `offset + limit` of the `filtered_count` that were asked for, of `total_count`."""

    offset: int
    limit: int
    total_count: int
    filtered_count: int
    rows: list[ApiKeyView]


class _ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    id: ApiKeyId
    organization_id: OrganizationId
    owner: UserId | None
    created_by: UserId
    made_by_key: ApiKeyId | None
    name: str
    key_prefix: str
    key_sha256: str
    previous_sha256: str | None
    previous_valid_until: datetime | None
    scope: bytes
    technical: bool
    economic: bool
    created_at: datetime
    revoked_at: datetime | None
    technical_by: str
    technical_at: datetime | None
    economic_by: str
    economic_at: datetime | None

    @property
    def activation(self) -> Activation:
        return Activation(technical=self.technical, economic=self.economic)


class _Counts(msgspec.Struct, frozen=True):
    total: int
    filtered: int


_api_keys = Table("api_keys", _ApiKey, key=("id",))
_scopes: msgspec.json.Decoder[KeyScope] = msgspec.json.Decoder(KeyScope)
_COLUMNS = sql.SQL(", ").join(sql.Identifier("api_keys", column) for column in _ApiKey.__struct_fields__)
_SEEN = sql.SQL("""
    organization_id = %(organization)s AND (%(seen_by)s::text IS NULL OR owner IS NULL OR owner = %(seen_by)s)
""")
_WANTED = sql.SQL("(%(revoked)s::boolean IS NULL OR (revoked_at IS NOT NULL) = %(revoked)s)")


_NEWEST_FIRST = sql.SQL("created_at DESC, id DESC")
_PAGE = """
    SELECT {columns} FROM api_keys
    LEFT JOIN unnest(%(used_ids)s::text[], %(used_ats)s::timestamptz[]) AS used (key_id, last_used_at) ON key_id = id
    WHERE {seen} AND {wanted} ORDER BY {order} LIMIT %(rows)s OFFSET %(offset)s
"""
_COUNT = "SELECT count(*) AS total, count(*) FILTER (WHERE {wanted}) AS filtered FROM api_keys WHERE {seen}"


async def list_api_keys(
    connection: Connection, organization_id: str, *, seen_by: str | None = None, revoked: bool | None = None
) -> list[ApiKeyView]:
    """The newest MAX_LIST_ROWS keys; the arguments are those of search_api_keys."""
    parameters = _parameters(organization_id, seen_by, revoked)
    return await _page(connection, {**parameters, "rows": MAX_LIST_ROWS, "offset": 0}, _NEWEST_FIRST)


async def search_api_keys(
    connection: Connection,
    organization_id: str,
    *,
    seen_by: str | None = None,
    revoked: bool | None = None,
    offset: int = 0,
    limit: int = 200,
    sort_by: Column = "created_at",
    sort_dir: Direction = "desc",
    last_uses: Mapping[str, datetime] | None = None,
) -> ApiKeyPage:
    """One page of keys (SPEC 1.4); one without a value in `sort_by` comes last.

    Args:
        connection: a reader's.
        organization_id: whose keys.
        seen_by: only this user's own and the organisation's; None: everybody's.
        revoked: only those that are, or only those that are not; None: both.
        offset: rows to leave out.
        limit: rows of the page.
        sort_by: a column.
        sort_dir: its direction.
        last_uses: key id -> when it was used, from the read model `usage`; for sorting by it.
    """
    parameters = _parameters(organization_id, seen_by, revoked, last_uses or {})
    window = {"rows": page_rows(limit), "offset": max(0, offset)}
    order = sql.SQL("{} {direction} NULLS LAST, id {direction}").format(
        sql.Identifier(sort_by), direction=sql.SQL(sort_dir.upper())
    )
    rows = await _page(connection, {**parameters, **window}, order)
    counting = sql.SQL(_COUNT).format(seen=_SEEN, wanted=_WANTED)
    counts = await find_one(connection, _Counts, counting, parameters) or _Counts(0, 0)
    return ApiKeyPage(
        offset=window["offset"],
        limit=window["rows"],
        total_count=counts.total,
        filtered_count=counts.filtered,
        rows=rows,
    )


def _parameters(
    organization_id: str, seen_by: str | None, revoked: bool | None, last_uses: Mapping[str, datetime] | None = None
) -> dict[str, Any]:
    uses = last_uses or {}
    return {
        "organization": organization_id,
        "seen_by": seen_by,
        "revoked": revoked,
        "used_ids": list(uses),
        "used_ats": list(uses.values()),
    }


async def _page(connection: Connection, parameters: Mapping[str, Any], order: sql.Composable) -> list[ApiKeyView]:
    query = sql.SQL(_PAGE).format(columns=_COLUMNS, seen=_SEEN, wanted=_WANTED, order=order)
    return await find_all(connection, _view, query, parameters)


async def find_api_key(connection: Connection, organization_id: str, api_key_id: str) -> ApiKeyView | None:
    query = sql.SQL("SELECT {} FROM api_keys WHERE organization_id = %s AND id = %s").format(_COLUMNS)
    return await find_one(connection, _view, query, (organization_id, api_key_id))


async def list_made_by(connection: Connection, organization_id: str, api_key_id: str) -> list[ApiKeyId]:
    """The keys that this key made, and those that they made, as far as they are not revoked; at most MAX_LIST_ROWS."""
    query = """
        WITH RECURSIVE made AS (
            SELECT id, revoked_at FROM api_keys
            WHERE organization_id = %(organization)s AND made_by_key = %(key)s
            UNION
            SELECT k.id, k.revoked_at FROM api_keys AS k JOIN made ON k.made_by_key = made.id
            WHERE k.organization_id = %(organization)s
        )
        SELECT id FROM made WHERE revoked_at IS NULL ORDER BY id LIMIT %(rows)s
    """
    parameters = {"organization": organization_id, "key": api_key_id, "rows": MAX_LIST_ROWS}
    return await find_all(connection, _id, query, parameters)


def _id(id: str) -> ApiKeyId:  # noqa: A002 - the column's name
    return ApiKeyId(id)


async def list_owned_keys(connection: Connection, user_id: str) -> list[ApiKeyView]:
    """A person's own keys that are not revoked, in all organisations; at most MAX_LIST_ROWS."""
    query = sql.SQL("SELECT {} FROM api_keys WHERE owner = %s AND revoked_at IS NULL ORDER BY id LIMIT %s")
    return await find_all(connection, _view, query.format(_COLUMNS), (user_id, MAX_LIST_ROWS))


async def find_api_key_by_hash(connection: Connection, key_sha256: str, *, now: datetime) -> ApiKeyView | None:
    """Whose secret this is: the newest, or the one before while it still works. Revoked keys too: ask `revoked_at`."""
    query = sql.SQL("""
        SELECT {} FROM api_keys
        WHERE key_sha256 = %(hash)s OR (previous_sha256 = %(hash)s AND previous_valid_until > %(now)s) LIMIT 1
    """).format(_COLUMNS)
    return await find_one(connection, _view, query, {"hash": key_sha256, "now": now})


def _view(**columns: Any) -> ApiKeyView:
    row = _ApiKey(**columns)
    shown = {name: columns[name] for name in ApiKeyView.__struct_fields__ if name in columns}
    made_of = {"scope": _scopes.decode(row.scope), "activation": row.activation, "flag_changes": changes_in(row)}
    return ApiKeyView(**{**shown, **made_of})


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _api_keys.fold(entries, connection, _fold)


def _fold(row: _ApiKey | None, entry: Entry) -> _ApiKey:
    event: ApiKeyEvent = entry.event
    if isinstance(event, ApiKeyIssued):
        return _issued(event, entry)
    before = known(row, entry)
    match event:
        case ApiKeyRenamed():
            return replace(before, name=event.name)
        case ApiKeyScopeChanged():
            return replace(before, scope=msgspec.json.encode(event.scope))
        case ApiKeyRotated():
            return replace(
                before,
                key_sha256=event.key_sha256,
                key_prefix=event.key_prefix,
                previous_sha256=before.key_sha256,
                previous_valid_until=event.previous_valid_until,
            )
        case ApiKeyActivated():
            return _activated(before, with_flag(before.activation, event.flag, value=True), entry)
        case ApiKeyDeactivated():
            return _activated(before, with_flag(before.activation, event.flag, value=False), entry)
        case ApiKeyRevoked():
            return replace(before, revoked_at=entry.envelope.at)
        case _:
            assert_never(event)


def _issued(event: ApiKeyIssued, entry: Entry) -> _ApiKey:
    actor = entry.envelope.actor
    row = _ApiKey(
        id=ApiKeyId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        owner=event.owner,
        created_by=event.created_by,
        made_by_key=ApiKeyId(actor.removeprefix("key:")) if actor.startswith("key:") else None,
        name=event.name,
        key_prefix=event.key_prefix,
        key_sha256=event.key_sha256,
        previous_sha256=None,
        previous_valid_until=None,
        scope=msgspec.json.encode(event.scope),
        technical=False,
        economic=False,
        created_at=entry.envelope.at,
        revoked_at=None,
        **NEVER_CHANGED,
    )
    return _activated(row, activation_with(event.activated), entry)


def _activated(row: _ApiKey, after: Activation, entry: Entry) -> _ApiKey:
    changes = changes_of(row.activation, after, entry)
    return replace(row, technical=after.technical, economic=after.economic, **changes)


API_KEYS = Projection("api_keys", 3, _TABLES, apply, aggregates=frozenset({"api_key"}))
