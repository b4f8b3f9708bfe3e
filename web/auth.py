"""Who calls, and whether they may: every endpoint takes exactly one of the dependencies of this file.

    cookie ─┐
    X-API-Key ─┼─> identify ──> Caller ──> public | signed_in | member(action) | platform_admin | worker
    Bearer ─┘      (session row, membership: read with each request, never from the token's claims)

The surprising rule: a cookie alone changes nothing. A browser sends it along with a foreign page's form too, so a write
that is authenticated by cookie must also carry `X-Requested-With`, or an `Origin` that is our own host.
"""

import hmac
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from domain.api_key import KEY_PREFIX, is_well_formed, key_hash
from domain.ids import PLATFORM, ApiKeyId, OrganizationId, SessionId, UserId
from domain.key_scope import SENTENCES, compiled, lesser_role, refusal_of
from domain.network import client_address
from domain.permissions import Action, is_allowed
from domain.roles import Role
from domain.user import PlatformRole
from projections.api_keys import ApiKeyView, find_api_key_by_hash
from projections.organizations import find_profile, find_role
from projections.projection import EVERYTHING, NOBODY, Connection, Scope
from projections.sessions import find_session
from projections.users import find_user
from web.denials import Principal, note_principal
from web.errors import STATUS_OF, ApiError
from web.services import Services
from web.tokens import COOKIE, read_token, token_hash

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_POSITION = 2**63 - 1
MAX_CREDENTIAL_LENGTH = 4096
NO_USER = UserId("")


@dataclass(frozen=True)
class Caller:
    """Who is behind a request.

    Attributes:
        user_id: NO_USER for an organisation's own key, which is no person's.
        organization_id: the workspace; None for the personal one.
        role: in that workspace.
        session_id: None for a caller with an API key.
        jti: of the session's token.
    """

    user_id: UserId
    platform_role: PlatformRole
    organization_id: OrganizationId | None
    role: Role | None
    session_id: SessionId | None = None
    jti: str = ""
    api_key_id: ApiKeyId | None = None

    @property
    def session(self) -> SessionId:
        """Of a caller whom signed_in let through; raises ApiError 401 for any other."""
        if self.session_id is None:
            raise _session_needed()
        return self.session_id

    @property
    def actor(self) -> str:
        return f"key:{self.api_key_id}" if self.api_key_id else f"user:{self.user_id}"

    @property
    def origin(self) -> str:
        """See domain.message.Envelope."""
        return f"key:{self.api_key_id}" if self.api_key_id else f"session:{self.session_id}"

    @property
    def principal(self) -> Principal:
        """Whom a refusal is recorded for."""
        id_ = self.api_key_id or self.user_id
        return Principal(id_, self.actor, organization=self.organization_id or PLATFORM, origin=self.origin)

    @property
    def scope(self) -> Scope:
        """What the caller's queries may see; a key sees nothing that is its owner's alone."""
        return Scope(organization=self.organization_id or "", user=self.user_id if self.session_id else "")


@dataclass(frozen=True)
class Member:
    """A caller inside an organisation, allowed to do what the endpoint names."""

    caller: Caller
    organization_id: OrganizationId
    role: Role

    @property
    def user_id(self) -> UserId:
        return self.caller.user_id

    def may(self, action: Action) -> bool:
        return is_allowed(self.role, action)


def address_of(request: Request) -> str:
    """The client's address, as our own proxies tell it."""
    peer = request.client.host if request.client else ""
    trusted = services_of(request).settings.trusted_proxies
    return client_address(peer, request.headers.getlist("x-forwarded-for"), trusted)


def services_of(request: Request) -> Services:
    """The ports as they are: a read without a scope sees what is public."""
    services: Services = request.app.state.services
    return services


def served(request: Request) -> Services:
    """The ports for an endpoint: a read without a scope sees what the caller may see.

    Whose scope it is is looked up with each read, for this runs before the access rule has identified anybody.
    """
    services = services_of(request)

    def read(
        *projections: str, position: int = 0, scope: Scope | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        return services.read(*projections, position=position, scope=scope_of(request) if scope is None else scope)

    return replace(services, read=read)


def scope_of(request: Request) -> Scope:
    """What the caller's queries may see; nothing of anybody's before one was identified."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller.scope if caller else NOBODY


def asked_position(request: Request) -> int:
    """The position that the caller wants to see; 0 when it did not say.

    Raises:
        ApiError: 400 invalid_position.
    """
    given = request.headers.get("event-position") or request.query_params.get("position") or "0"
    if not (given.isascii() and given.isdigit() and int(given[:20]) <= MAX_POSITION):
        raise ApiError(400, "invalid_position", "Event-Position is a whole number, as a reply's header gave it.")
    return int(given[:20])


async def identify(request: Request) -> Caller:
    """Reads the credential and looks it up; once per request, however often it is asked.

    Raises:
        ApiError: 401 with one of SPEC 1's codes.
        NotYetVisibleError, OSError: the read models do not answer.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        known = await _identify(request, services_of(request))
        request.state.caller = known
        note_principal(request, known.principal)
    return known


async def _identify(request: Request, services: Services) -> Caller:
    _refuse_several_credentials(request)
    bearer = bearer_of(request)
    if cookie := request.cookies.get(COOKIE):
        caller = await _by_token(services, cookie, asked_position(request))
        note_principal(request, caller.principal)  # a foreign page's attempt goes into its victim's audit log
        _refuse_foreign_pages(request)
        return caller
    if key := request.headers.get("x-api-key"):
        return await _by_key(request, services, key)
    if bearer.startswith(KEY_PREFIX):
        return await _by_key(request, services, bearer)
    if bearer:
        return await _by_token(services, bearer, asked_position(request))
    raise ApiError(401, "login_required", "Sign in first: POST /auth/login.")


def bearer_of(request: Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip()[:MAX_CREDENTIAL_LENGTH] if scheme.lower() == "bearer" else ""


def _refuse_several_credentials(request: Request) -> None:
    """One request, one caller: who sends two could have one of them checked and the other one used."""
    headers = request.headers
    bearers = [value for value in headers.getlist("authorization") if value.lower().startswith("bearer ")]
    if len(bearers) + len(headers.getlist("x-api-key")) + bool(request.cookies.get(COOKIE)) > 1:
        raise ApiError(400, "multiple_credentials", "Send one credential: a cookie, a bearer token or an API key.")


def _refuse_foreign_pages(request: Request) -> None:
    """Browsers let a foreign page send our cookie, but neither this header nor a forged Origin."""
    if request.method in SAFE_METHODS or request.headers.get("x-requested-with"):
        return
    origin = request.headers.get("origin", "")
    if not origin or urlsplit(origin).netloc != request.headers.get("host", ""):
        raise ApiError(403, "csrf_check_failed", "Send the header X-Requested-With with a change made by cookie.")


async def _by_token(services: Services, token: str, position: int) -> Caller:
    signed = read_token(services.settings, token, at=services.clock())
    if signed is None:
        raise ApiError(401, "invalid_token", "This token is not valid; sign in again.")
    ended = ApiError(401, "session_invalid_or_expired", "This session has ended; sign in again.")
    names = ("sessions", "users", "organizations")
    async with services.read(*names, position=position, scope=EVERYTHING) as connection:  # whose token, is the question
        session = await find_session(connection, signed.session_id)
        if session is None or not session.is_live(services.clock()):
            raise ended
        if not hmac.compare_digest(session.token_sha256, token_hash(signed.jti)):
            raise ended
        user = await find_user(connection, session.user_id)
        if user is None:
            raise ended
        role = await find_role(connection, session.organization_id, user.id) if session.organization_id else None
    services.session_uses.note(session.id, user.id, services.clock())
    return Caller(
        user_id=user.id,
        platform_role=user.role,
        organization_id=session.organization_id if role else None,
        role=role,
        session_id=session.id,
        jti=signed.jti,
    )


async def _by_key(request: Request, services: Services, key: str) -> Caller:
    """A key acts in its own organisation, for its owner or for the organisation itself, and never beyond its scope."""
    refused = ApiError(401, "invalid_api_key", "This API key is unknown or revoked.")
    if not is_well_formed(key):
        raise refused
    now = services.clock()
    # across tenants: whose key it is, is the question
    async with services.read("api_keys", "users", "organizations", scope=EVERYTHING) as connection:
        found = await find_api_key_by_hash(connection, key_hash(key), now=now)
        if found is None:
            raise refused
        caller = Caller(
            user_id=found.owner or NO_USER,
            platform_role="user",
            organization_id=found.organization_id,
            role=await _role_of_key(connection, found),
            api_key_id=found.id,
        )
    note_principal(request, caller.principal)
    if found.revoked_at is not None or caller.role is None:
        raise refused
    _refuse_unfit_key(found, address_of(request), now)
    return caller


async def _role_of_key(connection: Connection, key: ApiKeyView) -> Role | None:
    """What a key may do at the moment; None: nothing any more, for its owner left or its organisation is gone."""
    if key.owner is None:
        return key.scope.role if await find_profile(connection, key.organization_id) else None
    owner = await find_user(connection, key.owner)
    role = await find_role(connection, key.organization_id, key.owner)
    return lesser_role(key.scope.role, role) if owner and role else None


def _refuse_unfit_key(key: ApiKeyView, address: str, now: datetime) -> None:
    if missing := key.activation.missing:
        message = f"This API key is not activated: {' and '.join(missing)} activation is missing."
        raise ApiError(STATUS_OF["api_key_not_operational"], "api_key_not_operational", message)
    if refusal := refusal_of(compiled(key.scope), endpoint="rest", address=address, now=now):
        raise ApiError(STATUS_OF[refusal], refusal, SENTENCES[refusal])


async def public() -> None:
    """Anyone, without a credential."""


async def worker() -> None:
    """A worker agent; its endpoint checks the token against the instance that the body names (workers.py)."""


async def signed_in(request: Request) -> Caller:
    """Any person with a live session."""
    caller = await identify(request)
    if caller.session_id is None:
        raise _session_needed()
    return caller


def _session_needed() -> ApiError:
    return ApiError(401, "login_required", "This needs a signed-in session; an API key will not do.")


async def signed_in_or_key(request: Request) -> Caller:
    """Any person with a live session, or an API key acting for its owner."""
    return await identify(request)


async def platform_admin(request: Request) -> Caller:
    """A person with the global role admin."""
    caller = await signed_in(request)
    if caller.platform_role != "admin":
        raise ApiError(403, "admin_required", "This needs a platform administrator.")
    return caller


def member(
    action: Action, *, keys: bool = False, refusal: str = "insufficient_permissions"
) -> Callable[[Request], Awaitable[Member]]:
    """A dependency: a member of the current organisation whose role allows `action`; API keys too where `keys`.

    `refusal`: the code for a role that does not, where SPEC has a word of its own.
    """

    async def allowed(request: Request) -> Member:
        caller = await (signed_in_or_key(request) if keys else signed_in(request))
        if caller.organization_id is None or caller.role is None:
            raise ApiError(400, "no_current_organization", "Choose an organisation: PUT /organizations/current.")
        if not is_allowed(caller.role, action):
            raise ApiError(403, refusal, f"Role {caller.role} does not allow {action}.")
        return Member(caller, caller.organization_id, caller.role)

    ACCESS_RULES[allowed] = AccessRule(action, keys=keys, refusal=refusal)
    return allowed


@dataclass(frozen=True)
class AccessRule:
    """What a dependency asks of the caller.

    Attributes:
        name: an action of domain/permissions.py, or the dependency's own name.
        keys: API keys are let in as well.
        refusal: the code for a role that does not allow the action.
    """

    name: str
    keys: bool = False
    refusal: str = ""


ACCESS_RULES: dict[Callable[..., Awaitable[object]], AccessRule] = {
    public: AccessRule("public", keys=True),
    worker: AccessRule("worker"),
    signed_in: AccessRule("signed_in"),
    signed_in_or_key: AccessRule("signed_in_or_key", keys=True),
    platform_admin: AccessRule("platform_admin", refusal="admin_required"),
}
"""Every dependency that decides about access; the application starts only if each route has exactly one (declared.py).
What follows from them for each route and caller is tested cell by cell in tests/rights."""

SignedIn = Annotated[Caller, Depends(signed_in)]
SignedInOrKey = Annotated[Caller, Depends(signed_in_or_key)]
PlatformAdmin = Annotated[Caller, Depends(platform_admin)]
Served = Annotated[Services, Depends(served)]
Position = Annotated[int, Depends(asked_position)]
