"""The signed-in person's own data: /auth/me. A new password ends every other session of that person."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from domain.decider import Rejected
from domain.ids import PLATFORM
from domain.roles import Role
from domain.user import USER, RecordPasswordSet
from domain.values import Plan
from projections.organizations import find_organization
from projections.users import UserView, find_user
from web.auth import Caller, Position, Served, SignedIn, address_of
from web.emails import checked_email
from web.errors import ApiError
from web.intent import Intended
from web.people import Names, checked_username, end_sessions, names_of, profile_change, require_good_password
from web.services import Services
from web.shapes import Body, Reply
from web.sign_in import is_right
from web.sign_in_rules import SignInAttempt

router = APIRouter(prefix="/auth/me", tags=["profile"])

PersonsName = Annotated[str, Field(max_length=100)]


class MyProfile(Reply):
    """`current_organization_*` are null in the personal workspace."""

    user_id: str
    username: str
    email: str
    role: str
    first_name: str
    last_name: str
    account_plan: Plan
    current_organization_id: str | None
    current_organization_name: str | None
    current_organization_slug: str | None
    current_organization_role: Role | None
    current_organization_subscription_plan: Plan | None


class ProfileChange(Body):
    """What is not given stays."""

    username: str | None = None
    email: str | None = None
    first_name: PersonsName | None = None
    last_name: PersonsName | None = None

    def on(self, before: Names) -> Names:
        """Raises ApiError: 400 invalid_username, email_required, invalid_email_format."""
        return Names(
            username=before.username if self.username is None else checked_username(self.username),
            email=before.email if self.email is None else checked_email(self.email),
            first_name=before.first_name if self.first_name is None else self.first_name.strip(),
            last_name=before.last_name if self.last_name is None else self.last_name.strip(),
        )


class PasswordChange(Body):
    current_password: str = Field(min_length=1, max_length=4096)
    new_password: str = Field(max_length=4096)


@router.get("")
async def me(caller: SignedIn, services: Served, position: Position) -> MyProfile:
    return await _shown(services, caller, position)


@router.put("")
async def change_me(body: ProfileChange, caller: SignedIn, services: Served, intent: Intended) -> MyProfile:
    """Another e-mail address voids a reset link that was mailed to the old one."""
    user = await _own(services, caller)
    before = await names_of(services, user)
    command = await profile_change(services, user, before, body.on(before))
    if command is not None:
        await intent.send(USER, PLATFORM, user.id, command, actor=caller.actor)
    return await _shown(services, caller, intent.position)


@router.put("/password")
async def change_my_password(
    body: PasswordChange, request: Request, caller: SignedIn, services: Served, intent: Intended
) -> None:
    """Ends all other sessions; this one stays."""
    user = await _own(services, caller)
    attempt = SignInAttempt(user.id, "", address_of(request))
    code = "current_password_invalid"
    if not await is_right(request, services, attempt, body.current_password, action="password_change", wrong_code=code):
        raise ApiError(400, code, "This is not your current password.")
    require_good_password(services, body.new_password, await names_of(services, user))
    await services.passwords.keep(user.id, await services.passwords.hashed(body.new_password))
    await intent.send(USER, PLATFORM, user.id, RecordPasswordSet(), actor=caller.actor)
    await end_sessions(services, intent, user.id, actor=caller.actor, keep=caller.session_id)


async def _own(services: Services, caller: Caller, position: int = 0) -> UserView:
    async with services.read("users", position=position) as connection:
        user = await find_user(connection, caller.user_id)
    if user is None:
        raise Rejected("user_not_found", "There is no user with this id.")
    return user


async def _shown(services: Services, caller: Caller, position: int) -> MyProfile:
    user = await _own(services, caller, position)
    names = await names_of(services, user)
    async with services.read("organizations", position=position) as connection:
        found = await find_organization(connection, caller.organization_id, user.id) if caller.organization_id else None
    return MyProfile(
        user_id=user.id,
        username=names.username,
        email=names.email,
        role=user.role,
        first_name=names.first_name,
        last_name=names.last_name,
        account_plan=user.plan,
        current_organization_id=found.id if found else None,
        current_organization_name=found.name if found else None,
        current_organization_slug=found.slug if found else None,
        current_organization_role=found.role if found else None,
        current_organization_subscription_plan=found.plan if found else None,
    )
