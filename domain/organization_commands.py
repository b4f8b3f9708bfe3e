"""What can be asked of an organisation; organization.py decides it.

`by` is who acts, and their role decides (delegation.py). A command without it was allowed by its caller: by the API's
table of permissions, or the platform itself.
"""

from datetime import datetime

import msgspec

from domain.ids import InvitationId, UserId
from domain.roles import Role
from domain.values import Digest, Plan, Sealed


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


class ChangeOrganizationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is UNSET stays as it is; what is None has no limit from then on."""

    requests_per_minute: int | msgspec.UnsetType | None = msgspec.UNSET
    tokens_per_minute: int | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET
    spend_limit_eur_micros_per_month: int | msgspec.UnsetType | None = msgspec.UNSET
    max_completion_tokens: int | msgspec.UnsetType | None = msgspec.UNSET


class DeleteOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances live and how many deployments are still wanted, as the caller found; any forbids it."""

    live_instances: int
    standing_deployments: int = 0


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
    """`member_id`: the user who already has this e-mail address, when there is one; a member is not invited."""

    by: UserId
    invitation_id: InvitationId
    email: Sealed
    email_digest: Digest
    role: Role
    token_sha256: str
    expires_at: datetime
    member_id: UserId | None = None


class RevokeInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """`by` acts; None is the platform itself, which forgets the person who was invited."""

    by: UserId | None
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
    | ChangeOrganizationLimits
    | DeleteOrganization
    | AddMember
    | RemoveMember
    | ChangeMemberRole
    | DismissMember
    | InviteMember
    | RevokeInvitation
    | AcceptInvitation
)
