"""Invitations into the current organisation, and the page that an invited person comes to with the link of a mail.

    POST .../current/invitations ──> mail with a link ──> GET /organizations/invitations/{token} ──> sign in ──> accept

The token is derived from the invitation's id by the platform's master key and stands nowhere: in the log is its hash.
Its 160 bits bound what guessing could find.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends
from msgspec.structs import replace
from pydantic import Field

from domain.decider import Rejected
from domain.ids import InvitationId
from domain.organization import ORGANIZATION
from domain.organization_commands import AcceptInvitation, InviteMember, RevokeInvitation
from domain.roles import Role
from domain.values import Sealed
from projections.invitations import InvitationView, State, find_invitation_by_token, list_invitations
from projections.organizations import find_profile
from projections.projection import EVERYTHING
from projections.users import find_user, find_user_by_digest
from web.api.organizations import Organization, seen
from web.auth import Member, Position, Served, SignedIn, member, public
from web.emails import checked_email
from web.errors import not_found
from web.intent import Intended
from web.roles import role_of
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/organizations", tags=["invitations"])

Inviter = Annotated[Member, Depends(member("members.invite", refusal="insufficient_permissions_to_invite"))]

DEFAULT_DAYS = 7
MAX_DAYS = 30
MAX_TOKEN_LENGTH = 64


class NewInvitation(Body):
    email: str = ""
    role: str = "user"
    expires_in_days: int = Field(default=DEFAULT_DAYS, ge=1, le=MAX_DAYS)


class InvitationMade(Reply):
    """`token` is shown this once; the mail carries it too."""

    id: str
    token: str
    email: str
    role: Role
    expires_at: datetime


class InvitationShown(Reply):
    """Never with its token."""

    id: str
    email: str
    role: Role
    invited_by: str
    state: State
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None


class InvitationPage(Reply):
    """What whoever has the link may know."""

    organization_name: str
    role: Role
    email: str
    expires_at: datetime
    state: State


@router.get("/current/invitations")
async def invitations(inviter: Inviter, services: Served, position: Position) -> list[InvitationShown]:
    """Newest first, those that ended as well."""
    async with services.read("invitations", position=position) as connection:
        found = await list_invitations(connection, inviter.organization_id)
    emails = await services.vault.open_all([one.email for one in found])
    now = services.clock()
    return [
        InvitationShown(
            id=one.id,
            email=email or "",
            role=one.role,
            invited_by=one.invited_by,
            state=one.state(now),
            created_at=one.created_at,
            expires_at=one.expires_at,
            accepted_at=one.accepted_at,
            revoked_at=one.revoked_at,
        )
        for one, email in zip(found, emails, strict=True)
    ]


@router.post("/current/invitations", status_code=201)
async def invite(
    body: NewInvitation, inviter: Inviter, services: Served, intent: Intended, position: Position
) -> InvitationMade:
    """Invites an e-mail address; an expired invitation to it is replaced."""
    email, role = checked_email(body.email), role_of(body.role)
    invitation_id = InvitationId(intent.draw.id("invitation"))
    token = services.one_time_tokens.token("invitation", invitation_id)
    digest = services.vault.digest("email", email)
    # across the tenants' wall: whoever has this address belongs to nobody's organisation but perhaps to this one
    async with services.read("users", position=position, scope=EVERYTHING) as connection:
        user = await find_user_by_digest(connection, username_digest=digest, email_digest=digest)
    command = InviteMember(
        by=inviter.user_id,
        invitation_id=invitation_id,
        email=Sealed(""),
        email_digest=digest,
        role=role,
        token_sha256=_token_hash(token),
        expires_at=intent.draw.at + timedelta(days=body.expires_in_days),
        member_id=user.id if user else None,
    )
    organization_id = inviter.organization_id
    await intent.rehearse(ORGANIZATION, organization_id, organization_id, command)  # a refused one leaves no key behind
    command = replace(command, email=await services.vault.seal(invitation_id, "email", email))
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=inviter.caller.actor)
    return InvitationMade(id=invitation_id, token=token, email=email, role=role, expires_at=command.expires_at)


@router.delete("/current/invitations/{invitation_id}")
async def revoke_invitation(invitation_id: PathId, inviter: Inviter, intent: Intended) -> None:
    """Its link opens nothing from here on."""
    wanted = uuid_or_404("invitation", invitation_id)
    organization_id = inviter.organization_id
    command = RevokeInvitation(by=inviter.user_id, invitation_id=InvitationId(wanted))
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=inviter.caller.actor)


@router.get("/invitations/{token}", dependencies=[Depends(public)])
async def invitation_page(token: str, services: Served, position: Position) -> InvitationPage:
    """For the page that the mail's link opens, before anybody has signed in."""
    found = await _by_token(services, token, position)
    # across the tenants' wall: see _by_token
    async with services.read("organizations", scope=EVERYTHING) as connection:
        organization = await find_profile(connection, found.organization_id)
    [email] = await services.vault.open_all([found.email])
    return InvitationPage(
        organization_name=organization.name if organization else "",
        role=found.role,
        email=email or "",
        expires_at=found.expires_at,
        state=found.state(services.clock()),
    )


@router.post("/invitations/{token}/accept")
async def accept_invitation(
    token: str, caller: SignedIn, services: Served, intent: Intended, position: Position
) -> Organization:
    """Makes the caller a member, when the invitation was sent to the caller's own address."""
    found = await _by_token(services, token, position)
    async with services.read("users", position=position) as connection:
        user = await find_user(connection, caller.user_id)
    if user is None:
        raise Rejected("user_not_found")
    command = AcceptInvitation(invitation_id=found.id, user_id=user.id, email_digest=user.email_digest)
    organization_id = found.organization_id
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=caller.actor)
    return Organization.model_validate(await seen(services, caller, organization_id, intent.position))


async def _by_token(services: Services, token: str, position: int) -> InvitationView:
    # across the tenants' wall: whoever holds a token is a member of nothing yet; the token is the proof
    async with services.read("invitations", position=position, scope=EVERYTHING) as connection:
        found = await find_invitation_by_token(connection, _token_hash(token[:MAX_TOKEN_LENGTH]))
    if found is None:
        raise not_found("invitation")
    return found


def _token_hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()
