"""Users, as they sign in: found by a keyed digest of their username or e-mail address, or by a reset link's hash.

Personal data stay sealed; only the vault opens them. The surprising rule: a forgotten user keeps an emptied row, which
no query of this file finds.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec import structs
from msgspec.structs import replace

from domain.ids import UserId
from domain.user import (
    AccountPlanChanged,
    PasswordResetRequested,
    PasswordSet,
    PlatformRole,
    PlatformRoleChanged,
    ProfileUpdated,
    UserCreated,
    UserEvent,
    UserForgotten,
)
from domain.values import Digest, Plan, Sealed
from projections.projection import THEIR_USER, Connection, Entry, Projection
from projections.query import find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE users (
    id text PRIMARY KEY,
    username text NOT NULL,
    username_digest text NOT NULL,
    email text NOT NULL,
    email_digest text NOT NULL,
    first_name text NOT NULL,
    last_name text NOT NULL,
    role text NOT NULL,
    plan text NOT NULL,
    has_password boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    reset_token_sha256 text NOT NULL,
    reset_expires_at timestamptz,
    forgotten_at timestamptz
);
CREATE INDEX users_by_username ON users (username_digest);
CREATE INDEX users_by_email ON users (email_digest);
CREATE INDEX users_by_reset_token ON users (reset_token_sha256) WHERE reset_token_sha256 <> '';
CREATE INDEX users_by_age ON users (created_at, id)
"""


NO_DIGEST = Digest("-")
"""Nobody's, for a look-up by one kind of name alone."""


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """One user; `username`, `email` and the names are ciphertext.

    `reset_token_sha256`: of the newest reset link, "" when there is none that was not used.
    """

    id: UserId
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole
    plan: Plan
    has_password: bool
    created_at: datetime
    updated_at: datetime
    reset_token_sha256: str
    reset_expires_at: datetime | None
    forgotten_at: datetime | None


_users = Table("users", UserView, key=("id",))


async def find_user(connection: Connection, user_id: str) -> UserView | None:
    query = "SELECT * FROM users WHERE id = %s AND forgotten_at IS NULL"
    return await find_one(connection, UserView, query, (user_id,))


async def find_users(connection: Connection, user_ids: Sequence[str]) -> dict[str, UserView]:
    """Those of them that exist, by id."""
    query = "SELECT * FROM users WHERE id = ANY(%s) AND forgotten_at IS NULL"
    return {row.id: row for row in await find_all(connection, UserView, query, (list(user_ids),))}


async def find_user_by_digest(
    connection: Connection, *, username_digest: Digest, email_digest: Digest
) -> UserView | None:
    """Who signs in with what was typed: as a username, else as an e-mail address."""
    query = """
        SELECT * FROM users
        WHERE (username_digest = %(username)s OR email_digest = %(email)s) AND forgotten_at IS NULL
        ORDER BY username_digest = %(username)s DESC LIMIT 1
    """
    return await find_one(connection, UserView, query, {"username": username_digest, "email": email_digest})


async def find_user_by_reset_token(connection: Connection, token_sha256: str) -> UserView | None:
    """Whose newest reset link this is; it may have expired."""
    query = "SELECT * FROM users WHERE reset_token_sha256 = %s AND reset_token_sha256 <> ''"
    return await find_one(connection, UserView, query, (token_sha256,))


async def list_users(connection: Connection, *, rows: int) -> list[UserView]:
    """The newest users, newest first, at most `rows`."""
    query = "SELECT * FROM users WHERE forgotten_at IS NULL ORDER BY created_at DESC, id DESC LIMIT %s"
    return await find_all(connection, UserView, query, (rows,))


async def count_users(connection: Connection) -> int:
    cursor = await connection.execute("SELECT count(*) FROM users WHERE forgotten_at IS NULL")
    [count] = await cursor.fetchone() or (0,)
    return int(count)


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _users.fold(entries, connection, _fold)


def _fold(row: UserView | None, entry: Entry) -> UserView:
    event: UserEvent = entry.event
    if isinstance(event, UserCreated):
        return _created(event, entry)
    return replace(_changed(known(row, entry), event, entry.envelope.at), updated_at=entry.envelope.at)


def _created(event: UserCreated, entry: Entry) -> UserView:
    return UserView(
        id=UserId(entry.envelope.id),
        username=event.username,
        username_digest=event.username_digest,
        email=event.email,
        email_digest=event.email_digest,
        first_name=event.first_name,
        last_name=event.last_name,
        role=event.role,
        plan="free",
        has_password=False,
        created_at=entry.envelope.at,
        updated_at=entry.envelope.at,
        reset_token_sha256="",
        reset_expires_at=None,
        forgotten_at=None,
    )


def _changed(row: UserView, event: UserEvent, at: datetime) -> UserView:
    match event:
        case UserCreated():
            return row  # begins a row; see _created
        case PasswordSet():
            return replace(row, has_password=True, **_NO_RESET)
        case ProfileUpdated():
            moved = row if row.email_digest == event.email_digest else replace(row, **_NO_RESET)
            return replace(moved, **structs.asdict(event))
        case PlatformRoleChanged():
            return replace(row, role=event.role)
        case AccountPlanChanged():
            return replace(row, plan=event.plan)
        case PasswordResetRequested():
            return replace(row, reset_token_sha256=event.token_sha256, reset_expires_at=event.expires_at)
        case UserForgotten():
            return replace(row, **_NOTHING_PERSONAL, forgotten_at=at)
        case _:
            assert_never(event)


_NO_RESET: dict[str, Any] = {"reset_token_sha256": "", "reset_expires_at": None}
_NOTHING_PERSONAL: dict[str, Any] = {
    "username": "",
    "username_digest": "",
    "email": "",
    "email_digest": "",
    "first_name": "",
    "last_name": "",
    "role": "user",
    "has_password": False,
    **_NO_RESET,
}

USERS = Projection("users", 2, _TABLES, apply, aggregates=frozenset({"user"}), visible={"users": f"id = {THEIR_USER}"})
