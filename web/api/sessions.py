"""Signing in and out, and the list of one's sessions. A login is a session aggregate; the cookie only names it.

Each session remembers, sealed as its person's data, from which address and browser it was opened. The surprising rule:
the eleventh login ends the oldest of ten sessions.
"""

from datetime import datetime, timedelta

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from domain.decider import Rejected
from domain.ids import PLATFORM, OrganizationId, SessionId
from domain.roles import Role
from domain.session import SESSION, OpenSession, RevokeSession
from domain.values import Sealed
from projections.organizations import OrganizationView, find_organization, list_organizations
from projections.projection import Scope
from projections.sessions import find_last_session, find_session, list_sessions
from projections.users import UserView
from web.auth import Caller, Position, Served, SignedIn, address_of, public
from web.errors import ApiError
from web.intent import Intended, Intent
from web.password_rules import MAX_PASSWORD_LENGTH
from web.people import names_of
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404
from web.sign_in import verified
from web.tokens import clear_cookie, jti_of, set_cookie, signed_token, token_hash

router = APIRouter(prefix="/auth", tags=["sign-in"])

SECRET_BYTES = 32
MAX_SESSIONS = 10
"""Live ones of a user."""
MAX_USER_AGENT_LENGTH = 200


class Login(Body):
    email: str = Field(min_length=1, max_length=320, description="The username or the e-mail address.")
    password: str = Field(min_length=1, max_length=MAX_PASSWORD_LENGTH)


class SignedInUser(Reply):
    user_id: str
    email: str
    role: str
    first_name: str
    last_name: str


class SessionShown(Reply):
    """`ip` and `user_agent` as they were at the login; empty where nothing was known."""

    session_id: str
    current_organization_id: str | None
    current_organization_name: str | None
    organization_role: Role | None
    ip: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime = Field(description="May be a minute behind.")
    expires_at: datetime
    is_current: bool


@router.post("/login", dependencies=[Depends(public)])
async def login(body: Login, request: Request, services: Served, intent: Intended, response: Response) -> SignedInUser:
    """Opens a session; its token comes as the cookie `inventiv_session`, and serves as a bearer token too."""
    user = await verified(request, services, name=body.email, password=body.password)
    organization = await _last_workspace(services, user)
    session_id = SessionId(intent.draw.id("session"))
    jti = jti_of(session_id, intent.draw.secret("session", SECRET_BYTES).hex())
    expires_at = intent.draw.at + timedelta(seconds=services.settings.session_ttl_s)
    command = OpenSession(
        user_id=user.id,
        organization_id=organization.id if organization else None,
        token_sha256=token_hash(jti),
        expires_at=expires_at,
        ip=await _sealed(services, user, "ip", address_of(request)),
        user_agent=await _sealed(services, user, "user_agent", request.headers.get("user-agent", "")),
    )
    await intent.send(SESSION, PLATFORM, session_id, command, actor=f"user:{user.id}")
    await _end_oldest(services, intent, user)
    names = await names_of(services, user)
    token = signed_token(
        services.settings,
        user_id=user.id,
        email=names.email,
        role=user.role,
        session_id=session_id,
        organization_id=organization.id if organization else None,
        organization_role=organization.role if organization else None,
        jti=jti,
        at=intent.draw.at,
        expires_at=expires_at,
    )
    set_cookie(response, services.settings, token, lasts=expires_at - services.clock())
    return SignedInUser(
        user_id=user.id, email=names.email, role=user.role, first_name=names.first_name, last_name=names.last_name
    )


async def _sealed(services: Services, user: UserView, field: str, text: str) -> Sealed:
    text = "".join(character for character in text[:MAX_USER_AGENT_LENGTH] if character.isprintable())
    return await services.vault.seal(user.id, field, text) if text else Sealed("")


async def _end_oldest(services: Services, intent: Intent, user: UserView) -> None:
    """Waits until the new session can be looked up, and ends those that are one too many."""
    async with services.read("sessions", position=intent.position, scope=Scope(user=user.id)) as connection:
        sessions = await list_sessions(connection, user.id, now=services.clock())
    for session in sessions[MAX_SESSIONS:]:
        await intent.send(SESSION, PLATFORM, session.id, RevokeSession(), actor=f"user:{user.id}")


async def _last_workspace(services: Services, user: UserView) -> OrganizationView | None:
    """Where the newest session that was not revoked left off, else the user's first organisation."""
    async with services.read("sessions", "organizations", scope=Scope(user=user.id)) as connection:
        last = await find_last_session(connection, user.id)
        if last is not None and last.organization_id is None:
            return None
        if last and (found := await find_organization(connection, last.organization_id or "", user.id)):
            return found
        return next(iter(await list_organizations(connection, user.id)), None)


@router.post("/logout")
async def logout(caller: SignedIn, services: Served, intent: Intended, response: Response) -> None:
    """Ends this session for good and clears the cookie."""
    position = await intent.send(SESSION, PLATFORM, caller.session, RevokeSession(), actor=caller.actor)
    async with services.read("sessions", position=position):
        pass  # from here on the token opens nothing
    clear_cookie(response, services.settings)


@router.get("/sessions")
async def my_sessions(caller: SignedIn, services: Served, position: Position) -> list[SessionShown]:
    """The caller's live sessions, newest first."""
    async with services.read("sessions", "organizations", position=position) as connection:
        sessions = await list_sessions(connection, caller.user_id, now=services.clock())
        organizations = {one.id: one for one in await list_organizations(connection, caller.user_id)}
    used = await services.session_uses.last_used([session.id for session in sessions])
    opened = iter(await services.vault.open_all([text for one in sessions for text in (one.ip, one.user_agent)]))
    return [
        SessionShown(
            session_id=session.id,
            current_organization_id=session.organization_id,
            current_organization_name=_name(organizations, session.organization_id),
            organization_role=_role(organizations, session.organization_id),
            ip=next(opened) or "",
            user_agent=next(opened) or "",
            created_at=session.created_at,
            last_used_at=used.get(session.id, session.created_at),
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
