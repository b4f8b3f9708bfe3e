"""The laws of API keys. No key is ever wider than whoever made, changed or rotated it."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.activation import Flag
from domain.api_key import (
    API_KEY,
    KEY_PREFIX,
    MAX_OVERLAP,
    SECRET_BYTES,
    ActivateApiKey,
    ApiKey,
    ApiKeyActivated,
    ApiKeyDeactivated,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRotated,
    ApiKeyScopeChanged,
    ChangeApiKeyScope,
    DeactivateApiKey,
    RenameApiKey,
    RevokeApiKey,
    RotateApiKey,
    is_well_formed,
    key_from,
    key_hash,
)
from domain.decider import Rejected, fold
from domain.key_scope import KeyScope
from tests.domain.key_requests import SCOPES, allowed, like
from tests.examples import example, key_to_issue
from tests.given import NOON, given, state_after

OWNERS = KeyScope(role="owner")
ROTATE: RotateApiKey = example(RotateApiKey)
ROTATED: ApiKeyRotated = example(ApiKeyRotated)
ISSUE = key_to_issue()
ISSUED = example(ApiKeyIssued)


def test_a_key_is_issued_once() -> None:
    given().when(ISSUE).then(ISSUED)
    given(ISSUED).when(ISSUE).then_nothing()


def test_a_key_needs_a_name() -> None:
    given().when(replace(ISSUE, name=" ")).then_rejected("name_required")
    given().when(replace(ISSUE, name="x" * 101)).then_rejected("name_too_long")


def test_a_key_can_be_renamed() -> None:
    given(ISSUED).when(RenameApiKey(name="ci two")).then(ApiKeyRenamed(name="ci two"))
    given(ISSUED).when(RenameApiKey(name="ci")).then_nothing()


def test_a_key_is_revoked_once_and_for_good() -> None:
    given(ISSUED).when(RevokeApiKey()).then(ApiKeyRevoked())
    given(ISSUED, ApiKeyRevoked()).when(RevokeApiKey()).then_nothing()


def test_an_unknown_key_can_not_be_revoked() -> None:
    given().when(RevokeApiKey()).then_rejected("api_key_not_found")


def test_a_key_is_not_wider_than_its_maker() -> None:
    wish = replace(ISSUE, scope=KeyScope(role="admin"), limit=KeyScope(role="manager"))
    given().when(wish).then_rejected("key_wider_than_creator")
    given().when(replace(wish, scope=KeyScope())).then(replace(ISSUED, scope=KeyScope()))


def test_a_key_is_stored_with_its_scope_in_one_spelling() -> None:
    wish = replace(ISSUE, scope=KeyScope(ip_ranges=("10.1.2.3/8",)))
    given().when(wish).then(replace(ISSUED, scope=KeyScope(ip_ranges=("10.0.0.0/8",))))
    given().when(replace(wish, scope=KeyScope(ip_ranges=("here",)))).then_rejected("invalid_ip_range")


def test_a_keys_scope_changes_within_what_its_changer_may() -> None:
    narrow = KeyScope(models=("acme/chat",))
    given(ISSUED).when(ChangeApiKeyScope(scope=narrow, limit=OWNERS)).then(ApiKeyScopeChanged(scope=narrow))
    given(ISSUED).when(ChangeApiKeyScope(scope=OWNERS, limit=KeyScope())).then_nothing()
    back = ChangeApiKeyScope(scope=OWNERS, limit=KeyScope(role="admin"))
    given(ISSUED, ApiKeyScopeChanged(scope=narrow)).when(back).then_rejected("key_wider_than_creator")


def test_a_scope_cannot_end_in_the_past() -> None:
    ends = ChangeApiKeyScope(scope=KeyScope(expires_at=NOON), limit=OWNERS)
    given(ISSUED).when(ends).then_rejected("expiry_in_the_past")


def test_a_rotated_key_has_two_secrets_for_a_while() -> None:
    given(ISSUED).when(ROTATE).then(ROTATED)
    state = state_after(API_KEY, [ISSUED, ROTATED])
    until = ROTATED.previous_valid_until
    assert state.accepts(ROTATED.key_sha256, until)
    assert state.accepts(ISSUED.key_sha256, until - timedelta(seconds=1))
    assert not state.accepts(ISSUED.key_sha256, until)
    assert not state.accepts("", NOON)


def test_an_overlap_is_bounded() -> None:
    asked = replace(ROTATE, previous_valid_until=NOON + 2 * MAX_OVERLAP)
    given(ISSUED).when(asked).then(replace(ROTATED, previous_valid_until=NOON + MAX_OVERLAP))


def test_a_second_rotation_ends_the_oldest_secret() -> None:
    again = replace(ROTATED, key_sha256="a" * 64)
    state = state_after(API_KEY, [ISSUED, ROTATED, again])
    assert [state.accepts(h, NOON) for h in (ISSUED.key_sha256, ROTATED.key_sha256, "a" * 64)] == [False, True, True]


def test_asked_twice_a_rotation_is_one() -> None:
    given(ISSUED, ROTATED).when(ROTATE).then_nothing()


def test_a_new_secret_is_shown_to_nobody_who_may_less_than_the_key() -> None:
    given(ISSUED).when(replace(ROTATE, limit=KeyScope(role="admin"))).then_rejected("key_wider_than_creator")


@pytest.mark.parametrize("flag", ["technical", "economic"])
def test_each_flag_is_set_and_cleared_by_itself(flag: Flag) -> None:
    idle = replace(ISSUED, activated=())
    given(idle).when(ActivateApiKey(flag=flag)).then(ApiKeyActivated(flag=flag))
    given(idle, ApiKeyActivated(flag=flag)).when(ActivateApiKey(flag=flag)).then_nothing()
    assert state_after(API_KEY, [idle, ApiKeyActivated(flag=flag)]).activation.missing != (flag,)
    given(ISSUED).when(DeactivateApiKey(flag=flag)).then(ApiKeyDeactivated(flag=flag))
    given(ISSUED, ApiKeyDeactivated(flag=flag)).when(DeactivateApiKey(flag=flag)).then_nothing()
    assert state_after(API_KEY, [ISSUED, ApiKeyDeactivated(flag=flag)]).activation.missing == (flag,)


@pytest.mark.parametrize(
    "command",
    [
        ROTATE,
        ChangeApiKeyScope(scope=KeyScope(), limit=OWNERS),
        ActivateApiKey(flag="technical"),
        DeactivateApiKey(flag="economic"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_revoked_key_never_works_again(command: object) -> None:
    given(ISSUED, ApiKeyRevoked()).when(command).then_rejected("api_key_revoked")
    assert not state_after(API_KEY, [ISSUED, ApiKeyRevoked()]).accepts(ISSUED.key_sha256, NOON)


def decided(state: ApiKey, command: Any) -> ApiKey:
    """The state after a command; after a refused one the same."""
    try:
        events = API_KEY.decide(state, command, NOON)
    except Rejected:
        return state
    return fold(API_KEY, state, events, NOON)


@forall(st.data())
def test_whatever_keys_make_keys_make_none_allows_what_its_maker_does_not(data: st.DataObject) -> None:
    """Counted out, request by request: an owner makes the first key, then each key makes the next."""
    maker = decided(ApiKey(), replace(ISSUE, scope=data.draw(SCOPES), limit=OWNERS)).scope
    for _ in range(data.draw(st.integers(1, 4))):
        made = decided(ApiKey(), replace(ISSUE, scope=data.draw(like(maker)), limit=maker))
        if made.issued:
            assert allowed(made.scope) <= allowed(maker)
            maker = made.scope


@forall(st.data())
def test_no_sequence_of_commands_gives_anyone_a_key_that_allows_more_than_they_may(data: st.DataObject) -> None:
    """Whoever makes, changes or rotates a key may do all that it allows from then on; the next one may come and go."""
    state = ApiKey()
    scopes = data.draw(st.lists(SCOPES, min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 6))):
        limit = data.draw(st.sampled_from(scopes))
        scope = data.draw(st.sampled_from([limit, *scopes]).flatmap(like))
        command = data.draw(
            st.sampled_from(
                [
                    replace(ISSUE, scope=scope, limit=limit),
                    ChangeApiKeyScope(scope=scope, limit=limit),
                    replace(ROTATE, key_sha256=f"{data.draw(st.integers(0, 2)):064}", limit=limit),
                ]
            )
        )
        after = decided(state, command)
        if after != state:
            assert allowed(after.scope) <= allowed(limit)
        state = after


def test_a_chain_without_the_rule_would_grow_wide() -> None:
    """The control of the two laws above: their counting sees what a scope that is not checked would allow."""
    maker, wide = KeyScope(models=("acme/chat",)), KeyScope()
    unchecked = state_after(API_KEY, [replace(ISSUED, scope=wide)])
    assert not allowed(unchecked.scope) <= allowed(maker)
    assert not decided(ApiKey(), replace(ISSUE, scope=wide, limit=maker)).issued


CHANCE = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@forall(CHANCE)
def test_a_key_is_its_prefix_and_64_hex_digits(chance: bytes) -> None:
    key = key_from(chance)
    assert key.startswith(KEY_PREFIX)
    assert len(key.removeprefix(KEY_PREFIX)) == 64
    assert is_well_formed(key)


@forall(CHANCE, st.integers(0, 63), st.sampled_from("0123456789abcdef"))
def test_one_mistyped_digit_is_noticed_without_a_look_up(chance: bytes, place: int, digit: str) -> None:
    key = key_from(chance)
    at = len(KEY_PREFIX) + place
    mistyped = key[:at] + digit + key[at + 1 :]
    assert is_well_formed(mistyped) == (mistyped == key)


@forall(CHANCE, CHANCE)
def test_keys_and_hashes_correspond(one: bytes, other: bytes) -> None:
    assert (key_hash(key_from(one)) == key_hash(key_from(other))) == (one == other)
