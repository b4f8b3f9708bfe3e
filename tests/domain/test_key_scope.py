"""What a key's scope allows, and which scope is within which: the second is held against counting out the first."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Rejected
from domain.key_scope import (
    MAX_IP_RANGES,
    MAX_LIMIT,
    MAX_MODELS,
    KeyScope,
    compiled,
    endpoints_of,
    is_role_within,
    is_within,
    lesser_role,
    refusal_of,
    validated,
)
from domain.permissions import PERMISSIONS, is_allowed
from domain.roles import RANKS, Role
from tests.domain.key_requests import SCOPES, allowed, like
from tests.given import NOON

SECOND = timedelta(seconds=1)


def refusal(scope: KeyScope, **request: Any) -> str | None:
    defaults = {"endpoint": "chat", "address": "192.0.2.7", "now": NOON, "model": "mock-echo-model"}
    return refusal_of(compiled(scope), **{**defaults, **request})


def rejection(**fields: Any) -> str:
    with pytest.raises(Rejected) as refused:
        validated(KeyScope(**fields), at=NOON)
    return refused.value.code


def test_a_scope_without_restrictions_allows_everything() -> None:
    assert refusal(KeyScope()) is None
    assert refusal(KeyScope(), endpoint="rest", model=None, address="no address") is None


def test_a_key_ends_at_its_expiry_to_the_moment() -> None:
    scope = KeyScope(expires_at=NOON)
    assert refusal(scope, now=NOON - SECOND) is None
    assert refusal(scope, now=NOON) == "api_key_expired"


def test_a_key_works_from_its_ranges_only() -> None:
    scope = KeyScope(ip_ranges=("10.0.0.0/8", "2001:db8::/32"))
    assert refusal(scope, address="10.9.9.9") is None
    assert refusal(scope, address="::ffff:10.9.9.9") is None
    assert refusal(scope, address="2001:db8::1") is None
    assert refusal(scope, address="11.0.0.1") == "ip_address_not_allowed"
    assert refusal(scope, address="unknown") == "ip_address_not_allowed"


def test_a_key_opens_its_endpoints_only() -> None:
    assert refusal(KeyScope(endpoints=("chat",))) is None
    assert refusal(KeyScope(endpoints=("chat",)), endpoint="rest") == "endpoint_not_allowed"


def test_a_key_calls_its_models_only() -> None:
    scope = KeyScope(models=("acme/chat",))
    assert refusal(scope, model="acme/chat") is None
    assert refusal(scope, model="acme/code") == "model_not_allowed"
    assert refusal(scope, endpoint="models", model=None) is None


@forall(st.data())
def test_within_means_that_nothing_more_is_allowed(data: st.DataObject) -> None:
    parent = data.draw(SCOPES)
    child = data.draw(like(parent))
    assert is_within(child, parent) == (allowed(child) <= allowed(parent))


NARROW: dict[str, Any] = {
    "role": "admin",
    "models": ("acme/chat",),
    "endpoints": ("chat", "models"),
    "ip_ranges": ("10.0.0.0/9",),
    "expires_at": NOON + timedelta(hours=1),
    "requests_per_minute": 60,
    "tokens_per_minute": 60,
    "concurrency": 60,
    "spend_limit_eur_micros": 60,
}
WIDER: list[tuple[str, Any]] = [
    ("role", "owner"),
    ("role", "manager"),
    ("models", ()),
    ("models", ("acme/chat", "acme/code")),
    ("endpoints", ()),
    ("endpoints", ("rest",)),
    ("ip_ranges", ()),
    ("ip_ranges", ("10.0.0.0/8",)),
    ("ip_ranges", ("10.1.0.0/16", "2001:db8::/32")),
    ("expires_at", None),
    ("expires_at", NOON + timedelta(days=1)),
    *((limit, value) for limit in list(NARROW)[5:] for value in (None, 61)),
]


@pytest.mark.parametrize(("field", "value"), WIDER)
def test_one_wider_field_makes_a_scope_wider(field: str, value: Any) -> None:
    """Also the control of the counting: it sees a width in each field."""
    parent, child = KeyScope(**NARROW), KeyScope(**{**NARROW, field: value})
    assert allowed(child) - allowed(parent)
    assert not is_within(child, parent)


def test_ranges_that_border_one_another_count_as_one() -> None:
    halves = KeyScope(ip_ranges=("10.0.0.0/9", "10.128.0.0/9"))
    assert is_within(KeyScope(ip_ranges=("10.0.0.0/8",)), halves)
    assert not is_within(KeyScope(ip_ranges=("10.0.0.0/7",)), halves)


@forall(st.sampled_from(RANKS), st.sampled_from(RANKS))
def test_a_lesser_role_may_what_both_may(one: Role, other: Role) -> None:
    lesser = lesser_role(one, other)
    assert lesser == lesser_role(other, one)
    assert is_role_within(lesser, one)
    assert is_role_within(lesser, other)
    assert all(is_allowed(one, a) and is_allowed(other, a) for a in PERMISSIONS if is_allowed(lesser, a))


def test_a_scope_is_stored_in_one_spelling() -> None:
    scope = KeyScope(
        models=("b", "a", "b"),
        endpoints=("rest", "chat", "rest"),
        ip_ranges=(" 10.1.2.3/8", "10.0.0.0/255.0.0.0", "2001:DB8::1", "::ffff:192.0.2.0/120"),
    )
    stored = validated(scope, at=NOON)
    assert stored.models == ("a", "b")
    assert stored.endpoints == ("chat", "rest")
    assert stored.ip_ranges == ("10.0.0.0/8", "2001:db8::1/128", "192.0.2.0/24")
    assert validated(stored, at=NOON) == stored


@forall(SCOPES)
def test_the_stored_spelling_allows_the_same(scope: KeyScope) -> None:
    assert allowed(validated(scope, at=NOON)) == allowed(scope)


@pytest.mark.parametrize("text", ["", "everywhere", "10.0.0.0/33", "300.1.1.1", "fe80::1%eth0", "10.0.0.0/8/8", "0x0a"])
def test_what_is_no_range_is_refused(text: str) -> None:
    assert rejection(ip_ranges=("10.0.0.0/8", text)) == "invalid_ip_range"


@pytest.mark.parametrize("limit", list(NARROW)[5:])
def test_a_limit_is_a_positive_number(limit: str) -> None:
    for value in (0, -1, MAX_LIMIT + 1):
        assert rejection(**{limit: value}) == "invalid_limit"
    highest = replace(KeyScope(), **{limit: MAX_LIMIT})
    assert validated(highest, at=NOON) == highest


def test_lists_are_bounded() -> None:
    assert rejection(models=tuple(f"m-{n}" for n in range(MAX_MODELS + 1))) == "too_many_models"
    assert rejection(ip_ranges=tuple(f"10.0.0.{n}" for n in range(MAX_IP_RANGES + 1))) == "too_many_ip_ranges"


@pytest.mark.parametrize("model", ["", " ", "a b", "a\nb", "x" * 201])
def test_what_can_be_no_model_is_refused(model: str) -> None:
    assert rejection(models=(model,)) == "invalid_model_code"


def test_a_key_cannot_expire_before_it_begins() -> None:
    assert rejection(expires_at=NOON) == "expiry_in_the_past"
    assert validated(KeyScope(expires_at=NOON + SECOND), at=NOON).expires_at == NOON + SECOND


def test_an_engines_paths_are_told_in_the_words_of_a_scope() -> None:
    paths = ("/v1/audio/speech", "/v1/chat/completions", "/v1/chat/completions/render", "/v1/audio/translations")
    assert endpoints_of(paths) == ("chat", "audio")
    assert endpoints_of(()) == ()
