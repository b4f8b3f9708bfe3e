"""Members of the current organisation: who they are, what they may, and how they go.

Who may change or remove whom is the organisation's own decision, by the role that the caller has at that moment.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from domain.ids import OrganizationId, UserId
from domain.organization import ORGANIZATION
from domain.organization_commands import ChangeMemberRole, DismissMember, RemoveMember
from domain.roles import Role
from domain.values import Sealed
from projections.organizations import MemberView, find_member, list_members
from projections.projection import EVERYTHING
from projections.users import UserView, find_users
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.intent import Intended, Intent
from web.roles import role_of
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404
from web.workspace import move_session

router = APIRouter(prefix="/organizations/current", tags=["members"])

Viewer = Annotated[Member, Depends(member("members.view"))]
Changer = Annotated[Member, Depends(member("members.change"))]

NAMES = 4
"""A person's sealed texts that a member sees of another."""


class NewRole(Body):
    role: str


class MemberShown(Reply):
    """`created_at`: when they joined. Names are empty for a person who was forgotten."""

    user_id: str
    username: str
    email: str
    first_name: str
    last_name: str
    role: Role
    created_at: datetime


@router.get("/members")
async def members(viewer: Viewer, services: Served, position: Position) -> list[MemberShown]:
    """Owners first, then admins, managers and users, each by when they joined."""
    async with services.read("organizations", position=position) as connection:
        found = await list_members(connection, viewer.organization_id)
    return await _shown(services, found)


@router.put("/members/{user_id}")
async def change_role(
    user_id: PathId, body: NewRole, changer: Changer, services: Served, intent: Intended
) -> MemberShown:
    """It counts from that member's next request on."""
    wanted = UserId(uuid_or_404("member", user_id))
    command = ChangeMemberRole(by=changer.user_id, user_id=wanted, role=role_of(body.role))
    organization_id = changer.organization_id
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=changer.caller.actor)
    async with services.read("organizations", position=intent.position) as connection:
        found = await find_member(connection, organization_id, wanted)
    if found is None:
        raise not_found("member")
    [shown] = await _shown(services, [found])
    return shown


@router.delete("/members/{user_id}")
async def remove_member(
    user_id: PathId, changer: Changer, services: Served, intent: Intended, request: Request, response: Response
) -> None:
    """Ends the membership at once; who is no member is gone already. For oneself it is leaving."""
    wanted = UserId(uuid_or_404("member", user_id))
    await _remove(changer, DismissMember(by=changer.user_id, user_id=wanted), services, intent)
    if wanted == changer.user_id:
        await move_session(services, changer.caller, None, intent, request, response)


@router.post("/leave")
async def leave(changer: Changer, services: Served, intent: Intended, request: Request, response: Response) -> None:
    """The session falls back to the personal workspace."""
    await _remove(changer, RemoveMember(user_id=changer.user_id), services, intent)
    await move_session(services, changer.caller, None, intent, request, response)


async def _remove(changer: Member, command: DismissMember | RemoveMember, services: Services, intent: Intent) -> None:
    organization_id: OrganizationId = changer.organization_id
    await intent.send(ORGANIZATION, organization_id, organization_id, command, actor=changer.caller.actor)
    async with services.read("organizations", position=intent.position):
        pass  # from here on the organisation is closed to them


async def _shown(services: Services, found: Sequence[MemberView]) -> list[MemberShown]:
    # across the tenants' wall: a person's row is their own, but whoever shares an organisation may read its names
    async with services.read("users", scope=EVERYTHING) as connection:
        users = await find_users(connection, [one.user_id for one in found])
    opened = await services.vault.open_all([text for one in found for text in _sealed(users.get(one.user_id))])
    shown = []
    for n, one in enumerate(found):
        username, email, first_name, last_name = (text or "" for text in opened[n * NAMES : (n + 1) * NAMES])
        shown.append(
            MemberShown(
                user_id=one.user_id,
                username=username,
                email=email,
                first_name=first_name,
                last_name=last_name,
                role=one.role,
                created_at=one.joined_at,
            )
        )
    return shown


def _sealed(user: UserView | None) -> tuple[Sealed, ...]:
    """NAMES texts; what belongs to nobody opens to nothing."""
    return (user.username, user.email, user.first_name, user.last_name) if user else (Sealed(""),) * NAMES
