"""An organisation: a tenant with members and roles. Its slug is unique on the platform; its last owner stays."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected, Release
from domain.ids import InvitationId, UserId
from domain.roles import Role
from domain.values import MAX_NAME_LENGTH, Digest, Sealed, slug_of

Plan = Literal["free", "subscriber"]


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


class RenameOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """Empty fields stay as they are."""

    name: str = ""
    slug: str = ""


class ChooseSidebarColor(msgspec.Struct, frozen=True, kw_only=True):
    color: str


class ChangeOrganizationPlan(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan


class DeleteOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """`live_instances`: how many the caller found; any forbids it."""

    live_instances: int


class ChangeMemberRole(msgspec.Struct, frozen=True, kw_only=True):
    """`by` acts; None is the platform itself."""

    by: UserId | None
    user_id: UserId
    role: Role


class DismissMember(msgspec.Struct, frozen=True, kw_only=True):
    """`by` removes another member."""

    by: UserId
    user_id: UserId


class InviteMember(msgspec.Struct, frozen=True, kw_only=True):
    """`member_id`: the member who already has this e-mail address, when there is one."""

    by: UserId
    invitation_id: InvitationId
    email: Sealed
    email_digest: Digest
    role: Role
    token_sha256: str
    expires_at: datetime
    member_id: UserId | None = None


class RevokeInvitation(msgspec.Struct, frozen=True, kw_only=True):
    by: UserId
    invitation_id: InvitationId


class AcceptInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """`email_digest`: of the accepting user's own address."""

    invitation_id: InvitationId
    user_id: UserId
    email_digest: Digest


OrganizationCommand = (
    CreateOrganization
    | RenameOrganization
    | ChooseSidebarColor
    | ChangeOrganizationPlan
    | DeleteOrganization
    | AddMember
    | RemoveMember
    | ChangeMemberRole
    | DismissMember
    | InviteMember
    | RevokeInvitation
    | AcceptInvitation
)


class OrganizationCreated(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    slug: str


class MemberAdded(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role


class MemberRemoved(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId


class OrganizationRenamed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    slug: str


class SidebarColorChosen(msgspec.Struct, frozen=True, kw_only=True):
    color: str


class OrganizationPlanChanged(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan


class OrganizationDeleted(msgspec.Struct, frozen=True):
    """Every membership and invitation ends with it; its slug stays taken, so that nobody inherits its callers."""


class MemberRoleChanged(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    role: Role


class MemberInvited(msgspec.Struct, frozen=True, kw_only=True):
    """The address is sealed under the invitation's own id as its person, for who is invited may be no user yet."""

    invitation_id: InvitationId
    email: Sealed
    email_digest: Digest
    role: Role
    token_sha256: str
    expires_at: datetime
    invited_by: UserId


class InvitationRevoked(msgspec.Struct, frozen=True, kw_only=True):
    invitation_id: InvitationId


class InvitationAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """Followed by MemberAdded, or by MemberRoleChanged when the user had come in by another way meanwhile."""

    invitation_id: InvitationId
    user_id: UserId


OrganizationEvent = (
    OrganizationCreated
    | OrganizationRenamed
    | SidebarColorChosen
    | OrganizationPlanChanged
    | OrganizationDeleted
    | MemberAdded
    | MemberRoleChanged
    | MemberRemoved
    | MemberInvited
    | InvitationRevoked
    | InvitationAccepted
)


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    """`invitations`: the pending ones, expired ones included."""

    name: str = ""
    slug: str = ""
    sidebar_color: str = ""
    plan: Plan = "free"
    deleted: bool = False
    members: dict[UserId, Role] = {}
    invitations: dict[InvitationId, MemberInvited] = {}

    @property
    def exists(self) -> bool:
        return bool(self.slug) and not self.deleted


def evolve(state: Organization, event: OrganizationEvent, _at: datetime) -> Organization:
    match event:
        case OrganizationCreated():
            return replace(state, name=event.name, slug=event.slug)
        case OrganizationRenamed():
            return replace(state, name=event.name, slug=event.slug)
        case SidebarColorChosen():
            return replace(state, sidebar_color=event.color)
        case OrganizationPlanChanged():
            return replace(state, plan=event.plan)
        case OrganizationDeleted():
            return replace(state, deleted=True, members={}, invitations={})
        case MemberAdded() | MemberRoleChanged():
            return replace(state, members={**state.members, event.user_id: event.role})
        case MemberRemoved():
            return replace(state, members={u: r for u, r in state.members.items() if u != event.user_id})
        case MemberInvited():
            return replace(state, invitations={**state.invitations, event.invitation_id: event})
        case InvitationRevoked() | InvitationAccepted():
            left = {i: invited for i, invited in state.invitations.items() if i != event.invitation_id}
            return replace(state, invitations=left)
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
        case (
            RenameOrganization()
            | ChooseSidebarColor()
            | ChangeOrganizationPlan()
            | DeleteOrganization()
            | ChangeMemberRole()
            | DismissMember()
            | InviteMember()
            | RevokeInvitation()
            | AcceptInvitation()
        ):
            raise NotImplementedError
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
    events=(
        OrganizationCreated,
        OrganizationRenamed,
        SidebarColorChosen,
        OrganizationPlanChanged,
        OrganizationDeleted,
        MemberAdded,
        MemberRoleChanged,
        MemberRemoved,
        MemberInvited,
        InvitationRevoked,
        InvitationAccepted,
    ),
    initial=Organization(),
    state_type=Organization,
    evolve=evolve,
    decide=decide,
    reservations=reservations,
)
