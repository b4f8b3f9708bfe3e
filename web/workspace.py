"""Moving a session from one workspace into another: its event, its row, and a browser's cookie that says so too."""

from fastapi import Request, Response

from domain.ids import PLATFORM
from domain.session import SESSION, SwitchWorkspace
from projections.organizations import OrganizationView
from projections.sessions import find_session
from projections.users import find_user
from web.auth import Caller
from web.intent import Intent
from web.services import Services
from web.tokens import COOKIE, set_cookie, signed_token


async def move_session(
    services: Services,
    caller: Caller,
    organization: OrganizationView | None,
    intent: Intent,
    request: Request,
    response: Response,
) -> None:
    """Records the switch (None: into the personal workspace) and waits until the session's row shows it.

    The reply's cookie replaces the browser's own. A bearer token stays as it is: it names the session, whose row has
    moved.
    """
    command = SwitchWorkspace(organization_id=organization.id if organization else None)
    position = await intent.send(SESSION, PLATFORM, caller.session, command, actor=caller.actor)
    async with services.read("sessions", "users", position=position) as connection:
        session = await find_session(connection, caller.session)
        user = await find_user(connection, caller.user_id)
    if session is None or user is None or COOKIE not in request.cookies:
        return
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
