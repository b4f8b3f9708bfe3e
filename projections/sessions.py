"""Signed-in sessions: each request's cookie or token is checked against one row here."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import OrganizationId, SessionId, UserId
from domain.session import SessionEvent, SessionOpened, SessionRevoked, WorkspaceSwitched
from domain.values import Sealed
from projections.projection import THEIR_USER, Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE sessions (
    id text PRIMARY KEY,
    user_id text NOT NULL,
    organization_id text,
    token_sha256 text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    ip text NOT NULL,
    user_agent text NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id, created_at)
"""


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One session; `organization_id` is its workspace, None for the personal one; `ip` and `user_agent` ciphertext."""

    id: SessionId
    user_id: UserId
    organization_id: OrganizationId | None
    token_sha256: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    ip: Sealed
    user_agent: Sealed

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


_sessions = Table("sessions", SessionView, key=("id",))


async def find_session(connection: Connection, session_id: str) -> SessionView | None:
    """Live or not; ask `is_live(now)`."""
    return await find_one(connection, SessionView, "SELECT * FROM sessions WHERE id = %s", (session_id,))


async def list_sessions(connection: Connection, user_id: str, *, now: datetime) -> list[SessionView]:
    """The user's live sessions, newest first."""
    query = """
        SELECT * FROM sessions WHERE user_id = %s AND revoked_at IS NULL AND expires_at > %s
        ORDER BY created_at DESC, id DESC LIMIT %s
    """
    return await find_all(connection, SessionView, query, (user_id, now, MAX_LIST_ROWS))


async def find_last_session(connection: Connection, user_id: str) -> SessionView | None:
    """The newest session that was not revoked, expired ones too: its workspace is where the user left off."""
    query = """
        SELECT * FROM sessions WHERE user_id = %s AND revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT 1
    """
    return await find_one(connection, SessionView, query, (user_id,))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _sessions.fold(entries, connection, _fold)


def _fold(row: SessionView | None, entry: Entry) -> SessionView:
    event: SessionEvent = entry.event
    match event:
        case SessionOpened():
            return SessionView(
                id=SessionId(entry.envelope.id),
                user_id=event.user_id,
                organization_id=event.organization_id,
                token_sha256=event.token_sha256,
                created_at=entry.envelope.at,
                expires_at=event.expires_at,
                revoked_at=None,
                ip=event.ip,
                user_agent=event.user_agent,
            )
        case WorkspaceSwitched():
            return replace(known(row, entry), organization_id=event.organization_id)
        case SessionRevoked():
            return replace(known(row, entry), revoked_at=entry.envelope.at)
        case _:
            assert_never(event)


SESSIONS = Projection(
    "sessions", 2, _TABLES, apply, aggregates=frozenset({"session"}), visible={"sessions": f"user_id = {THEIR_USER}"}
)
