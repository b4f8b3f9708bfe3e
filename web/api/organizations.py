"""Organisations of the caller, and which one of them this session works in."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import Field

from domain.ids import PLATFORM, OrganizationId
from domain.organization import ORGANIZATION, CreateOrganization
from domain.roles import Role
from domain.session import SESSION, SwitchWorkspace
from projections.organizations import OrganizationView, find_organization, list_organizations
from projections.sessions import find_session
from projections.users import find_user
from web.auth import Caller, Position, Served, SignedIn
from web.errors import ApiError, not_found
from web.intent import Intended, Intent
from web.services import Services
from web.shapes import Body, Reply
from web.tokens import COOKIE, set_cookie, signed_token

router = APIRouter(prefix="/organizations", tags=["organisations"])

FALLBACK_SLUG_DIGITS = 8


class NewOrganization(Body):
    name: str
    slug: str = ""
    set_as_current: bool = True


class Workspace(Body):
    organization_id: str | None = Field(description="null: the personal workspace.")


class Organization(Reply):
    id: str
    name: str
    slug: str
    created_at: datetime
    role: Role
    member_count: int


@router.get("")
async def organizations(caller: SignedIn, services: Served, position: Position) -> list[Organization]:
    async with services.read("organizations", position=position) as connection:
        found = await list_organizations(connection, caller.user_id)
    return [Organization.model_validate(one) for one in found]


@router.post("", status_code=201)
async def create_organization(
    body: NewOrganization, caller: SignedIn, services: Served, intent: Intended, request: Request, response: Response
) -> Organization:
    """Creates it with the caller as owner; the session moves into it unless told otherwise."""
    organization_id = OrganizationId(intent.draw.id("organization"))
    command = CreateOrganization(
        name=body.name,
        owner=caller.user_id,
        slug=body.slug,
        fallback_slug=f"org-{intent.draw.secret('slug', FALLBACK_SLUG_DIGITS // 2).hex()}",
    )
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=caller.actor)
    created = await _seen(services, caller, organization_id, intent.position)
    if created is None:
        raise not_found("organization")
    if body.set_as_current:
        await _switch(services, caller, created, intent, request, response)
    return Organization.model_validate(created)


@router.put("/current")
async def switch_organization(
    body: Workspace, caller: SignedIn, services: Served, intent: Intended, request: Request, response: Response
) -> Organization | None:
    """Moves this session into another organisation; the reply's cookie replaces the old one."""
    organization = None
    if body.organization_id is not None:
        organization = await _seen(services, caller, body.organization_id, 0)
        if organization is None:
            raise ApiError(403, "not_a_member", "You are not a member of such an organisation.")
    await _switch(services, caller, organization, intent, request, response)
    return Organization.model_validate(organization) if organization else None


async def _seen(services: Services, caller: Caller, organization_id: str, position: int) -> OrganizationView | None:
    async with services.read("organizations", position=position) as connection:
        return await find_organization(connection, organization_id, caller.user_id)


async def _switch(
    services: Services,
    caller: Caller,
    organization: OrganizationView | None,
    intent: Intent,
    request: Request,
    response: Response,
) -> None:
    """Records the switch, waits until the session's row shows it, and signs a token that says so too."""
    command = SwitchWorkspace(organization_id=organization.id if organization else None)
    position = await intent.send(SESSION, PLATFORM, caller.session, command, actor=caller.actor)
    async with services.read("sessions", "users", position=position) as connection:
        session = await find_session(connection, caller.session)
        user = await find_user(connection, caller.user_id)
    if session is None or user is None or COOKIE not in request.cookies:
        return  # a bearer token stays as it is: it names the session, and the session's row has moved
    [email] = await services.vault.open_all([user.email])
    token = signed_token(
        services.settings,
        user_id=caller.user_id,
        email=email or "",
        role=caller.platform_role,
        session_id=caller.session,
        organization_id=organization.id if organization else None,
        organization_role=organization.role if organization else None,
        jti=caller.jti,
        at=services.clock(),
        expires_at=session.expires_at,
    )
    set_cookie(response, services.settings, token, lasts=session.expires_at - services.clock())
