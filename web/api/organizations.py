"""Organisations of the caller, which one of them this session works in, and what becomes of that one.

PUT /organizations/current chooses another workspace (SPEC 1.3); PATCH changes the organisation itself, for its owners.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from domain.ids import OrganizationId
from domain.organization import ORGANIZATION
from domain.organization_commands import (
    ChangeOrganizationPlan,
    ChooseSidebarColor,
    CreateOrganization,
    DeleteOrganization,
    RenameOrganization,
)
from domain.roles import Role
from domain.values import Plan
from projections.deployments import find_footprint
from projections.organizations import OrganizationView, find_organization, find_profile, list_organizations
from projections.projection import EVERYTHING
from web.auth import Caller, Member, PlatformAdmin, Position, Served, SignedIn, member
from web.errors import ApiError, not_found
from web.intent import Intended
from web.organization_shapes import Limits
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404
from web.workspace import move_session

router = APIRouter(prefix="/organizations", tags=["organisations"])

Changer = Annotated[Member, Depends(member("organization.change"))]

FALLBACK_SLUG_DIGITS = 8


class NewOrganization(Body):
    name: str
    slug: str = ""
    set_as_current: bool = True


class Workspace(Body):
    organization_id: str | None = Field(description="null: the personal workspace.")


class Changes(Body):
    """What is not said stays as it is."""

    name: str | None = None
    slug: str | None = None
    sidebar_color: str | None = Field(default=None, description="#rrggbb")


class NewPlan(Body):
    plan: Plan


class Organization(Reply):
    """`role` is the caller's; `sidebar_color` is empty or #rrggbb."""

    id: str
    name: str
    slug: str
    sidebar_color: str
    plan: Plan
    created_at: datetime
    role: Role
    member_count: int
    limits: Limits


class Profile(Reply):
    """An organisation as a platform administrator sees it."""

    id: str
    name: str
    slug: str
    plan: Plan
    member_count: int
    created_at: datetime
    limits: Limits


class CurrentRole(Reply):
    """Both null in the personal workspace."""

    organization_id: str | None
    role: Role | None


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
    created = await seen(services, caller, organization_id, intent.position)
    if body.set_as_current:
        await move_session(services, caller, created, intent, request, response)
    return Organization.model_validate(created)


@router.put("/current")
async def switch_organization(
    body: Workspace, caller: SignedIn, services: Served, intent: Intended, request: Request, response: Response
) -> Organization | None:
    """Moves this session into another organisation; the reply's cookie replaces the old one."""
    organization = None
    if body.organization_id is not None:
        async with services.read("organizations") as connection:
            organization = await find_organization(connection, body.organization_id, caller.user_id)
        if organization is None:
            raise ApiError(403, "not_a_member", "You are not a member of such an organisation.")
    await move_session(services, caller, organization, intent, request, response)
    return Organization.model_validate(organization) if organization else None


@router.get("/current/role")
async def current_role(caller: SignedIn) -> CurrentRole:
    return CurrentRole(organization_id=caller.organization_id, role=caller.role)


@router.patch("/current")
async def change_organization(body: Changes, changer: Changer, services: Served, intent: Intended) -> Organization:
    """Renames it, gives it another slug or another colour. Its former slugs stay its own."""
    organization_id, actor = changer.organization_id, changer.caller.actor
    if body.name is not None and not body.name.strip():
        raise ApiError(400, "name_required", "An organisation needs a name.")
    color = ChooseSidebarColor(color=body.sidebar_color) if body.sidebar_color is not None else None
    if color:
        await intent.rehearse(ORGANIZATION, organization_id, organization_id, color)  # all of it happens, or nothing
    if body.name is not None or body.slug is not None:
        name = RenameOrganization(name=body.name or "", slug=body.slug or "")
        await intent.send(ORGANIZATION, organization_id, organization_id, name, actor=actor)
    if color:
        await intent.send(ORGANIZATION, organization_id, organization_id, color, actor=actor)
    return Organization.model_validate(await seen(services, changer.caller, organization_id, intent.position))


@router.delete("/current")
async def delete_organization(
    changer: Changer, services: Served, intent: Intended, position: Position, request: Request, response: Response
) -> None:
    """Ends every membership in it; the session falls back to the personal workspace."""
    organization_id = changer.organization_id
    async with services.read("organizations", "deployments", position=position) as connection:
        own = await list_organizations(connection, changer.user_id)
        footprint = await find_footprint(connection, organization_id)
    if len(own) <= 1:
        message = "This is your last organisation; create or join another one first."
        raise ApiError(409, "last_organization_cannot_be_deleted", message)
    command = DeleteOrganization(
        live_instances=footprint.live_instances, standing_deployments=footprint.standing_deployments
    )
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=changer.caller.actor)
    async with services.read("organizations", position=intent.position):
        pass  # from here on nobody is a member
    await move_session(services, changer.caller, None, intent, request, response)


@router.put("/{organization_id}/plan")
async def change_plan(
    organization_id: PathId, body: NewPlan, admin: PlatformAdmin, services: Served, intent: Intended
) -> Profile:
    """What the organisation pays for is the platform's to say."""
    wanted = OrganizationId(uuid_or_404("organization", organization_id))
    command = ChangeOrganizationPlan(plan=body.plan)
    await intent.send(ORGANIZATION, wanted, wanted, command, actor=admin.actor)
    # across the tenants' wall: an administrator of the platform need not be a member
    async with services.read("organizations", position=intent.position, scope=EVERYTHING) as connection:
        profile = await find_profile(connection, wanted)
    if profile is None:
        raise not_found("organization")
    return Profile.model_validate(profile)


async def seen(services: Services, caller: Caller, organization_id: str, position: int) -> OrganizationView:
    """The organisation as the caller sees it once `position` is visible; raises ApiError 404 for a stranger."""
    async with services.read("organizations", position=position) as connection:
        found = await find_organization(connection, organization_id, caller.user_id)
    if found is None:
        raise not_found("organization")
    return found
