"""An organisation: a tenant with members, roles and invitations. Who may do what to whom stands in delegation.py.

    invited ──> accepted | revoked | (expired: stays in the list, and is replaced when the address is invited again)

Its slug is unique on the platform. The surprising rule: a slug that was ever its own stays its own, after a new one was
chosen and after it was deleted, so that nobody inherits the callers of `old-slug/model`.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import assert_never

import msgspec
from msgspec.structs import asdict, replace

from domain.decider import Claim, Decider, Rejected, Release
from domain.delegation import require_dismissal, require_may_invite, require_role_change, require_stays_owned
from domain.ids import InvitationId, UserId
from domain.limits import UNLIMITED, OrganizationLimits, changed_limits
from domain.organization_commands import (
    AcceptInvitation,
    AddMember,
    ChangeMemberRole,
    ChangeOrganizationLimits,
    ChangeOrganizationPlan,
    ChooseSidebarColor,
    CreateOrganization,
    DeleteOrganization,
    DismissMember,
    InviteMember,
    OrganizationCommand,
    RemoveMember,
    RenameOrganization,
    RevokeInvitation,
)
from domain.roles import Role, higher_role
from domain.values import MAX_NAME_LENGTH, Digest, Plan, Sealed, slug_of

MAX_PENDING_INVITATIONS = 500
"""Each is a mail to somebody who did not ask for one, and a line in the organisation's state."""
_COLOR = re.compile(r"#[0-9a-f]{6}")


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


class OrganizationLimitsChanged(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, also those that stayed as they were."""

    limits: OrganizationLimits


class OrganizationDeleted(msgspec.Struct, frozen=True):
    """Every membership and invitation ends with it; its slugs stay taken."""


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
    | OrganizationLimitsChanged
    | OrganizationDeleted
    | MemberAdded
    | MemberRoleChanged
    | MemberRemoved
    | MemberInvited
    | InvitationRevoked
    | InvitationAccepted
)


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    """`invitations`: the pending ones, expired ones included; `accepted`: what became of the others, if it was that."""

    name: str = ""
    slug: str = ""
    sidebar_color: str = ""
    plan: Plan = "free"
    limits: OrganizationLimits = UNLIMITED
    deleted_at: datetime | None = None
    members: dict[UserId, Role] = {}
    invitations: dict[InvitationId, MemberInvited] = {}
    accepted: frozenset[InvitationId] = frozenset()

    @property
    def exists(self) -> bool:
        return bool(self.slug) and self.deleted_at is None


def evolve(state: Organization, event: OrganizationEvent, at: datetime) -> Organization:
    match event:
        case OrganizationCreated():
            return replace(state, name=event.name, slug=event.slug)
        case OrganizationRenamed():
            return replace(state, name=event.name, slug=event.slug)
        case SidebarColorChosen():
            return replace(state, sidebar_color=event.color)
        case OrganizationPlanChanged():
            return replace(state, plan=event.plan)
        case OrganizationLimitsChanged():
            return replace(state, limits=event.limits)
        case OrganizationDeleted():
            return replace(state, deleted_at=at, members={}, invitations={})
        case MemberAdded() | MemberRoleChanged():
            return replace(state, members={**state.members, event.user_id: event.role})
        case MemberRemoved():
            return replace(state, members={u: r for u, r in state.members.items() if u != event.user_id})
        case MemberInvited():
            return replace(state, invitations={**state.invitations, event.invitation_id: event})
        case InvitationRevoked():
            return replace(state, invitations=_without(state, event.invitation_id))
        case InvitationAccepted():
            accepted = state.accepted | {event.invitation_id}
            return replace(state, invitations=_without(state, event.invitation_id), accepted=accepted)
        case _:
            assert_never(event)


def _without(state: Organization, invitation_id: InvitationId) -> dict[InvitationId, MemberInvited]:
    return {i: invited for i, invited in state.invitations.items() if i != invitation_id}


def decide(state: Organization, command: OrganizationCommand, at: datetime) -> Sequence[OrganizationEvent]:
    if isinstance(command, CreateOrganization):
        return _create(state, command)
    if not state.exists:
        return _nowhere(state, command)
    match command:
        case RenameOrganization():
            return _rename(state, command)
        case ChooseSidebarColor():
            return _choose_color(state, command)
        case ChangeOrganizationPlan():
            return [] if state.plan == command.plan else [OrganizationPlanChanged(plan=command.plan)]
        case ChangeOrganizationLimits():
            return _change_limits(state, command)
        case DeleteOrganization():
            return _delete(command)
        case AddMember():
            return _add_member(state, command)
        case RemoveMember():
            return _remove_member(state, command.user_id)
        case ChangeMemberRole():
            return _change_role(state, command)
        case DismissMember():
            return _dismiss(state, command)
        case InviteMember():
            return _invite(state, command, at)
        case RevokeInvitation():
            return _revoke(state, command)
        case AcceptInvitation():
            return _accept(state, command, at)
        case _:
            assert_never(command)


def _nowhere(state: Organization, command: OrganizationCommand) -> Sequence[OrganizationEvent]:
    """What is asked of an organisation that never was, or is no more."""
    if isinstance(command, DeleteOrganization) and state.deleted_at is not None:
        return []
    if isinstance(command, AcceptInvitation):
        raise _no_invitation()
    raise _no_organization()


def _no_organization() -> Rejected:
    return Rejected("organization_not_found", "There is no organisation with this id.")


def _no_invitation() -> Rejected:
    return Rejected("invitation_not_found", "There is no such invitation; ask for a new one.")


def _create(state: Organization, command: CreateOrganization) -> Sequence[OrganizationEvent]:
    if state.exists:
        return []
    if state.deleted_at is not None:
        raise _no_organization()  # an id never begins anew
    name = _valid_name(command.name)
    slug = slug_of(command.slug or name, command.fallback_slug)
    return [OrganizationCreated(name=name, slug=slug), MemberAdded(user_id=command.owner, role="owner")]


def _valid_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise Rejected("name_required", "An organisation needs a name.")
    if len(name) > MAX_NAME_LENGTH:
        raise Rejected("name_too_long", f"A name has at most {MAX_NAME_LENGTH} characters.")
    return name


def _rename(state: Organization, command: RenameOrganization) -> Sequence[OrganizationEvent]:
    name = _valid_name(command.name) if command.name else state.name
    slug = slug_of(command.slug, fallback="") if command.slug else state.slug
    if not slug:
        raise Rejected("invalid_slug", "A slug has at least one letter (a-z) or digit.")
    return [] if (name, slug) == (state.name, state.slug) else [OrganizationRenamed(name=name, slug=slug)]


def _choose_color(state: Organization, command: ChooseSidebarColor) -> Sequence[OrganizationEvent]:
    color = command.color.lower()
    if not _COLOR.fullmatch(color):
        raise Rejected("invalid_sidebar_color", "A colour is written #rrggbb, with hexadecimal digits.")
    return [] if color == state.sidebar_color else [SidebarColorChosen(color=color)]


def _change_limits(state: Organization, command: ChangeOrganizationLimits) -> Sequence[OrganizationEvent]:
    limits = changed_limits(state.limits, asdict(command))
    return [] if limits == state.limits else [OrganizationLimitsChanged(limits=limits)]


def _delete(command: DeleteOrganization) -> Sequence[OrganizationEvent]:
    if command.live_instances or command.standing_deployments:
        raise Rejected(
            "organization_has_live_instances",
            f"Stop its deployments first: {command.standing_deployments} of them stand, "
            f"and {command.live_instances} instances live.",
        )
    return [OrganizationDeleted()]


def _add_member(state: Organization, command: AddMember) -> Sequence[OrganizationEvent]:
    if state.members.get(command.user_id) == command.role:
        return []
    if command.user_id in state.members:
        raise Rejected("user_already_member", "This user is already a member, with another role.")
    return [MemberAdded(user_id=command.user_id, role=command.role)]


def _remove_member(state: Organization, user_id: UserId) -> Sequence[OrganizationEvent]:
    if user_id not in state.members:
        return []
    require_stays_owned(state.members, user_id)
    return [MemberRemoved(user_id=user_id)]


def _change_role(state: Organization, command: ChangeMemberRole) -> Sequence[OrganizationEvent]:
    if state.members.get(command.user_id) == command.role:
        return []
    require_role_change(state.members, command.by, command.user_id, command.role)
    return [MemberRoleChanged(user_id=command.user_id, role=command.role)]


def _dismiss(state: Organization, command: DismissMember) -> Sequence[OrganizationEvent]:
    if command.user_id in state.members:
        require_dismissal(state.members, command.by, command.user_id)
    return _remove_member(state, command.user_id)


def _invite(state: Organization, command: InviteMember, at: datetime) -> Sequence[OrganizationEvent]:
    if command.invitation_id in state.invitations:
        return []
    require_may_invite(state.members, command.by, command.role)
    if command.member_id in state.members:
        raise Rejected("user_already_member", "Whoever has this e-mail address is a member already.")
    same = [one for one in state.invitations.values() if one.email_digest == command.email_digest]
    if any(at < one.expires_at for one in same):
        raise Rejected("invitation_already_exists", "This address is invited already; revoke that invitation first.")
    if len(state.invitations) - len(same) >= MAX_PENDING_INVITATIONS:
        message = f"At most {MAX_PENDING_INVITATIONS} invitations wait at a time; revoke some first."
        raise Rejected("too_many_invitations", message)
    invited = MemberInvited(
        invitation_id=command.invitation_id,
        email=command.email,
        email_digest=command.email_digest,
        role=command.role,
        token_sha256=command.token_sha256,
        expires_at=command.expires_at,
        invited_by=command.by,
    )
    return [*(InvitationRevoked(invitation_id=one.invitation_id) for one in same), invited]


def _revoke(state: Organization, command: RevokeInvitation) -> Sequence[OrganizationEvent]:
    """Whoever might give an invitation may take it back. One that ended in another way has nothing to be revoked."""
    invited = state.invitations.get(command.invitation_id)
    if invited is None:
        return []
    if command.by is not None:
        require_may_invite(state.members, command.by, invited.role)
    return [InvitationRevoked(invitation_id=command.invitation_id)]


def _accept(state: Organization, command: AcceptInvitation, at: datetime) -> Sequence[OrganizationEvent]:
    invited = state.invitations.get(command.invitation_id)
    if command.invitation_id in state.accepted:
        raise Rejected("invitation_already_accepted", "This invitation was accepted already.")
    if invited is None:
        raise _no_invitation()
    if at >= invited.expires_at:
        raise Rejected("invitation_expired", "This invitation has expired; ask for a new one.")
    if command.email_digest != invited.email_digest:
        raise Rejected("email_mismatch", "This invitation was sent to another e-mail address than yours.")
    accepted = InvitationAccepted(invitation_id=command.invitation_id, user_id=command.user_id)
    own = state.members.get(command.user_id)
    if own is None:
        return [accepted, MemberAdded(user_id=command.user_id, role=invited.role)]
    role = higher_role(own, invited.role)
    return [accepted] if role == own else [accepted, MemberRoleChanged(user_id=command.user_id, role=role)]


def slug_digest(slug: str) -> str:
    """A slug is public, so a plain hash will do for its reservation subject."""
    return sha256(slug.encode()).hexdigest()[:32]


def reservations(_state: Organization, event: OrganizationEvent) -> Sequence[Claim | Release]:
    if isinstance(event, OrganizationCreated | OrganizationRenamed):
        return [Claim("organization_slug", slug_digest(event.slug), "organization_slug_already_exists")]
    return []


ORGANIZATION: Decider[OrganizationCommand, OrganizationEvent, Organization] = Decider(
    aggregate="organization",
    events=(
        OrganizationCreated,
        OrganizationRenamed,
        SidebarColorChosen,
        OrganizationPlanChanged,
        OrganizationLimitsChanged,
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
