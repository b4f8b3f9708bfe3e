"""Users of the whole platform, for its administrators: create, look for, change, forget.

    DELETE ──> the only owner? 409 ──> memberships end ──> UserForgotten ──> sessions end ──> (reaction) all is erased

The surprising rule: nobody changes their own role or deletes themselves, so an administrator is always left.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from domain.decider import Rejected
from domain.delegation import is_last_owner
from domain.ids import PLATFORM, UserId
from domain.organization import ORGANIZATION
from domain.organization_commands import RemoveMember
from domain.roles import Role
from domain.user import (
    USER,
    ChangeAccountPlan,
    ChangePlatformRole,
    CreateUser,
    ForgetUser,
    PlatformRole,
    RecordPasswordSet,
    UserCommand,
)
from domain.values import Plan
from projections.organizations import list_organizations
from projections.projection import EVERYTHING
from projections.query import MAX_LIST_ROWS, Direction
from projections.users import NO_DIGEST, UserView, find_user, find_user_by_digest, list_users
from web.api.profile import PersonsName, ProfileChange
from web.auth import PlatformAdmin, Position, Served
from web.emails import checked_email
from web.errors import ApiError
from web.intent import Intended, Intent
from web.people import (
    MAX_USERNAME_LENGTH,
    Names,
    all_names_of,
    checked_username,
    end_sessions,
    names_of,
    profile_change,
    require_good_password,
)
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404
from web.user_search import UserPage, UserShown, UserSort, UserWish, found_users, shown

router = APIRouter(prefix="/users", tags=["users"])

ENDING_LENGTH = 6
"""Characters of the id that tell two users apart whose addresses begin alike."""


class NewUser(Body):
    username: str | None = None
    email: str
    password: str = Field(max_length=4096)
    role: PlatformRole = "user"
    first_name: PersonsName = ""
    last_name: PersonsName = ""


class UserChange(ProfileChange):
    """What is not given stays. A new role or password ends the user's sessions."""

    password: str | None = Field(default=None, max_length=4096)
    role: PlatformRole | None = None
    account_plan: Plan | None = None


class Forgetting(Reply):
    """`erased_at`: when nothing of the person could be read any more; null while that is under way."""

    user_id: str
    erased_at: datetime | None


@router.get("")
async def users(_admin: PlatformAdmin, services: Served, position: Position) -> list[UserShown]:
    """The newest first, at most 1000; /users/search has pages."""
    # platform administration: the route's access rule lets nobody else in
    async with services.read("users", position=position, scope=EVERYTHING) as connection:
        found = await list_users(connection, rows=MAX_LIST_ROWS)
    return [shown(user, names) for user, names in zip(found, await all_names_of(services, found), strict=True)]


@router.get("/search")
async def search_users(
    _admin: PlatformAdmin,
    services: Served,
    position: Position,
    q: Annotated[str, Query(max_length=320, description="A username or e-mail address, or a part of one.")] = "",
    organization_id: Annotated[str, Query(max_length=64)] = "",
    organization_role: Role | None = None,
    sort_by: UserSort = "created_at",
    sort_dir: Direction = "asc",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1)] = 200,
) -> UserPage:
    """One row for each user and organisation. A part of a name is found among the newest users only."""
    wish = UserWish(q, organization_id, organization_role, sort_by, sort_dir, offset, limit)
    return await found_users(services, wish, position)


@router.post("", status_code=201)
async def create_user(body: NewUser, admin: PlatformAdmin, services: Served, intent: Intended) -> UserShown:
    """Without a username, the e-mail address gives one."""
    user_id = UserId(intent.draw.id("user"))
    email = checked_email(body.email)
    username = checked_username(body.username) if body.username else await _free_username(services, email, user_id)
    names = Names(username, email, body.first_name.strip(), body.last_name.strip())
    require_good_password(services, body.password, names)
    await _require_free_email(services, email, user_id)
    hashed = await services.passwords.hashed(body.password)
    command = CreateUser(
        **{field: await services.vault.seal(user_id, field, text) for field, text in vars(names).items()},
        username_digest=services.vault.digest("username", username),
        email_digest=services.vault.digest("email", email),
        role=body.role,
    )
    await intent.send(USER, PLATFORM, user_id, command, actor=admin.actor)
    await services.passwords.keep(user_id, hashed)
    await intent.send(USER, PLATFORM, user_id, RecordPasswordSet(), actor=admin.actor)
    return await _shown(services, user_id, intent.position)


@router.get("/{user_id}")
async def user(user_id: PathId, _admin: PlatformAdmin, services: Served, position: Position) -> UserShown:
    return await _shown(services, uuid_or_404("user", user_id), position)


@router.put("/{user_id}")
async def change_user(
    user_id: PathId, body: UserChange, admin: PlatformAdmin, services: Served, intent: Intended
) -> UserShown:
    """All that is given, or the first refusal. Nobody changes their own role: there is always an administrator left."""
    found = await _found(services, uuid_or_404("user", user_id))
    new_role = body.role not in {None, found.role}
    if new_role and found.id == admin.user_id:
        raise ApiError(400, "cannot_change_own_role", "Ask another administrator to change your role.")
    before = await names_of(services, found)
    after = body.on(before)
    hashed = await _hashed(services, body.password, after)
    for command in await _changes(services, body, found, before, after):
        await intent.send(USER, PLATFORM, found.id, command, actor=admin.actor)
    if hashed:
        await services.passwords.keep(found.id, hashed)
        await intent.send(USER, PLATFORM, found.id, RecordPasswordSet(), actor=admin.actor)
    if hashed or new_role:
        keep = admin.session_id if found.id == admin.user_id else None
        await end_sessions(services, intent, found.id, actor=admin.actor, keep=keep)
    return await _shown(services, found.id, intent.position)


async def _hashed(services: Services, password: str | None, names: Names) -> str:
    """Judged and hashed before anything is changed; "" for none."""
    if password is None:
        return ""
    require_good_password(services, password, names)
    return await services.passwords.hashed(password)


async def _changes(
    services: Services, body: UserChange, user: UserView, before: Names, after: Names
) -> list[UserCommand]:
    profile = await profile_change(services, user, before, after)
    commands: list[UserCommand] = [profile] if profile else []
    if body.account_plan is not None:
        commands.append(ChangeAccountPlan(plan=body.account_plan))
    if body.role is not None:
        commands.append(ChangePlatformRole(role=body.role))
    return commands


@router.delete("/{user_id}", status_code=204)
async def forget_user(user_id: PathId, admin: PlatformAdmin, services: Served, intent: Intended) -> None:
    """Forgets the person, for ever: what is sealed for them becomes noise; GET .../forgetting tells when that is done.

    409 while an organisation would be left without an owner.
    """
    wanted = UserId(uuid_or_404("user", user_id))
    if wanted == admin.user_id:
        raise ApiError(400, "cannot_delete_self", "Ask another administrator to delete you.")
    await _found(services, wanted)
    await _end_memberships(services, intent, wanted, actor=admin.actor)
    await intent.send(USER, PLATFORM, wanted, ForgetUser(), actor=admin.actor)
    await end_sessions(services, intent, wanted, actor=admin.actor)


@router.get("/{user_id}/forgetting")
async def forgetting(user_id: PathId, _admin: PlatformAdmin, services: Served) -> Forgetting:
    """How far the forgetting of a deleted user is; 404 for any other id."""
    wanted = uuid_or_404("user", user_id)
    if not (await services.load(USER, PLATFORM, wanted)).state.forgotten:
        raise _no_user()
    return Forgetting(user_id=wanted, erased_at=await services.vault.erased_at(wanted))


async def _end_memberships(services: Services, intent: Intent, user_id: UserId, *, actor: str) -> None:
    """Looks at all of them first; each organisation decides for itself once more."""
    # the administrator is no member there
    async with services.read("organizations", scope=EVERYTHING) as connection:
        theirs = await list_organizations(connection, user_id)
    owned = [one for one in theirs if one.role == "owner"]
    members = [(await services.load(ORGANIZATION, one.id, one.id)).state.members for one in owned]
    left = [
        f"{one.name} ({one.slug})" for one, those in zip(owned, members, strict=True) if is_last_owner(those, user_id)
    ]
    if left:
        message = f"Without this person these would have no owner: {', '.join(left)}. Give each another one first."
        raise Rejected("last_owner_cannot_be_removed", message)
    for one in theirs:
        await intent.send(ORGANIZATION, one.id, one.id, RemoveMember(user_id=user_id), actor=actor)


async def _require_free_email(services: Services, email: str, user_id: UserId) -> None:
    """SPEC's own word for it; who takes the address a moment later is stopped by its reservation."""
    holder = await _holder(services, "email", email)
    if holder is not None and holder.id != user_id:
        raise ApiError(409, "email_already_exists", "There is a user with this e-mail address.")


async def _free_username(services: Services, email: str, user_id: UserId) -> str:
    name = email.partition("@")[0]
    holder = await _holder(services, "username", name)
    ending = f"-{user_id[-ENDING_LENGTH:]}"
    return name if holder is None or holder.id == user_id else f"{name[: MAX_USERNAME_LENGTH - len(ending)]}{ending}"


async def _holder(services: Services, kind: Literal["username", "email"], text: str) -> UserView | None:
    digests = {"username_digest": NO_DIGEST, "email_digest": NO_DIGEST}
    digests[f"{kind}_digest"] = services.vault.digest(kind, text)
    async with services.read("users", scope=EVERYTHING) as connection:
        return await find_user_by_digest(connection, **digests)


async def _found(services: Services, user_id: str, position: int = 0) -> UserView:
    async with services.read("users", position=position, scope=EVERYTHING) as connection:
        found = await find_user(connection, user_id)
    if found is None:
        raise _no_user()
    return found


def _no_user() -> Rejected:
    return Rejected("user_not_found", "There is no user with this id.")


async def _shown(services: Services, user_id: str, position: int) -> UserShown:
    found = await _found(services, user_id, position)
    return shown(found, await names_of(services, found))
