"""Foreign upstreams, pure: where their endpoints are, which addresses they may have, what of theirs a client sees."""

from dataclasses import dataclass

import pytest

from domain.outbound import PUBLIC_ONLY, rules_of
from gateway.foreign import address_allowed, key_unavailable, refusal_by_foreign, target_path


@dataclass
class Place:
    scheme: str = "https"
    host: str = "api.example.com"
    port: int = 443


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", "/v1/chat/completions", "/v1/chat/completions"),
        ("", "/tokenize", "/tokenize"),
        ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1", "/v1/chat/completions", "/openai/v1/chat/completions"),
        ("/v1beta/openai", "/v1/chat/completions", "/v1beta/openai/chat/completions"),
        ("/v1", "/tokenize", "/tokenize"),
        ("/openai/v1", "/rerank", "/openai/rerank"),
    ],
)
def test_a_url_means_what_it_means_to_clients_of_openai(base: str, path: str, target: str) -> None:
    assert target_path(base, path) == target


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 402, 403, 407])
def test_what_an_upstream_says_of_our_key_is_told_to_nobody(status: int) -> None:
    refusal = refusal_by_foreign(status, ())
    assert refusal is not None
    assert (refusal.status, refusal.code, list(refusal.headers)) == (502, "upstream_refused_us", [])


@pytest.mark.parametrize("status", [200, 400, 404, 413, 422, 500, 503])
def test_any_other_answer_is_not_changed_here(status: int) -> None:
    assert refusal_by_foreign(status, ()) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [(b"17", b"17"), (b"", b"5"), (b"Fri, 31 Dec 1999 23:59:59 GMT", b"5"), (b"999999", b"5"), (b"-1", b"5")],
)
def test_a_rate_limit_passes_with_its_seconds_alone(given: bytes, told: bytes) -> None:
    refusal = refusal_by_foreign(429, ((b"retry-after", given), (b"x-account", b"acme")))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (429, "upstream_rate_limited")
    assert list(refusal.headers) == [(b"retry-after", told)]


def test_a_request_without_the_key_it_needs_is_refused() -> None:
    assert (key_unavailable().status, key_unavailable().code) == (502, "upstream_key_unavailable")


def test_an_address_is_judged_for_its_url() -> None:
    allowed = address_allowed(rules_of(["127.0.0.1:8000"]))
    assert allowed(Place(), "93.184.215.14")
    assert not allowed(Place(scheme="http", port=80), "93.184.215.14")
    assert allowed(Place(scheme="http", host="LOCALHOST", port=8000), "127.0.0.1")
    assert not allowed(Place(scheme="http", host="localhost", port=8001), "127.0.0.1")
    assert not address_allowed(PUBLIC_ONLY)(Place(host="api.example.com"), "169.254.169.254")
