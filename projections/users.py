"""Users, as they sign in: found by a keyed digest of their username or e-mail address. Personal data stay sealed; only
the vault opens them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import UserId
from domain.user import PasswordSet, PlatformRole, UserCreated, UserEvent
from domain.values import Digest, Sealed
from projections.projection import Connection, Entry, Projection
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
    has_password boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX users_by_username ON users (username_digest);
CREATE INDEX users_by_email ON users (email_digest)
"""


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """One user; `username`, `email` and the names are ciphertext."""

    id: UserId
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole
    has_password: bool
    created_at: datetime
    updated_at: datetime


_users = Table("users", UserView, key=("id",))


async def find_user(connection: Connection, user_id: str) -> UserView | None:
    return await find_one(connection, UserView, "SELECT * FROM users WHERE id = %s", (user_id,))


async def find_users(connection: Connection, user_ids: Sequence[str]) -> dict[str, UserView]:
    """Those of them that exist, by id."""
    rows = await find_all(connection, UserView, "SELECT * FROM users WHERE id = ANY(%s)", (list(user_ids),))
    return {row.id: row for row in rows}


async def find_user_by_digest(
    connection: Connection, *, username_digest: Digest, email_digest: Digest
) -> UserView | None:
    """Who signs in with what was typed: as a username, else as an e-mail address."""
    query = """
        SELECT * FROM users WHERE username_digest = %(username)s OR email_digest = %(email)s
        ORDER BY username_digest = %(username)s DESC LIMIT 1
    """
    return await find_one(connection, UserView, query, {"username": username_digest, "email": email_digest})


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _users.fold(entries, connection, _fold)


def _fold(row: UserView | None, entry: Entry) -> UserView:
    event: UserEvent = entry.event
    at = entry.envelope.at
    match event:
        case UserCreated():
            return UserView(
                id=UserId(entry.envelope.id),
                username=event.username,
                username_digest=event.username_digest,
                email=event.email,
                email_digest=event.email_digest,
                first_name=event.first_name,
                last_name=event.last_name,
                role=event.role,
                has_password=False,
                created_at=at,
                updated_at=at,
            )
        case PasswordSet():
            return replace(known(row, entry), has_password=True, updated_at=at)
        case _:
            assert_never(event)


USERS = Projection("users", 1, _TABLES, apply, aggregates=frozenset({"user"}))
