"""Who a name and a password belong to, within the limits of sign_in_rules.py.

    name ──digest──> user? ──> tallies ──> argon2 ──> the user, or 401 | 429 | 403

A name that nobody has takes the very same steps: one look-up, one count, one verification. A refusal of a known account
goes into its audit log.
"""

from fastapi import Request

from domain.ids import PLATFORM, UserId
from projections.projection import EVERYTHING
from projections.users import UserView, find_user_by_digest
from web.auth import address_of
from web.denials import Principal, record_denial
from web.errors import ApiError
from web.services import Services, TooManyLoginsError
from web.sign_in_rules import ResetNeeded, SignInAttempt, Wait


async def verified(request: Request, services: Services, *, name: str, password: str) -> UserView:
    """The user who has this name (or e-mail address) and this password.

    Raises:
        ApiError: 401 invalid_credentials, 429 too_many_logins with Retry-After, 403 password_reset_needed.
        TooManyLoginsError: the queue of verifications is full.
        OSError: a store is away.
    """
    username, email = services.vault.digest("username", name), services.vault.digest("email", name)
    # nobody is signed in yet, so no scope would show the row; only the person's own digests find it
    async with services.read("users", scope=EVERYTHING) as connection:
        user = await find_user_by_digest(connection, username_digest=username, email_digest=email)
    attempt = SignInAttempt(user.id if user else None, "" if user else username, address_of(request))
    right = await is_right(request, services, attempt, password, action="sign_in", wrong_code="invalid_credentials")
    if not right or user is None:
        raise ApiError(401, "invalid_credentials", "Name or password is wrong.")
    return user


async def is_right(
    request: Request, services: Services, attempt: SignInAttempt, password: str, *, action: str, wrong_code: str
) -> bool:
    """Whether it is the password; counts the failures, and records those of a known account.

    Raises: as `verified`, without invalid_credentials.
    """
    refused = await services.sign_in_limits.admit(attempt, services.clock())
    if refused is not None:
        error = refusal_of(refused)
        _record(request, attempt, action, error.code)
        raise error
    try:
        right = await services.passwords.verify(attempt.user_id, password)
    except TooManyLoginsError:
        await services.sign_in_limits.withdraw(attempt, services.clock())  # nobody looked at the password
        raise
    if right:
        await services.sign_in_limits.succeeded(attempt, services.clock())
    else:
        _record(request, attempt, action, wrong_code)
    return right


def refusal_of(refused: Wait | ResetNeeded) -> ApiError:
    if isinstance(refused, ResetNeeded):
        message = "Too many wrong passwords; ask for a link to set a new one: POST /auth/password-reset/request."
        return ApiError(403, "password_reset_needed", message)
    message = f"Too many attempts; try again in {refused.seconds} s."
    return ApiError(429, "too_many_logins", message, {"retry-after": str(refused.seconds)})


def principal_of(user_id: str) -> Principal:
    return Principal(user_id, f"user:{UserId(user_id)}", organization=PLATFORM)


def _record(request: Request, attempt: SignInAttempt, action: str, code: str) -> None:
    if attempt.user_id is not None:
        record_denial(request, principal_of(attempt.user_id), action=action, code=code)
