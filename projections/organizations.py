"""Organisations and who belongs to them. A membership that ended keeps its row, with the moment of its end.

An organisation that was deleted keeps its row too; as nobody belongs to it any more, no member's query finds it. The
surprising rule: the number of members is stored and not counted, for a member may see fewer rows than there are.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec.structs import asdict, replace

from domain.ids import OrganizationId, UserId
from domain.limits import UNLIMITED, OrganizationLimits
from domain.organization import (
    InvitationAccepted,
    InvitationRevoked,
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationEvent,
    OrganizationLimitsChanged,
    OrganizationPlanChanged,
    OrganizationRenamed,
    SidebarColorChosen,
)
from domain.roles import RANKS, Role
from domain.values import Plan
from projections.projection import THEIR_ORGANIZATION, THEIR_USER, Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE organizations (
    id text PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL,
    sidebar_color text NOT NULL,
    plan text NOT NULL,
    requests_per_minute bigint,
    tokens_per_minute bigint,
    concurrency bigint,
    spend_limit_eur_micros_per_month bigint,
    max_completion_tokens bigint,
    member_count bigint NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
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
    """An organisation as one of its members sees it: `role` is that member's. `sidebar_color` is "" or #rrggbb."""

    id: OrganizationId
    name: str
    slug: str
    sidebar_color: str
    plan: Plan
    created_at: datetime
    role: Role
    member_count: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    spend_limit_eur_micros_per_month: int | None
    max_completion_tokens: int | None

    @property
    def limits(self) -> OrganizationLimits:
        return _limits(self)


class OrganizationProfile(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation as the platform sees it."""

    id: OrganizationId
    name: str
    slug: str
    plan: Plan
    member_count: int
    created_at: datetime
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    spend_limit_eur_micros_per_month: int | None
    max_completion_tokens: int | None

    @property
    def limits(self) -> OrganizationLimits:
        return _limits(self)


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role
    joined_at: datetime


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """One user in one organisation."""

    user_id: UserId
    role: Role
    organization_id: OrganizationId
    name: str
    slug: str


class _Organization(msgspec.Struct, frozen=True, kw_only=True):
    id: OrganizationId
    name: str
    slug: str
    sidebar_color: str
    plan: Plan
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    spend_limit_eur_micros_per_month: int | None
    max_completion_tokens: int | None
    member_count: int
    created_at: datetime
    deleted_at: datetime | None


class _Membership(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId
    user_id: UserId
    role: Role
    joined_at: datetime
    left_at: datetime | None


class _Member(msgspec.Struct, frozen=True):
    user_id: UserId


_organizations = Table("organizations", _Organization, key=("id",))
_memberships = Table("memberships", _Membership, key=("organization_id", "user_id"))

_LIMITS = OrganizationLimits.__struct_fields__
_SEEN_BY_A_MEMBER = f"""
    SELECT o.id, o.name, o.slug, o.sidebar_color, o.plan, o.created_at, o.member_count, m.role, {", ".join(_LIMITS)}
    FROM organizations AS o JOIN memberships AS m ON m.organization_id = o.id
    WHERE m.user_id = %(user)s AND m.left_at IS NULL
"""  # noqa: S608 - names of our own fields
_PROFILES = f"""
    SELECT id, name, slug, plan, member_count, created_at, {", ".join(_LIMITS)} FROM organizations
    WHERE deleted_at IS NULL
"""  # noqa: S608 - names of our own fields


def _limits(row: OrganizationView | OrganizationProfile) -> OrganizationLimits:
    return OrganizationLimits(**{name: getattr(row, name) for name in _LIMITS})


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


async def find_ever_members(connection: Connection, organization_id: str, user_ids: Collection[str]) -> set[UserId]:
    """Those of them who belong to the organisation, or did once."""
    query = "SELECT user_id FROM memberships WHERE organization_id = %s AND user_id = ANY(%s)"
    return {row.user_id for row in await find_all(connection, _Member, query, (organization_id, list(user_ids)))}


async def find_profile(connection: Connection, organization_id: str) -> OrganizationProfile | None:
    """Whoever asks; None for one that does not exist, or was deleted."""
    return await find_one(connection, OrganizationProfile, f"{_PROFILES} AND id = %s", (organization_id,))


async def find_profiles(
    connection: Connection, organization_ids: Collection[str]
) -> dict[OrganizationId, OrganizationProfile]:
    """Of any organisations, by id, as their public identifiers need them; without those that were deleted."""
    query = f"{_PROFILES} AND id = ANY(%s)"
    found = await find_all(connection, OrganizationProfile, query, (list(organization_ids),))
    return {profile.id: profile for profile in found}


async def find_profile_named(connection: Connection, slug_or_id: str) -> OrganizationProfile | None:
    """Of any organisation, by the public name that it has now, or by its id."""
    query = f"{_PROFILES} AND (slug = %(name)s OR id = %(name)s) ORDER BY slug = %(name)s DESC LIMIT 1"
    return await find_one(connection, OrganizationProfile, query, {"name": slug_or_id})


async def find_member(connection: Connection, organization_id: str, user_id: str) -> MemberView | None:
    query = """
        SELECT user_id, role, joined_at FROM memberships WHERE organization_id = %s AND user_id = %s AND left_at IS NULL
    """
    return await find_one(connection, MemberView, query, (organization_id, user_id))


async def list_members(connection: Connection, organization_id: str) -> list[MemberView]:
    """Sorted owner, admin, manager, user, then by when they joined; at most MAX_LIST_ROWS."""
    query = """
        SELECT user_id, role, joined_at FROM memberships WHERE organization_id = %s AND left_at IS NULL
        ORDER BY array_position(%s::text[], role), joined_at, user_id LIMIT %s
    """
    return await find_all(connection, MemberView, query, (organization_id, list(RANKS), MAX_LIST_ROWS))


async def list_memberships(connection: Connection, user_ids: Collection[str]) -> dict[UserId, list[Membership]]:
    """Of each user, oldest first; for who administers the platform."""
    query = """
        SELECT m.user_id, m.role, o.id AS organization_id, o.name, o.slug
        FROM memberships AS m JOIN organizations AS o ON o.id = m.organization_id
        WHERE m.user_id = ANY(%s) AND m.left_at IS NULL ORDER BY m.joined_at, o.id
    """
    found: dict[UserId, list[Membership]] = {}
    for one in await find_all(connection, Membership, query, (list(user_ids),)):
        found.setdefault(one.user_id, []).append(one)
    return found


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    fold = _Fold(
        await _organizations.load(connection, [(entry.envelope.id,) for entry in entries]),
        await _memberships.load(connection, [_key(entry) for entry in entries if _is_about_a_member(entry.event)]),
    )
    for entry in entries:
        fold.apply(entry)
    await _organizations.put(connection, fold.organizations.values())
    await _memberships.put(connection, fold.memberships.values())
    for entry in entries:
        if isinstance(entry.event, OrganizationDeleted):  # nothing can follow it, so the end of the batch is right
            await connection.execute(
                "UPDATE memberships SET left_at = %s WHERE organization_id = %s AND left_at IS NULL",
                (entry.envelope.at, entry.envelope.id),
            )


class _Fold(msgspec.Struct):
    """The rows that a batch touches, by key."""

    organizations: dict[tuple[Any, ...], _Organization]
    memberships: dict[tuple[Any, ...], _Membership]

    def apply(self, entry: Entry) -> None:
        event: OrganizationEvent = entry.event
        match event:
            case OrganizationCreated():
                self.organizations[entry.envelope.id,] = _created(event, entry)
            case OrganizationRenamed():
                self._change(entry, name=event.name, slug=event.slug)
            case SidebarColorChosen():
                self._change(entry, sidebar_color=event.color)
            case OrganizationPlanChanged():
                self._change(entry, plan=event.plan)
            case OrganizationLimitsChanged():
                self._change(entry, **asdict(event.limits))
            case OrganizationDeleted():
                self._change(entry, member_count=0, deleted_at=entry.envelope.at)
            case MemberAdded():
                self.memberships[_key(entry)] = _joined(event, entry)
                self._change(entry, member_count=self._organization(entry).member_count + 1)
            case MemberRoleChanged():
                self.memberships[_key(entry)] = replace(self._membership(entry), role=event.role)
            case MemberRemoved():
                self.memberships[_key(entry)] = replace(self._membership(entry), left_at=entry.envelope.at)
                self._change(entry, member_count=self._organization(entry).member_count - 1)
            case MemberInvited() | InvitationRevoked() | InvitationAccepted():
                return  # projections/invitations.py
            case _:
                assert_never(event)

    def _change(self, entry: Entry, **changes: Any) -> None:
        self.organizations[entry.envelope.id,] = replace(self._organization(entry), **changes)

    def _organization(self, entry: Entry) -> _Organization:
        return known(self.organizations.get((entry.envelope.id,)), entry)

    def _membership(self, entry: Entry) -> _Membership:
        return known(self.memberships.get(_key(entry)), entry)


def _is_about_a_member(event: OrganizationEvent) -> bool:
    return isinstance(event, MemberAdded | MemberRoleChanged | MemberRemoved)


def _key(entry: Entry) -> tuple[str, str]:
    return entry.envelope.id, entry.event.user_id


def _created(event: OrganizationCreated, entry: Entry) -> _Organization:
    return _Organization(
        id=OrganizationId(entry.envelope.id),
        name=event.name,
        slug=event.slug,
        sidebar_color="",
        plan="free",
        **asdict(UNLIMITED),
        member_count=0,
        created_at=entry.envelope.at,
        deleted_at=None,
    )


def _joined(event: MemberAdded, entry: Entry) -> _Membership:
    return _Membership(
        organization_id=OrganizationId(entry.envelope.id),
        user_id=event.user_id,
        role=event.role,
        joined_at=entry.envelope.at,
        left_at=None,
    )


_VISIBLE = {
    "memberships": f"organization_id = {THEIR_ORGANIZATION} OR user_id = {THEIR_USER}",
    "organizations": f"""
        id = {THEIR_ORGANIZATION} OR EXISTS (
            SELECT FROM memberships WHERE organization_id = id AND user_id = {THEIR_USER} AND left_at IS NULL
        )
    """,
}
ORGANIZATIONS = Projection("organizations", 3, _TABLES, apply, aggregates=frozenset({"organization"}), visible=_VISIBLE)
