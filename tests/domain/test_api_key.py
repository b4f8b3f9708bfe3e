from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.api_key import (
    KEY_PREFIX,
    SECRET_BYTES,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    RenameApiKey,
    RevokeApiKey,
    is_well_formed,
    key_from,
    key_hash,
)
from tests.examples import example, key_to_issue
from tests.given import given

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
