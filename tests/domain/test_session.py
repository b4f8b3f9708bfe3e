from domain.session import OpenSession, RevokeSession, SessionOpened, SessionRevoked, SwitchWorkspace, WorkspaceSwitched
from tests.examples import ACME, example
from tests.given import given

OPENED = example(SessionOpened)


def test_a_session_is_opened_once() -> None:
    given().when(example(OpenSession)).then(OPENED)
    given(OPENED).when(example(OpenSession)).then_nothing()


def test_a_session_is_revoked_once() -> None:
    given(OPENED).when(RevokeSession()).then(SessionRevoked())
    given(OPENED, SessionRevoked()).when(RevokeSession()).then_nothing()


def test_each_session_has_its_own_workspace() -> None:
    given(OPENED).when(SwitchWorkspace(organization_id=None)).then(WorkspaceSwitched(organization_id=None))
    given(OPENED).when(SwitchWorkspace(organization_id=ACME)).then_nothing()


def test_a_revoked_session_does_not_move() -> None:
    given(OPENED, SessionRevoked()).when(SwitchWorkspace(organization_id=None)).then_rejected(
        "session_invalid_or_expired"
    )


def test_an_unknown_session_is_not_found() -> None:
    given().when(RevokeSession()).then_rejected("session_not_found")
