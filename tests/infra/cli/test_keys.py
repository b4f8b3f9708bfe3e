"""`inventiv key ...`: what is asked of the API, what a person reads, what a script gets."""

import json
from typing import Any

import pytest

from infra.cli.keys import state_of
from infra.cli.output import ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

SCOPE = {
    "role": "user",
    "models": ["acme/chat"],
    "endpoints": [],
    "ip_ranges": [],
    "expires_at": None,
    "requests_per_minute": 60,
    "tokens_per_minute": None,
    "concurrency": None,
    "spend_limit_eur_micros": 2_500_000,
}


def key(missing: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "id": "k-1",
        "name": "ci",
        "key_prefix": "sk-inv-12345",
        "owner": "user",
        "user_id": "u-1",
        "created_by": "u-1",
        "made_by_key": None,
        "scope": SCOPE,
        "activation": {"operational": not missing, "missing": list(missing)},
        "previous_valid_until": None,
        "created_at": "2026-11-21T08:00:00Z",
        "last_used_at": None,
        "revoked_at": None,
        **more,
    }


def test_what_is_not_said_stays_out_of_the_request(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("POST", "/api_keys", Answer(201, {"key": key(), "api_key": "sk-inv-new"}))
    assert inventiv("key", "create", "ci") == ExitCode.OK
    assert stub.asked_of("POST", "/api_keys")[0].body == {"name": "ci"}


def test_every_scope_option_reaches_the_api(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("POST", "/api_keys", Answer(201, {"key": key(), "api_key": "sk-inv-new"}))
    options = (
        *("--organization", "--role", "manager", "--model", "acme/chat", "--model", "acme/code"),
        *("--endpoint", "chat", "--ip-range", "10.0.0.0/8", "--expires-in-days", "7"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrency", "2"),
        *("--spend-limit-eur", "2.5"),
    )
    assert inventiv("key", "create", "ci", *options) == ExitCode.OK
    assert stub.asked_of("POST", "/api_keys")[0].body == {
        "name": "ci",
        "owner": "organization",
        "role": "manager",
        "models": ["acme/chat", "acme/code"],
        "endpoints": ["chat"],
        "ip_ranges": ["10.0.0.0/8"],
        "expires_in_days": 7,
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "concurrency": 2,
        "spend_limit_eur_micros": 2_500_000,
    }


def test_a_key_without_an_end_is_asked_for_in_so_many_words(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("POST", "/api_keys", Answer(201, {"key": key(), "api_key": "sk-inv-new"}))
    assert inventiv("key", "create", "ci", "--never-expires") == ExitCode.OK
    assert stub.asked_of("POST", "/api_keys")[0].body == {"name": "ci", "expires_in_days": None}
    assert inventiv("key", "create", "ci", "--never-expires", "--expires-in-days", "5") == ExitCode.USAGE


def test_a_key_that_waits_for_a_flag_says_which_and_how(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"key": key(missing=("technical", "economic")), "api_key": "sk-inv-new"}
    stub.answer("POST", "/api_keys", Answer(201, made))
    assert inventiv("key", "create", "ci") == ExitCode.OK
    said = capsys.readouterr()
    assert said.out == "sk-inv-new\n"
    assert "inventiv key activate k-1 technical" in said.err
    assert "the same for economic" in said.err


def test_a_scope_changes_only_where_it_was_said(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("PUT", "/api_keys/k-1/scope", Answer(200, key()))
    options = ("--model", "acme/chat", "--lift", "ip-ranges", "--lift", "expiry", "--lift", "spend-limit")
    assert inventiv("key", "scope", "k-1", *options) == ExitCode.OK
    assert stub.asked_of("PUT", "/api_keys/k-1/scope")[0].body == {
        "models": ["acme/chat"],
        "ip_ranges": [],
        "expires_in_days": None,
        "spend_limit_eur_micros": None,
    }


def test_a_scope_change_needs_something_that_changes(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("key", "scope", "k-1") == ExitCode.USAGE
    assert inventiv("key", "scope", "k-1", "--lift", "gravity") == ExitCode.USAGE
    assert "gravity is no restriction; there are models, endpoints" in capsys.readouterr().err
    assert stub.asked == []


def test_a_key_is_shown_with_its_scope_in_words(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/api_keys/k-1", Answer(200, key(missing=("economic",))))
    assert inventiv("key", "show", "k-1") == ExitCode.OK
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    words = {heading: value.strip() for heading, value in shown.items()}
    assert words["State"] == "waits for economic"
    assert (words["Models"], words["Endpoints"], words["Addresses"]) == ("acme/chat", "all", "everywhere")
    assert (words["Expires"], words["Requests/min"], words["Spend limit"]) == ("never", "60", "2.50 EUR")
    assert "Tokens/min" not in words


def test_an_unknown_key_is_not_found(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/api_keys/k-2", Answer(404, {"error": "api_key_not_found", "message": "There is none."}))
    assert inventiv("key", "show", "k-2") == ExitCode.NOT_FOUND
    assert "inventiv key ls" in capsys.readouterr().err


def test_a_rotated_secret_is_printed_alone(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("POST", "/api_keys/k-1/rotate", Answer(200, {"key": key(), "api_key": "sk-inv-next"}))
    assert inventiv("key", "rotate", "k-1", "--overlap-s", "0") == ExitCode.OK
    assert stub.asked_of("POST", "/api_keys/k-1/rotate")[0].body == {"overlap_s": 0}
    assert capsys.readouterr().out == "sk-inv-next\n"


def test_a_flag_is_set_and_the_other_one_named(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = {"technical": True, "economic": False, "operational": False, "missing": ["economic"]}
    works = {"technical": True, "economic": True, "operational": True, "missing": []}
    stub.answer("PUT", "/api_keys/k-1/activation", Answer(200, waits), Answer(200, works))
    assert inventiv("key", "activate", "k-1", "technical") == ExitCode.OK
    assert "inventiv key activate k-1 economic" in capsys.readouterr().err
    assert inventiv("key", "activate", "k-1", "economic", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"id": "k-1", **works}
    assert [asked.body for asked in stub.asked_of("PUT", "/api_keys/k-1/activation")] == [
        {"flag": "technical", "value": True},
        {"flag": "economic", "value": True},
    ]


def test_a_wider_key_is_not_allowed(inventiv: Inventiv, stub: StubApi) -> None:
    refused = {"error": "key_wider_than_creator", "message": "No."}
    stub.answer("POST", "/api_keys", Answer(403, refused))
    assert inventiv("key", "create", "ci", "--role", "owner") == ExitCode.NOT_ALLOWED


def test_the_list_tells_each_keys_state(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/api_keys", Answer(200, [key(), key(revoked_at="2026-11-21T08:00:00Z")]))
    assert inventiv("key", "ls", "--live") == ExitCode.OK
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["active", "revoked"]
    assert stub.asked_of("GET", "/api_keys")[0].path.endswith("?revoked=false")


def test_an_empty_list_says_how_to_make_one(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/api_keys", Answer(200, []))
    assert inventiv("key", "ls") == ExitCode.OK
    assert "inventiv key create" in capsys.readouterr().err


def test_a_key_past_its_end_has_expired() -> None:
    assert state_of(key(scope={**SCOPE, "expires_at": "2020-01-01T00:00:00Z"})) == "expired"
    assert state_of(key(scope={**SCOPE, "expires_at": "2999-01-01T00:00:00Z"})) == "active"
