"""What the matrix expects: spelled out once for each kind of rule, so that a slip in the derivation would show."""

import pytest

from domain.permissions import Action
from tests.rights.expected import LET_IN, Expected, expected
from tests.rights.plant import Principal
from web.auth import AccessRule

SOMEBODY = {"authorization": "Bearer x"}
NOBODY = Principal("nobody")
LONER = Principal("loner", headers=SOMEBODY)
OWNER = Principal("owner", "a", "owner", headers=SOMEBODY)
USER = Principal("user", "a", "user", headers=SOMEBODY)
KEY = Principal("key", "a", "user", is_key=True, headers=SOMEBODY)
ADMIN = Principal("admin", "a", "owner", is_admin=True, headers=SOMEBODY)


def refused(status: int, code: str) -> Expected:
    return Expected(let_in=False, status=status, code=code)


SIGN_IN = refused(401, "login_required")


@pytest.mark.parametrize(
    ("rule", "who", "wanted"),
    [
        (AccessRule("public"), NOBODY, LET_IN),
        (AccessRule("signed_in"), NOBODY, SIGN_IN),
        (AccessRule("signed_in"), LONER, LET_IN),
        (AccessRule("signed_in"), KEY, SIGN_IN),
        (AccessRule("signed_in_or_key", keys=True), KEY, LET_IN),
        (AccessRule("signed_in_or_key", keys=True), NOBODY, SIGN_IN),
        (AccessRule("platform_admin"), OWNER, refused(403, "admin_required")),
        (AccessRule("platform_admin"), ADMIN, LET_IN),
        (AccessRule("platform_admin"), KEY, SIGN_IN),
        (AccessRule("audit.view", refusal="no"), LONER, refused(400, "no_current_organization")),
        (AccessRule("audit.view", refusal="no"), OWNER, LET_IN),
        (AccessRule("audit.view", refusal="no"), USER, refused(403, "no")),
        (AccessRule("audit.view", refusal="no"), KEY, SIGN_IN),
        (AccessRule("audit.view", keys=True, refusal="no"), KEY, refused(403, "no")),
    ],
)
def test_what_a_rule_means_for_a_caller(rule: AccessRule, who: Principal, wanted: Expected) -> None:
    assert expected(rule, who) == wanted


@pytest.mark.parametrize(("also", "wanted"), [("activation.economic", LET_IN), ("activation.technical", None)])
def test_a_flag_needs_a_right_of_its_own(also: Action, wanted: Expected | None) -> None:
    manager = Principal("manager", "a", "manager", headers=SOMEBODY)
    got = expected(AccessRule("activation.change"), manager, also=also)
    assert got == (wanted or refused(403, "activation_not_allowed"))


def test_some_questions_are_for_platform_administrators() -> None:
    rule = AccessRule("audit.view")
    assert expected(rule, ADMIN, for_admins=True) == LET_IN
    assert expected(rule, OWNER, for_admins=True) == refused(403, "admin_required")
