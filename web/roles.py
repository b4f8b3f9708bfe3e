"""A role as a request spells it."""

from domain.roles import RANKS, Role
from web.errors import ApiError


def role_of(text: str) -> Role:
    """Raises ApiError: 400 invalid_role."""
    if text not in RANKS:
        raise ApiError(400, "invalid_role", f"A role is one of {', '.join(RANKS)}.")
    return text
