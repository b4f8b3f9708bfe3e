"""Models, offerings, shares and access from the command line: what is asked of the API, and what a person reads."""

import json
from typing import Any

import pytest

from infra.cli.offerings import price_body, price_text
from infra.cli.output import CommandError, ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

BOTH = {"technical": True, "economic": True, "operational": True, "missing": []}
HALF = {"technical": True, "economic": False, "operational": False, "missing": ["economic"]}
FREE = {"input_eur_micros_per_million": 0, "output_eur_micros_per_million": 0}
PRICED = {"input_eur_micros_per_million": 150_000, "output_eur_micros_per_million": 600_000}
MODEL = {
    "id": "m",
    "code": "own/7B",
    "name": "own",
    "scope": "organization",
    "required_vram_gb": 16,
    "context_length": 8,
    "data_volume_gb": 0,
}
OFFERING: dict[str, Any] = {
    "id": "o",
    "identifier": "acme/chat",
    "code": "chat",
    "model_code": "own/7B",
    "visibility": "public",
    "access_policy": "free",
    "price": FREE,
    "is_live": True,
    "activation": BOTH,
}
SHARE: dict[str, Any] = {
    "id": "s",
    "side": "provider",
    "status": "active",
    "identifier": "acme/chat",
    "provider": {"id": "p", "slug": "acme", "name": "Acme"},
    "consumer": {"id": "c", "slug": "globex", "name": "Globex"},
    "price": None,
    "ends_at": None,
    "gives_access": True,
    "activation": BOTH,
}
OFFERED = {**OFFERING, "name": "Chat", "callable": False, "refusal_code": "access_request_required"}


@pytest.mark.parametrize(("micros", "text"), [(FREE, "0/0"), (PRICED, "0.15/0.6"), (None, "-")])
def test_prices_are_read_as_euros(micros: dict[str, int] | None, text: str) -> None:
    assert price_text(micros) == text


def test_prices_are_taken_to_the_millionth() -> None:
    assert price_body("0.15", "0.6") == PRICED
    assert price_body(None, "1") == {"output_eur_micros_per_million": 1_000_000}
    for wrong in ("cheap", "0.0000001", "NaN", "Infinity", "1,5"):
        with pytest.raises(CommandError) as refused:
            price_body(wrong, None)
        assert (refused.value.exit_code, refused.value.code) == (ExitCode.USAGE, "invalid_price")


def test_a_model_is_added_and_taken_away(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("POST", "/models", Answer(201, MODEL))
    stub.answer("GET", "/models", Answer(200, [MODEL]))
    stub.answer("DELETE", "/models/m", Answer(204))
    assert inventiv("model", "add", "own/7B", "--vram-gb", "16", "--context", "8") == ExitCode.OK
    [asked] = stub.asked_of("POST", "/models")
    assert (asked.body["model_id"], asked.body["required_vram_gb"], asked.body["platform"]) == ("own/7B", 16, False)
    assert "inventiv deploy own/7B" in capsys.readouterr().err
    assert inventiv("model", "rm", "own/7B", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"id": "m", "code": "own/7B", "removed": True}


def test_a_model_in_use_is_a_conflict(stub: StubApi, inventiv: Inventiv) -> None:
    stub.answer("GET", "/models", Answer(200, [MODEL]))
    stub.answer("DELETE", "/models/m", Answer(409, {"error": "model_in_use", "message": "In use."}))
    assert inventiv("model", "rm", "m") == ExitCode.CONFLICT
    assert inventiv("model", "rm", "nothing") == ExitCode.NOT_FOUND


def test_an_offering_is_published_with_what_was_said(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("POST", "/offerings", Answer(201, {**OFFERING, "activation": HALF}))
    words = ("--visibility", "public", "--access", "trial", "--trial-days", "14", "--price-in", "0.15")
    assert inventiv("offering", "publish", "own/7B", "chat", *words) == ExitCode.OK
    [asked] = stub.asked_of("POST", "/offerings")
    assert asked.body == {
        "model": "own/7B",
        "code": "chat",
        "visibility": "public",
        "access_policy": "trial",
        "trial_days": 14,
        "price": {"input_eur_micros_per_million": 150_000},
    }
    assert "inventiv offering activate chat economic" in capsys.readouterr().err


def test_a_revised_price_keeps_the_other_half(stub: StubApi, inventiv: Inventiv) -> None:
    stub.answer("GET", "/offerings", Answer(200, [{**OFFERING, "price": PRICED}]))
    stub.answer("PUT", "/offerings/o", Answer(200, OFFERING))
    assert inventiv("offering", "revise", "acme/chat", "--price-out", "1") == ExitCode.OK
    [asked] = stub.asked_of("PUT", "/offerings/o")
    assert asked.body == {"price": {**PRICED, "output_eur_micros_per_million": 1_000_000}}


def test_offerings_are_listed_withdrawn_and_activated(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/offerings", Answer(200, [{**OFFERING, "activation": HALF}]))
    stub.answer("DELETE", "/offerings/o", Answer(204))
    stub.answer("PUT", "/offerings/o/activation", Answer(200, OFFERING))
    assert inventiv("offering", "ls") == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "acme/chat",
        "own/7B",
        "public",
        "free",
        "0/0",
        "economic",
    ]
    assert inventiv("offering", "activate", "chat", "economic") == ExitCode.OK
    assert stub.asked_of("PUT", "/offerings/o/activation")[0].body == {"flag": "economic", "value": True}
    assert inventiv("offering", "deactivate", "chat", "moral") == ExitCode.USAGE
    assert inventiv("offering", "withdraw", "chat") == ExitCode.OK
    assert inventiv("offering", "withdraw", "other") == ExitCode.NOT_FOUND


def test_empty_lists_say_what_to_do_next(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("/models", "/offerings", "/shares", "/catalogue/offerings"):
        stub.answer("GET", path, Answer(200, []))
    for words in (("model", "ls"), ("offering", "ls"), ("share", "ls"), ("share", "ls", "--taken"), ("access", "ls")):
        assert inventiv(*words) == ExitCode.OK
        said = capsys.readouterr()
        assert said.out == ""
        assert "`inventiv " in said.err, words


def test_a_share_is_granted_and_handled(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("POST", "/shares", Answer(201, {**SHARE, "activation": HALF}))
    until = "2027-01-01T00:00:00Z"
    assert inventiv("share", "grant", "chat", "globex", "--until", until) == ExitCode.OK
    assert stub.asked_of("POST", "/shares")[0].body == {"offering": "chat", "consumer": "globex", "ends_at": until}
    assert "inventiv share activate s economic" in capsys.readouterr().err
    for step in ("pause", "resume", "revoke", "refuse"):
        stub.answer("POST", f"/shares/s/{step}", Answer(200, SHARE))
        assert inventiv("share", step, "s", "--json") == ExitCode.OK
        assert json.loads(capsys.readouterr().out) == SHARE
    stub.answer("PUT", "/shares/s/activation", Answer(200, SHARE))
    assert inventiv("share", "deactivate", "s", "technical") == ExitCode.OK
    assert stub.asked_of("PUT", "/shares/s/activation")[0].body == {"flag": "technical", "value": False}


def test_only_a_request_is_approved(stub: StubApi, inventiv: Inventiv) -> None:
    stub.answer("GET", "/shares/s", Answer(200, {**SHARE, "status": "requested"}), Answer(200, SHARE))
    stub.answer("PUT", "/shares/s", Answer(200, SHARE))
    assert inventiv("share", "approve", "s") == ExitCode.OK
    assert inventiv("share", "approve", "s") == ExitCode.CONFLICT
    assert len(stub.asked_of("PUT", "/shares/s")) == 1


def test_shares_are_listed_with_the_other_side(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/shares", Answer(200, [SHARE]), Answer(200, [{**SHARE, "side": "consumer"}]))
    assert inventiv("share", "ls") == ExitCode.OK
    assert " globex " in capsys.readouterr().out
    assert inventiv("share", "ls", "--taken") == ExitCode.OK
    assert " acme " in capsys.readouterr().out


def test_access_is_asked_for_by_public_name(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/catalogue/offerings", Answer(200, [OFFERED]))
    stub.answer("POST", "/offerings/o/access", Answer(202, {**SHARE, "status": "requested"}))
    stub.answer("POST", "/offerings/o/trial", Answer(201, {**SHARE, "ends_at": "2026-12-05T12:00:00Z"}))
    assert inventiv("access", "ls") == ExitCode.OK
    assert "access_request_required" in capsys.readouterr().out
    assert inventiv("access", "request", "acme/chat") == ExitCode.OK
    assert "?name=acme%2Fchat" in stub.asked_of("GET", "/catalogue/offerings")[-1].path
    assert "inventiv share ls --taken" in capsys.readouterr().err
    assert inventiv("access", "trial", "acme/chat") == ExitCode.OK
    assert "2026-12-05" in capsys.readouterr().err
    stub.answer("GET", "/catalogue/offerings", Answer(200, []))
    assert inventiv("access", "request", "acme/none") == ExitCode.NOT_FOUND
