"""Sign-in tokens: JWT, HS256, in a cookie or as a Bearer. A token names a session; the session's row decides.

The claims are SPEC 6.1's. Only `session_id` and `jti` are ever trusted: role, organisation and expiry are read from the
store with each request, so that a change reaches live sessions at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
from fastapi import Response

from domain.ids import OrganizationId, SessionId, UserId
from web.services import Settings

ISSUER = "inventiv-api"
ALGORITHM = "HS256"
COOKIE = "inventiv_session"


@dataclass(frozen=True)
class Signed:
    """What a valid token says."""

    session_id: SessionId
    jti: str


def jti_of(session_id: str, secret: str) -> str:
    return sha256(f"{session_id}:{secret}".encode()).hexdigest()


def token_hash(jti: str) -> str:
    """What the session's events keep. It outlives a re-issued token: the jti is the same for the whole session."""
    return sha256(jti.encode()).hexdigest()


def signed_token(
    settings: Settings,
    *,
    user_id: UserId,
    email: str,
    role: str,
    session_id: SessionId,
    organization_id: OrganizationId | None,
    organization_role: str | None,
    jti: str,
    at: datetime,
    expires_at: datetime,
) -> str:
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": user_id,
        "email": email,
        "role": role,
        "session_id": session_id,
        "current_organization_id": organization_id,
        "current_organization_role": organization_role,
        "jti": jti,
        "iat": int(at.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    return jwt.encode(claims, settings.token_key, ALGORITHM)


def read_token(settings: Settings, token: str, *, at: datetime) -> Signed | None:
    """None when the token was not signed by us, is malformed, or has expired."""
    try:
        claims = jwt.decode(
            token,
            settings.token_key,
            [ALGORITHM],
            issuer=ISSUER,
            options={"require": ["exp", "iss", "jti", "session_id"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError:
        return None
    session_id, jti, expires = claims["session_id"], claims["jti"], claims["exp"]
    if not (isinstance(session_id, str) and isinstance(jti, str) and isinstance(expires, int)):
        return None
    return Signed(SessionId(session_id), jti) if at.timestamp() < expires else None


def set_cookie(response: Response, settings: Settings, token: str, *, lasts: timedelta) -> None:
    response.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int(lasts.total_seconds())),
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        samesite="lax",
    )


def clear_cookie(response: Response, settings: Settings) -> None:
    response.delete_cookie(COOKIE, path="/", secure=settings.cookie_secure, httponly=True, samesite="lax")
