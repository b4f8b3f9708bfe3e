"""A new password by a link in a mail, for who cannot sign in any more.

    request ──> 200, always the same ──> (reset_requests.py) ──> mail ──> reset with the token, once, within an hour

The surprising rule: the link is used up before the new password is stored, so that of two who hold it one gets in. If
the process dies in between, the old password stays and another link is needed.
"""

from hashlib import sha256

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from domain.ids import PLATFORM
from domain.user import USER, RecordPasswordSet
from projections.projection import EVERYTHING
from projections.users import UserView, find_user_by_reset_token
from web.auth import Served, address_of, public
from web.denials import record_denial
from web.errors import ApiError
from web.intent import Intended
from web.people import end_sessions, names_of, require_good_password
from web.reset_requests import ResetRequests
from web.services import Services
from web.shapes import Body, Reply
from web.sign_in import principal_of, refusal_of

router = APIRouter(prefix="/auth/password-reset", tags=["sign-in"])

SENT = "If somebody has this e-mail address, a link to set a new password is on its way to it."


class ResetWish(Body):
    email: str = Field(max_length=320)


class ResetWished(Reply):
    message: str


class Reset(Body):
    token: str = Field(default="", max_length=256)
    new_password: str = Field(default="", max_length=4096)


@router.post("/request", dependencies=[Depends(public)])
async def request_password_reset(body: ResetWish, request: Request, services: Served, intent: Intended) -> ResetWished:
    """Says the same for every address, at once; a mail follows only to somebody's. 429 for too many from one place."""
    await _within_limits(request, services)
    requests: ResetRequests = request.app.state.reset_requests
    requests.add(body.email, at=services.clock(), correlation=intent.draw.id("correlation"))
    return ResetWished(message=SENT)


@router.post("/reset", dependencies=[Depends(public)])
async def reset_password(body: Reset, request: Request, services: Served, intent: Intended) -> None:
    """Sets the password, once for each link, and ends every session. Signing in is a request of its own."""
    if not body.token.strip() or not body.new_password:
        raise ApiError(400, "token_and_password_required", "Send the link's token and the new password.")
    await _within_limits(request, services)
    token_sha256 = sha256(body.token.strip().encode()).hexdigest()
    user = await _holder(request, services, token_sha256)
    require_good_password(services, body.new_password, await names_of(services, user))
    hashed = await services.passwords.hashed(body.new_password)
    actor = f"user:{user.id}"
    await intent.send(USER, PLATFORM, user.id, RecordPasswordSet(reset_token_sha256=token_sha256), actor=actor)
    await services.passwords.keep(user.id, hashed)
    await services.sign_in_limits.clear(user.id)
    await end_sessions(services, intent, user.id, actor=actor)


async def _within_limits(request: Request, services: Services) -> None:
    refused = await services.sign_in_limits.count("password_reset", address_of(request), services.clock())
    if refused is not None:
        raise refusal_of(refused)


async def _holder(request: Request, services: Services, token_sha256: str) -> UserView:
    """Whose link it is, as of now; the decision looks once more."""
    # nobody is signed in; only the hash of 160 random bits finds the row
    async with services.read("users", scope=EVERYTHING) as connection:
        user = await find_user_by_reset_token(connection, token_sha256)
    if user is None or user.reset_expires_at is None or user.reset_expires_at <= services.clock():
        code = "token_not_found_or_expired"
        if user is not None:
            record_denial(request, principal_of(user.id), action="password_reset", code=code)
        raise ApiError(404, code, "This link was used or has expired; ask for another.")
    return user
