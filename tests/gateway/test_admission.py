"""Who may pass, and what the others are told."""

import pytest

from domain.api_key import ApiKeyRevoked, key_from
from gateway.admission import admit
from gateway.wire import Headers, Refusal
from tests.examples import ACME
from tests.gateway.routing import CLEAR_KEY, STRANGERS_KEY, key, routing

TABLE = routing(key())
REVOKED = routing(key(), [(ACME, "k1", ApiKeyRevoked())])


def bearer(value: str) -> Headers:
    return [(b"host", b"x"), (b"authorization", f"Bearer {value}".encode())]


@pytest.mark.parametrize(
    "headers",
    [
        bearer(CLEAR_KEY),
        [(b"authorization", f"bearer   {CLEAR_KEY} ".encode())],
        [(b"x-api-key", CLEAR_KEY.encode())],
    ],
)
def test_a_known_key_passes(headers: Headers) -> None:
    assert admit(headers, TABLE.find_key).organization_id == ACME


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing_api_key"),
        (bearer(""), "missing_api_key"),
        (bearer("sk-inv-short"), "malformed_api_key"),
        (bearer(CLEAR_KEY[:-1] + "0"), "malformed_api_key"),
        (bearer("\xff"), "malformed_api_key"),
        ([(b"authorization", b"Basic dXNlcjpwYXNz")], "malformed_api_key"),
        (bearer(STRANGERS_KEY), "invalid_api_key"),
    ],
)
def test_another_key_is_refused_with_its_code(headers: Headers, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        admit(headers, TABLE.find_key)
    assert (refused.value.status, refused.value.code) == (401, code)


def test_a_revoked_key_is_refused_as_revoked() -> None:
    with pytest.raises(Refusal) as refused:
        admit(bearer(CLEAR_KEY), REVOKED.find_key)
    assert refused.value.code == "revoked_api_key"


def test_a_refusal_never_repeats_the_key() -> None:
    for presented in (STRANGERS_KEY, CLEAR_KEY[:-1], key_from(b"\x09" * 28)):
        with pytest.raises(Refusal) as refused:
            admit(bearer(presented), TABLE.find_key)
        assert presented not in refused.value.message


def test_the_authorization_header_wins_over_the_other() -> None:
    with pytest.raises(Refusal, match="invalid_api_key"):
        admit([(b"x-api-key", CLEAR_KEY.encode()), *bearer(STRANGERS_KEY)], TABLE.find_key)
