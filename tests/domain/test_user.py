import pytest

from domain.decider import Claim
from domain.user import USER, CreateUser, PasswordSet, RecordPasswordSet, UserCreated
from tests.examples import example
from tests.given import given

CREATE = example(CreateUser)
CREATED = example(UserCreated)


def test_a_user_is_created_once() -> None:
    given().when(CREATE).then(CREATED)
    given(CREATED).when(CREATE).then_nothing()


def test_username_and_email_are_claimed_by_digest() -> None:
    claims = USER.reservations(USER.initial, CREATED)
    taken = "username_or_email_already_exists"
    assert claims == [Claim("username", "d1", taken), Claim("email", "d2", taken)]


@pytest.mark.parametrize("field", ["username", "email", "first_name", "last_name"])
def test_personal_fields_are_sealed(field: str) -> None:
    assert UserCreated.__annotations__[field].__name__ == "Sealed"


def test_a_new_password_is_noted_each_time() -> None:
    given(CREATED).when(RecordPasswordSet()).then(PasswordSet())
    given(CREATED, PasswordSet()).when(RecordPasswordSet()).then(PasswordSet())


def test_a_stranger_has_no_password() -> None:
    given().when(RecordPasswordSet()).then_rejected("user_not_found")
