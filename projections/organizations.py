"""Organisations and who belongs to them. A membership that ended keeps its row, with the moment of its end."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import OrganizationId, UserId
from domain.organization import MemberAdded, MemberRemoved, OrganizationCreated, OrganizationEvent
from domain.roles import Role
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE organizations (
    id text PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE memberships (
    organization_id text NOT NULL,
    user_id text NOT NULL,
    role text NOT NULL,
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    PRIMARY KEY (organization_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id)
"""


class OrganizationView(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation as one of its members sees it: `role` is that member's."""

    id: OrganizationId
    name: str
    slug: str
    created_at: datetime
    role: Role
    member_count: int


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role
    joined_at: datetime


class _Organization(msgspec.Struct, frozen=True, kw_only=True):
    id: OrganizationId
    name: str
    slug: str
    created_at: datetime


class _Membership(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId
    user_id: UserId
    role: Role
    joined_at: datetime
    left_at: datetime | None


_organizations = Table("organizations", _Organization, key=("id",))
_memberships = Table("memberships", _Membership, key=("organization_id", "user_id"))

_SEEN_BY_A_MEMBER = """
    SELECT o.*, m.role, (
        SELECT count(*) FROM memberships AS all_of_them WHERE organization_id = o.id AND left_at IS NULL
    ) AS member_count
    FROM organizations AS o JOIN memberships AS m ON m.organization_id = o.id
    WHERE m.user_id = %(user)s AND m.left_at IS NULL
"""


async def list_organizations(connection: Connection, user_id: str) -> list[OrganizationView]:
    """Those that the user belongs to, oldest first, at most MAX_LIST_ROWS."""
    query = f"{_SEEN_BY_A_MEMBER} ORDER BY o.created_at, o.id LIMIT %(rows)s"
    return await find_all(connection, OrganizationView, query, {"user": user_id, "rows": MAX_LIST_ROWS})


async def find_organization(connection: Connection, organization_id: str, user_id: str) -> OrganizationView | None:
    """None for a stranger, as for an organisation that does not exist."""
    query = f"{_SEEN_BY_A_MEMBER} AND o.id = %(organization)s"
    return await find_one(connection, OrganizationView, query, {"user": user_id, "organization": organization_id})


async def find_role(connection: Connection, organization_id: str, user_id: str) -> Role | None:
    """The user's role there, None for a stranger."""
    found = await find_organization(connection, organization_id, user_id)
    return found.role if found else None


async def list_members(connection: Connection, organization_id: str) -> list[MemberView]:
    """Sorted owner, admin, manager, user, then by when they joined."""
    query = """
        SELECT user_id, role, joined_at FROM memberships WHERE organization_id = %s AND left_at IS NULL
        ORDER BY array_position(ARRAY['owner', 'admin', 'manager', 'user'], role), joined_at, user_id LIMIT %s
    """
    return await find_all(connection, MemberView, query, (organization_id, MAX_LIST_ROWS))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    created = [e for e in entries if isinstance(e.event, OrganizationCreated)]
    about_members = [e for e in entries if not isinstance(e.event, OrganizationCreated)]
    await _organizations.put(connection, [_organization(e.event, e) for e in created])
    rows = await _memberships.load(connection, map(_key, about_members))
    for entry in entries:
        event: OrganizationEvent = entry.event
        match event:
            case OrganizationCreated():
                continue
            case MemberAdded():
                rows[_key(entry)] = _member(event, entry)
            case MemberRemoved():
                rows[_key(entry)] = replace(known(rows.get(_key(entry)), entry), left_at=entry.envelope.at)
            case _:
                assert_never(event)
    await _memberships.put(connection, rows.values())


def _key(entry: Entry) -> tuple[str, str]:
    return entry.envelope.id, entry.event.user_id


def _organization(event: OrganizationCreated, entry: Entry) -> _Organization:
    return _Organization(
        id=OrganizationId(entry.envelope.id), name=event.name, slug=event.slug, created_at=entry.envelope.at
    )


def _member(event: MemberAdded, entry: Entry) -> _Membership:
    return _Membership(
        organization_id=OrganizationId(entry.envelope.id),
        user_id=event.user_id,
        role=event.role,
        joined_at=entry.envelope.at,
        left_at=None,
    )


ORGANIZATIONS = Projection("organizations", 1, _TABLES, apply, aggregates=frozenset({"organization"}))
