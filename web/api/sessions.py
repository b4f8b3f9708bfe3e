"""Signing in and out: /auth. A login is a session aggregate; the cookie only names it."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from domain.decider import Rejected
from domain.ids import PLATFORM, OrganizationId, SessionId
from domain.roles import Role
from domain.session import SESSION, OpenSession, RevokeSession
from domain.values import Sealed
from projections.organizations import OrganizationView, find_organization, list_organizations
from projections.sessions import find_session, list_sessions
from projections.users import UserView, find_user, find_user_by_digest
from web.auth import Caller, Position, Served, SignedIn, public
from web.errors import ApiError
from web.intent import Intended
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404
from web.tokens import clear_cookie, jti_of, set_cookie, signed_token, token_hash

router = APIRouter(prefix="/auth", tags=["sign-in"])

SECRET_BYTES = 32


class Login(Body):
    email: str = Field(min_length=1, max_length=320, description="The username or the e-mail address.")
    password: str = Field(min_length=1, max_length=128)


class SignedInUser(Reply):
    user_id: str
    email: str
    role: str
    first_name: str
    last_name: str


class Profile(SignedInUser):
    username: str
    current_organization_id: str | None
    current_organization_name: str | None
    current_organization_slug: str | None
    current_organization_role: Role | None


class SessionShown(Reply):
    session_id: str
    current_organization_id: str | None
    current_organization_name: str | None
    organization_role: Role | None
    created_at: datetime
    expires_at: datetime
    is_current: bool


@router.post("/login", dependencies=[Depends(public)])
async def login(body: Login, services: Served, intent: Intended, response: Response) -> SignedInUser:
    """Opens a session; its token comes as the cookie `inventiv_session`, and serves as a bearer token too."""
    user = await _verified(services, body)
    organization = await _last_workspace(services, user)
    session_id = SessionId(intent.draw.id("session"))
    jti = jti_of(session_id, intent.draw.secret("session", SECRET_BYTES).hex())
    expires_at = intent.draw.at + timedelta(seconds=services.settings.session_ttl_s)
    command = OpenSession(
        user_id=user.id,
        organization_id=organization.id if organization else None,
        token_sha256=token_hash(jti),
        expires_at=expires_at,
        ip=Sealed(""),
        user_agent=Sealed(""),
    )
    position = await intent.send(SESSION, PLATFORM, session_id, command, actor=f"user:{user.id}")
    async with services.read("sessions", position=position):
        pass  # the next request will look this session up
    email, first_name, last_name = await _opened(services, user)
    token = signed_token(
        services.settings,
        user_id=user.id,
        email=email,
        role=user.role,
        session_id=session_id,
        organization_id=organization.id if organization else None,
        organization_role=organization.role if organization else None,
        jti=jti,
        at=intent.draw.at,
        expires_at=expires_at,
    )
    set_cookie(response, services.settings, token, lasts=expires_at - services.clock())
    return SignedInUser(user_id=user.id, email=email, role=user.role, first_name=first_name, last_name=last_name)


async def _verified(services: Services, body: Login) -> UserView:
    """The user whose password this is; as slow, and as silent, for a name that nobody has."""
    username, email = services.vault.digest("username", body.email), services.vault.digest("email", body.email)
    async with services.read("users") as connection:
        user = await find_user_by_digest(connection, username_digest=username, email_digest=email)
    if not await services.passwords.verify(user.id if user else None, body.password) or user is None:
        raise ApiError(401, "invalid_credentials", "Name or password is wrong.")
    return user


async def _last_workspace(services: Services, user: UserView) -> OrganizationView | None:
    """The organisation of the newest session that still lives, else the user's first one."""
    async with services.read("sessions", "organizations") as connection:
        for session in await list_sessions(connection, user.id, now=services.clock()):
            if session.organization_id is None:
                return None
            if found := await find_organization(connection, session.organization_id, user.id):
                return found
        return next(iter(await list_organizations(connection, user.id)), None)


async def _opened(services: Services, user: UserView) -> tuple[str, str, str]:
    """E-mail address, first name, last name; empty once the person was forgotten."""
    opened = await services.vault.open_all([user.email, user.first_name, user.last_name])
    email, first_name, last_name = (text or "" for text in opened)
    return email, first_name, last_name


@router.post("/logout")
async def logout(caller: SignedIn, services: Served, intent: Intended, response: Response) -> None:
    """Ends this session for good and clears the cookie."""
    position = await intent.send(SESSION, PLATFORM, caller.session, RevokeSession(), actor=caller.actor)
    async with services.read("sessions", position=position):
        pass  # from here on the token opens nothing
    clear_cookie(response, services.settings)


@router.get("/me")
async def me(caller: SignedIn, services: Served, position: Position) -> Profile:
    async with services.read("users", "organizations", position=position) as connection:
        user = await find_user(connection, caller.user_id)
        organization = (
            await find_organization(connection, caller.organization_id, caller.user_id)
            if caller.organization_id
            else None
        )
    if user is None:
        raise Rejected("user_not_found")
    email, first_name, last_name = await _opened(services, user)
    [username] = await services.vault.open_all([user.username])
    return Profile(
        user_id=user.id,
        username=username or "",
        email=email,
        role=user.role,
        first_name=first_name,
        last_name=last_name,
        current_organization_id=organization.id if organization else None,
        current_organization_name=organization.name if organization else None,
        current_organization_slug=organization.slug if organization else None,
        current_organization_role=organization.role if organization else None,
    )


@router.get("/sessions")
async def my_sessions(caller: SignedIn, services: Served, position: Position) -> list[SessionShown]:
    """The caller's live sessions, newest first."""
    async with services.read("sessions", "organizations", position=position) as connection:
        sessions = await list_sessions(connection, caller.user_id, now=services.clock())
        organizations = {one.id: one for one in await list_organizations(connection, caller.user_id)}
    return [
        SessionShown(
            session_id=session.id,
            current_organization_id=session.organization_id,
            current_organization_name=_name(organizations, session.organization_id),
            organization_role=_role(organizations, session.organization_id),
            created_at=session.created_at,
            expires_at=session.expires_at,
            is_current=session.id == caller.session_id,
        )
        for session in sessions
    ]


def _name(organizations: dict[OrganizationId, OrganizationView], one: OrganizationId | None) -> str | None:
    return organizations[one].name if one in organizations else None


def _role(organizations: dict[OrganizationId, OrganizationView], one: OrganizationId | None) -> Role | None:
    return organizations[one].role if one in organizations else None


@router.post("/sessions/{session_id}/revoke")
async def revoke_session(session_id: PathId, caller: SignedIn, services: Served, intent: Intended) -> None:
    """Ends another session of the caller."""
    wanted = SessionId(uuid_or_404("session", session_id))
    await _require_own(services, caller, wanted)
    position = await intent.send(SESSION, PLATFORM, wanted, RevokeSession(), actor=caller.actor)
    async with services.read("sessions", position=position):
        pass  # from here on its token opens nothing


async def _require_own(services: Services, caller: Caller, session_id: SessionId) -> None:
    """A stranger's session is answered like none at all, so that ids cannot be tried out."""
    if session_id == caller.session_id:
        raise ApiError(400, "cannot_revoke_current_session", "This is your current session; sign out instead.")
    async with services.read("sessions") as connection:
        session = await find_session(connection, session_id)
    if session is None or session.user_id != caller.user_id:
        raise Rejected("session_not_found", "There is no session with this id.")
