"""What follows from the access rules and the table of permissions for a caller; written once, true of every route."""

from dataclasses import dataclass

from domain.permissions import Action, is_allowed
from tests.rights.plant import Principal
from web.auth import AccessRule

NO_RIGHT = frozenset({401, 403})


@dataclass(frozen=True)
class Expected:
    """Either let in, or refused with this status and code; a worker's routes take no caller of ours at all."""

    let_in: bool
    status: int = 0
    code: str = ""


LET_IN = Expected(let_in=True)
_SIGN_IN = Expected(let_in=False, status=401, code="login_required")
_ADMINS_ONLY = Expected(let_in=False, status=403, code="admin_required")
_NO_SUCH_FLAG = Expected(let_in=False, status=403, code="activation_not_allowed")
_NOWHERE = Expected(let_in=False, status=400, code="no_current_organization")


def expected(rule: AccessRule, who: Principal, *, also: Action | None = None, for_admins: bool = False) -> Expected:
    """
    Args:
        rule: the route's.
        who: asks.
        also: an action that the request needs beside the rule's.
        for_admins: a question within a member's route that only a platform administrator may ask.
    """
    if rule.name in {"public", "worker"}:
        return LET_IN
    if not who.is_somebody or (who.is_key and not rule.keys):
        return _SIGN_IN
    if rule.name == "platform_admin":
        return LET_IN if who.is_admin else _ADMINS_ONLY
    if rule.name not in {"signed_in", "signed_in_or_key"}:
        refused = _as_member(rule, who)
        if refused is not None:
            return refused
    if also is not None and not (who.role and is_allowed(who.role, also)):
        return _NO_SUCH_FLAG
    return _ADMINS_ONLY if for_admins and not who.is_admin else LET_IN


def _as_member(rule: AccessRule, who: Principal) -> Expected | None:
    if who.role is None:
        return _NOWHERE
    if not is_allowed(who.role, rule.name):  # type: ignore[arg-type]  # every other rule's name is an action
        return Expected(let_in=False, status=403, code=rule.refusal)
    return None
