"""Who may pass, and what the others are told."""

from datetime import datetime, timedelta

import pytest

from domain.api_key import ApiKeyActivated, ApiKeyDeactivated, ApiKeyRevoked, ApiKeyRotated, key_from, key_hash
from domain.key_scope import Endpoint
from domain.network import networks_of
from domain.organization import MemberRemoved, OrganizationDeleted
from gateway.admission import Asked, address_of, admit, require_model
from gateway.http import Headers
from gateway.wire import Refusal
from projections.routing_table import RoutingTable
from tests.examples import ACME, ALICE
from tests.gateway.routing import CLEAR_KEY, STRANGERS_KEY, Said, key, routing, scoped
from tests.given import NOON

TABLE = routing(key())
NEXT_KEY = key_from(b"\x09" * 28)
ROTATED = ApiKeyRotated(
    key_sha256=key_hash(NEXT_KEY), key_prefix=NEXT_KEY[:12], previous_valid_until=NOON + timedelta(hours=1)
)


def bearer(value: str) -> Headers:
    return [(b"host", b"x"), (b"authorization", f"Bearer {value}".encode())]


def asked(
    headers: Headers | None = None, *, endpoint: Endpoint = "chat", address: str = "192.0.2.7", now: datetime = NOON
) -> Asked:
    return Asked(headers=bearer(CLEAR_KEY) if headers is None else headers, endpoint=endpoint, address=address, now=now)


def told(request: Asked, table: RoutingTable = TABLE, *, model: str = "") -> tuple[int, str]:
    """Status and code; (200, "") for who passes."""
    try:
        found = admit(request, table)
        if model:
            require_model(found, request, model)
    except Refusal as refusal:
        return refusal.status, refusal.code
    return 200, ""


@pytest.mark.parametrize(
    "headers",
    [
        bearer(CLEAR_KEY),
        [(b"authorization", f"bearer   {CLEAR_KEY} ".encode())],
        [(b"x-api-key", CLEAR_KEY.encode())],
        [(b"x-api-key", f" {CLEAR_KEY} ".encode())],
    ],
)
def test_a_known_key_passes(headers: Headers) -> None:
    assert admit(asked(headers), TABLE).row.organization_id == ACME


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing_api_key"),
        (bearer(""), "missing_api_key"),
        (bearer("sk-inv-short"), "malformed_api_key"),
        (bearer(CLEAR_KEY[:-1] + "0"), "malformed_api_key"),
        (bearer("\xff"), "malformed_api_key"),
        ([(b"authorization", b"Basic dXNlcjpwYXNz")], "malformed_api_key"),
        ([(b"authorization", CLEAR_KEY.encode() + b" x")], "malformed_api_key"),
        (bearer(STRANGERS_KEY), "invalid_api_key"),
    ],
)
def test_another_key_is_refused_with_its_code(headers: Headers, code: str) -> None:
    assert told(asked(headers)) == (401, code)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", CLEAR_KEY.encode()), *bearer(CLEAR_KEY)],
        [*bearer(CLEAR_KEY), (b"x-api-key", STRANGERS_KEY.encode())],
        [*bearer(CLEAR_KEY), (b"authorization", b"Basic dXNlcjpwYXNz")],
        [(b"x-api-key", CLEAR_KEY.encode()), (b"x-api-key", CLEAR_KEY.encode())],
        [(b"x-api-key", b""), *bearer(CLEAR_KEY)],
    ],
)
def test_two_credentials_in_one_request_are_refused_whatever_they_are(headers: Headers) -> None:
    assert told(asked(headers)) == (400, "multiple_credentials")


GONE: list[tuple[str, list[Said]]] = [
    ("the key itself", [(ACME, "k1", ApiKeyRevoked())]),
    ("its owner's membership", [(ACME, ACME, MemberRemoved(user_id=ALICE))]),
    ("its organisation", [(ACME, ACME, OrganizationDeleted())]),
]


@pytest.mark.parametrize("gone", [said for _, said in GONE], ids=[name for name, _ in GONE])
def test_a_key_that_nobody_stands_behind_any_more_is_refused_as_revoked(gone: list[Said]) -> None:
    assert told(asked(), routing(key(), gone)) == (401, "revoked_api_key")


def test_an_organisations_own_key_outlives_its_members() -> None:
    left: list[Said] = [(ACME, ACME, MemberRemoved(user_id=ALICE))]
    assert told(asked(), routing(key(owner=None), left)) == (200, "")


def test_the_secret_before_a_rotation_passes_until_its_time_is_over() -> None:
    table = routing(key(), [(ACME, "k1", ROTATED)])
    before, after = NOON + timedelta(minutes=59), NOON + timedelta(hours=1)
    assert told(asked(now=before), table) == (200, "")
    assert told(asked(now=after), table) == (401, "invalid_api_key")
    assert told(asked(bearer(NEXT_KEY), now=after), table) == (200, "")


def test_a_revocation_ends_both_secrets() -> None:
    table = routing(key(), [(ACME, "k1", ROTATED), (ACME, "k1", ApiKeyRevoked())])
    assert told(asked(), table) == told(asked(bearer(NEXT_KEY)), table) == (401, "revoked_api_key")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["technical"], "its technical activation is missing"),
        (["economic"], "its economic activation is missing"),
        (["technical", "economic"], "its technical and its economic activation are missing"),
    ],
)
def test_a_key_without_both_flags_is_told_which_is_missing(flags: list[str], words: str) -> None:
    off: list[Said] = [(ACME, "k1", ApiKeyDeactivated(flag=flag)) for flag in flags]  # type: ignore[arg-type]  # words of a table
    with pytest.raises(Refusal, match="api_key_not_operational") as refused:
        admit(asked(), routing(key(), off))
    assert refused.value.status == 403
    assert words in refused.value.message
    on: list[Said] = [(ACME, "k1", ApiKeyActivated(flag=flag)) for flag in flags]  # type: ignore[arg-type]  # words of a table
    assert told(asked(), routing(key(), off, on)) == (200, "")


def test_a_key_ends_at_the_moment_that_its_scope_says() -> None:
    table = routing(scoped(expires_at=NOON))
    assert told(asked(now=NOON - timedelta(microseconds=1)), table) == (200, "")
    assert told(asked(now=NOON), table) == (401, "api_key_expired")


def test_a_key_passes_only_from_where_its_scope_says() -> None:
    table = routing(scoped(ip_ranges=("192.0.2.0/24", "2001:db8::/32")))
    passed = {
        address: told(asked(address=address), table)
        for address in ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "192.0.3.7", "", "not an address")
    }
    assert [address for address, answer in passed.items() if answer == (200, "")] == [
        "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"
    ]  # fmt: skip
    assert passed["192.0.3.7"] == (403, "ip_address_not_allowed")


def test_a_key_passes_only_to_the_endpoints_of_its_scope() -> None:
    table = routing(scoped(endpoints=("embeddings", "models")))
    answers = {e: told(asked(endpoint=e), table)[1] for e in ("chat", "completions", "embeddings", "models")}
    assert answers == {
        "chat": "endpoint_not_allowed", "completions": "endpoint_not_allowed", "embeddings": "", "models": ""
    }  # fmt: skip


def test_a_key_passes_only_to_the_models_of_its_scope_by_the_very_name() -> None:
    table = routing(scoped(models=("m1", "acme/chat")))
    answers = [told(asked(), table, model=model) for model in ("m1", "acme/chat", "chat", "m10", "M1")]
    assert answers == [(200, ""), (200, ""), *[(403, "model_not_allowed")] * 3]


def test_a_refusal_never_repeats_the_key() -> None:
    for presented in (STRANGERS_KEY, CLEAR_KEY[:-1], key_from(b"\x09" * 28)):
        with pytest.raises(Refusal) as refused:
            admit(asked(bearer(presented)), TABLE)
        assert presented not in refused.value.message


OURS = networks_of(["10.0.0.0/8", "::1"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["192.0.2.7"], "203.0.113.9"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["1.1.1.1", "192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["garbage"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
    ],
)
def test_only_our_own_proxies_are_believed_about_an_address(peer: str, forwarded: list[str], address: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert address_of(peer, headers, OURS) == address
    assert address_of(peer, headers, ()) == peer
