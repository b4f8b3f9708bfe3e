"""An organisation: a tenant with members and roles. Its slug is unique on the platform; its last owner stays."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected, Release
from domain.ids import UserId
from domain.values import MAX_NAME_LENGTH, slug_of

Role = Literal["owner", "admin", "manager", "user"]


class CreateOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """`slug` empty: made from the name; `fallback_slug` serves a name without letters or digits."""

    name: str
    owner: UserId
    slug: str = ""
    fallback_slug: str


class AddMember(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role


class RemoveMember(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId


OrganizationCommand = CreateOrganization | AddMember | RemoveMember


class OrganizationCreated(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    slug: str


class MemberAdded(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role


class MemberRemoved(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId


OrganizationEvent = OrganizationCreated | MemberAdded | MemberRemoved


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    slug: str = ""
    members: dict[UserId, Role] = {}

    @property
    def exists(self) -> bool:
        return bool(self.slug)


def evolve(state: Organization, event: OrganizationEvent, _at: datetime) -> Organization:
    match event:
        case OrganizationCreated():
            return replace(state, name=event.name, slug=event.slug)
        case MemberAdded():
            return replace(state, members={**state.members, event.user_id: event.role})
        case MemberRemoved():
            return replace(state, members={u: r for u, r in state.members.items() if u != event.user_id})
        case _:
            assert_never(event)


def decide(state: Organization, command: OrganizationCommand, _at: datetime) -> Sequence[OrganizationEvent]:
    if not state.exists and not isinstance(command, CreateOrganization):
        raise Rejected("organization_not_found", "There is no organisation with this id.")
    match command:
        case CreateOrganization():
            return _create(state, command)
        case AddMember():
            return _add_member(state, command)
        case RemoveMember():
            return _remove_member(state, command)
        case _:
            assert_never(command)


def _create(state: Organization, command: CreateOrganization) -> Sequence[OrganizationEvent]:
    if state.exists:
        return []
    name = command.name.strip()
    if not name:
        raise Rejected("name_required", "An organisation needs a name.")
    if len(name) > MAX_NAME_LENGTH:
        raise Rejected("name_too_long", f"A name has at most {MAX_NAME_LENGTH} characters.")
    slug = slug_of(command.slug or name, command.fallback_slug)
    return [OrganizationCreated(name=name, slug=slug), MemberAdded(user_id=command.owner, role="owner")]


def _add_member(state: Organization, command: AddMember) -> Sequence[OrganizationEvent]:
    if state.members.get(command.user_id) == command.role:
        return []
    if command.user_id in state.members:
        raise Rejected("user_already_member", "This user is already a member, with another role.")
    return [MemberAdded(user_id=command.user_id, role=command.role)]


def _remove_member(state: Organization, command: RemoveMember) -> Sequence[OrganizationEvent]:
    if command.user_id not in state.members:
        return []
    owners = [user for user, role in state.members.items() if role == "owner"]
    if owners == [command.user_id]:
        raise Rejected("last_owner_cannot_be_removed", "The last owner stays; make someone else an owner first.")
    return [MemberRemoved(user_id=command.user_id)]


def slug_digest(slug: str) -> str:
    """A slug is public, so a plain hash will do for its reservation subject."""
    return sha256(slug.encode()).hexdigest()[:32]


def reservations(_state: Organization, event: OrganizationEvent) -> Sequence[Claim | Release]:
    if isinstance(event, OrganizationCreated):
        return [Claim("organization_slug", slug_digest(event.slug), "organization_slug_already_exists")]
    return []


ORGANIZATION: Decider[OrganizationCommand, OrganizationEvent, Organization] = Decider(
    aggregate="organization",
    events=(OrganizationCreated, MemberAdded, MemberRemoved),
    initial=Organization(),
    state_type=Organization,
    evolve=evolve,
    decide=decide,
    reservations=reservations,
)
