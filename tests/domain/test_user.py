from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Claim, Rejected, Release
from domain.user import (
    RESET_PAUSE,
    USER,
    AccountPlanChanged,
    ChangeAccountPlan,
    ChangePlatformRole,
    CreateUser,
    ForgetUser,
    PasswordResetRequested,
    PasswordSet,
    PlatformRoleChanged,
    ProfileUpdated,
    RecordPasswordSet,
    RequestPasswordReset,
    UpdateProfile,
    User,
    UserCommand,
    UserCreated,
    UserForgotten,
    evolve,
)
from domain.values import Digest
from tests.examples import example
from tests.given import COMMANDS, NOON, given

CREATE = example(CreateUser)
CREATED = example(UserCreated)
PROFILE = example(ProfileUpdated)
REQUEST = example(RequestPasswordReset)
REQUESTED = example(PasswordResetRequested)
BY_LINK = RecordPasswordSet(reset_token_sha256=REQUESTED.token_sha256)
TAKEN = "username_or_email_already_exists"


def test_a_user_is_created_once() -> None:
    given().when(CREATE).then(CREATED)
    given(CREATED).when(CREATE).then_nothing()


def test_username_and_email_are_claimed_by_digest() -> None:
    claims = USER.reservations(USER.initial, CREATED)
    assert claims == [Claim("username", "d1", TAKEN), Claim("email", "d2", TAKEN)]


@pytest.mark.parametrize("event", [UserCreated, ProfileUpdated])
@pytest.mark.parametrize("field", ["username", "email", "first_name", "last_name"])
def test_personal_fields_are_sealed(event: type[Any], field: str) -> None:
    assert event.__annotations__[field].__name__ == "Sealed"


def test_a_new_password_is_noted_each_time() -> None:
    given(CREATED).when(RecordPasswordSet()).then(PasswordSet())
    given(CREATED, PasswordSet()).when(RecordPasswordSet()).then(PasswordSet())


def test_a_profile_changes_as_a_whole() -> None:
    given(CREATED).when(example(UpdateProfile)).then(PROFILE)


def test_a_new_name_is_claimed_and_the_old_one_released_together() -> None:
    state = evolve(USER.initial, CREATED, NOON)
    renamed = replace(PROFILE, username_digest=Digest("d9"))
    assert USER.reservations(state, renamed) == [Claim("username", "d9", TAKEN), Release("username", "d1")]


def test_an_unchanged_name_is_neither_claimed_nor_released() -> None:
    assert USER.reservations(evolve(USER.initial, CREATED, NOON), PROFILE) == []


def test_role_and_plan_change_once() -> None:
    given(CREATED).when(ChangePlatformRole(role="admin")).then(PlatformRoleChanged(role="admin"))
    given(CREATED).when(ChangePlatformRole(role="user")).then_nothing()
    given(CREATED).when(ChangeAccountPlan(plan="subscriber")).then(AccountPlanChanged(plan="subscriber"))
    given(CREATED).when(ChangeAccountPlan(plan="free")).then_nothing()


def test_a_reset_link_sets_one_password() -> None:
    given(CREATED, REQUESTED).when(BY_LINK).then(PasswordSet())
    given(CREATED, REQUESTED, PasswordSet()).when(BY_LINK).then_rejected("token_not_found_or_expired")


def test_a_reset_link_expires() -> None:
    given(CREATED, REQUESTED).later(3599).when(BY_LINK).then(PasswordSet())
    given(CREATED, REQUESTED).later(3600).when(BY_LINK).then_rejected("token_not_found_or_expired")


def test_only_the_newest_reset_link_counts() -> None:
    newer = replace(REQUESTED, token_sha256="b" * 64)
    given(CREATED, REQUESTED, newer).when(BY_LINK).then_rejected("token_not_found_or_expired")


def test_a_reset_link_to_the_old_address_is_void() -> None:
    moved = replace(PROFILE, email_digest=Digest("elsewhere"))
    given(CREATED, REQUESTED, moved).when(BY_LINK).then_rejected("token_not_found_or_expired")
    given(CREATED, REQUESTED, PROFILE).when(BY_LINK).then(PasswordSet())


def test_asking_often_sends_no_second_link_at_once() -> None:
    pause_s = RESET_PAUSE.total_seconds()
    given(CREATED).when(REQUEST).then(REQUESTED)
    given(CREATED, REQUESTED).later(pause_s - 1).when(REQUEST).then_nothing()
    given(CREATED, REQUESTED).later(pause_s).when(REQUEST).then(REQUESTED)
    given(CREATED, REQUESTED, PasswordSet()).when(REQUEST).then(REQUESTED)


def test_a_forgotten_user_frees_both_names() -> None:
    given(CREATED).when(ForgetUser()).then(UserForgotten())
    released = USER.reservations(evolve(USER.initial, CREATED, NOON), UserForgotten())
    assert released == [Release("username", "d1"), Release("email", "d2")]


@pytest.mark.parametrize("command", [command for command, decider in COMMANDS.items() if decider is USER])
def test_a_forgotten_user_is_answered_like_none(command: type[Any]) -> None:
    forgotten = given(CREATED, REQUESTED, UserForgotten()).when(example(command))
    if command is ForgetUser:
        forgotten.then_nothing()
        return
    forgotten.then_rejected("user_not_found")
    if command is not CreateUser:
        given().when(example(command)).then_rejected("user_not_found")


def test_nothing_of_a_forgotten_person_stays_in_the_state() -> None:
    state = evolve(evolve(USER.initial, CREATED, NOON), UserForgotten(), NOON)
    assert state == User(exists=True, forgotten=True)


_DIGESTS = st.sampled_from([Digest("a"), Digest("b"), Digest("c")])
_LINKS = st.sampled_from(["", "a" * 64, "b" * 64])
_COMMANDS = st.one_of(
    st.builds(lambda u, e: replace(CREATE, username_digest=u, email_digest=e), _DIGESTS, _DIGESTS),
    st.builds(lambda u, e: replace(example(UpdateProfile), username_digest=u, email_digest=e), _DIGESTS, _DIGESTS),
    st.builds(RecordPasswordSet, reset_token_sha256=_LINKS),
    st.builds(lambda link: replace(REQUEST, token_sha256=link), _LINKS.filter(bool)),
    st.sampled_from([ChangePlatformRole(role="admin"), ChangeAccountPlan(plan="subscriber"), ForgetUser()]),
)
_STORY = st.lists(st.tuples(_COMMANDS, st.integers(0, 4000)), max_size=30)


@forall(_STORY)
def test_whatever_happens_a_user_holds_exactly_its_own_names_and_a_forgotten_one_none(
    story: list[tuple[UserCommand, int]],
) -> None:
    state, at, held = USER.initial, NOON, set[tuple[str, str]]()
    for command, pause_s in story:
        at += timedelta(seconds=pause_s)
        state = _step(state, command, at, held)
        own = {("username", state.username_digest), ("email", state.email_digest)}
        assert held == (own if state.exists and not state.forgotten else set())


@forall(_STORY)
def test_no_reset_link_works_twice(story: list[tuple[UserCommand, int]]) -> None:
    state, at, held = USER.initial, NOON, set[tuple[str, str]]()
    links: dict[str, bool] = {}
    for command, pause_s in story:
        at += timedelta(seconds=pause_s)
        before, state = state, _step(state, command, at, held)
        if isinstance(command, RequestPasswordReset) and state.reset is not before.reset:
            links[command.token_sha256] = True
        if isinstance(command, RecordPasswordSet) and command.reset_token_sha256 and _accepted(before, command, at):
            assert links.pop(command.reset_token_sha256)


def _step(state: User, command: UserCommand, at: datetime, held: set[tuple[str, str]]) -> User:
    try:
        events = USER.decide(state, command, at)
    except Rejected:
        return state
    for event in events:
        for wanted in USER.reservations(state, event):
            name = (wanted.kind, wanted.digest)
            if isinstance(wanted, Claim):
                assert name not in held
                held.add(name)
            else:
                held.remove(name)
        state = evolve(state, event, at)
    return state


def _accepted(state: User, command: UserCommand, at: datetime) -> bool:
    try:
        return bool(USER.decide(state, command, at))
    except Rejected:
        return False
