"""Invitations into organisations, found by their organisation or by the hash of their token.

    pending ──> accepted | revoked        pending and past its hour: expired, which nobody has to record

An organisation's deletion revokes what is pending. The address is sealed, and its digest is there to compare.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import InvitationId, OrganizationId, UserId
from domain.organization import InvitationAccepted, InvitationRevoked, MemberInvited, OrganizationDeleted
from domain.roles import Role
from domain.values import Digest, Sealed
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE invitations (
    organization_id text NOT NULL,
    id text NOT NULL,
    email text NOT NULL,
    email_digest text NOT NULL,
    role text NOT NULL,
    token_sha256 text NOT NULL,
    invited_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by text,
    revoked_at timestamptz,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX invitations_by_organization ON invitations (organization_id, created_at);
CREATE INDEX invitations_by_token ON invitations (token_sha256);
CREATE INDEX invitations_by_email ON invitations (email_digest)
"""

State = Literal["pending", "accepted", "revoked", "expired"]


class InvitationView(msgspec.Struct, frozen=True, kw_only=True):
    """One invitation; `email` is ciphertext, sealed under the invitation's own id."""

    organization_id: OrganizationId
    id: InvitationId
    email: Sealed
    email_digest: Digest
    role: Role
    token_sha256: str
    invited_by: UserId
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    accepted_by: UserId | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> State:
        if self.accepted_at is not None:
            return "accepted"
        if self.revoked_at is not None:
            return "revoked"
        return "pending" if now < self.expires_at else "expired"


_invitations = Table("invitations", InvitationView, key=("organization_id", "id"))
_CHANGED_BY = (MemberInvited, InvitationRevoked, InvitationAccepted)


async def list_invitations(connection: Connection, organization_id: str) -> list[InvitationView]:
    """The organisation's, newest first, at most MAX_LIST_ROWS."""
    query = "SELECT * FROM invitations WHERE organization_id = %s ORDER BY created_at DESC, id LIMIT %s"
    return await find_all(connection, InvitationView, query, (organization_id, MAX_LIST_ROWS))


async def find_invitation_by_token(connection: Connection, token_sha256: str) -> InvitationView | None:
    """Whoever has the token may see it, a member or not."""
    query = "SELECT * FROM invitations WHERE token_sha256 = %s"
    return await find_one(connection, InvitationView, query, (token_sha256,))


async def list_invitations_to(connection: Connection, email_digest: Digest, *, offset: int = 0) -> list[InvitationView]:
    """All that were ever sent to an address, by whichever organisation, newest first; MAX_LIST_ROWS after `offset`."""
    query = "SELECT * FROM invitations WHERE email_digest = %s ORDER BY created_at DESC, id LIMIT %s OFFSET %s"
    return await find_all(connection, InvitationView, query, (email_digest, MAX_LIST_ROWS, offset))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    own = [entry for entry in entries if isinstance(entry.event, _CHANGED_BY)]
    rows = await _invitations.load(connection, [_key(entry) for entry in own])
    for entry in own:
        rows[_key(entry)] = _next_row(rows.get(_key(entry)), entry)
    await _invitations.put(connection, rows.values())
    for entry in entries:
        if isinstance(entry.event, OrganizationDeleted):  # nothing can follow it, so the end of the batch is right
            await connection.execute(
                "UPDATE invitations SET revoked_at = %s "
                "WHERE organization_id = %s AND accepted_at IS NULL AND revoked_at IS NULL",
                (entry.envelope.at, entry.envelope.id),
            )


def _key(entry: Entry) -> tuple[str, str]:
    return entry.envelope.id, entry.event.invitation_id


def _next_row(row: InvitationView | None, entry: Entry) -> InvitationView:
    event: MemberInvited | InvitationRevoked | InvitationAccepted = entry.event
    match event:
        case MemberInvited():
            return InvitationView(
                organization_id=OrganizationId(entry.envelope.id),
                id=event.invitation_id,
                email=event.email,
                email_digest=event.email_digest,
                role=event.role,
                token_sha256=event.token_sha256,
                invited_by=event.invited_by,
                created_at=entry.envelope.at,
                expires_at=event.expires_at,
                accepted_at=None,
                accepted_by=None,
                revoked_at=None,
            )
        case InvitationRevoked():
            return replace(known(row, entry), revoked_at=entry.envelope.at)
        case InvitationAccepted():
            return replace(known(row, entry), accepted_at=entry.envelope.at, accepted_by=event.user_id)
        case _:
            assert_never(event)


INVITATIONS = Projection("invitations", 1, _TABLES, apply, aggregates=frozenset({"organization"}))
