"""`inventiv deploy`: what costs something is shown and asked about before it is rented."""

import io
import json
from typing import Any

import pytest

from infra.cli.output import ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

MEMORY: dict[str, Any] = {
    "verdict": "fits",
    "reason": "m has 15.2 GB of weights; L4-1-24G holds them and 2 sequences of 32768 tokens.",
    "is_estimate": False,
    "tensor_parallel": 1,
    "total_gb": 24.0,
    "usable_gb": 21.6,
    "weights_gb": 15.23,
    "overhead_gb": 2.0,
    "context_tokens": 32768,
    "kv_gb_per_sequence": 1.88,
    "longest_context_tokens": 32768,
    "concurrent_sequences": 2,
}
OFFER: dict[str, Any] = {
    "zone": "fr-par-2",
    "instance_type": "L4-1-24G",
    "gpu_count": 1,
    "vram_per_gpu_gb": 24,
    "stock": "scarce",
    "cost_per_hour": 0.75,
}
PLAN: dict[str, Any] = {
    "status": "planned",
    "model": "m",
    "engine": "vllm",
    "instances": 1,
    "provider": "scaleway",
    "places": [{**OFFER, "is_offered": True, "memory": MEMORY}],
    "fits": True,
    "disk_gb": 200,
    "cost_per_hour": 0.75,
    "cost_per_day": 18.0,
    "cost_per_month": 540.0,
    "cost_per_hour_at_most": 0.75,
    "suggestions": [],
    "credentials_missing": [],
    "refusal": None,
}
ACCEPTED = {"status": "accepted", "deployment_id": "d", "instances": ["i"], "message": ""}
SCALEWAY = ("deploy", "m", "--provider", "scaleway", "--zone", "fr-par-2", "--type", "L4-1-24G", "--detach")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answering(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(words))


def told(stub: StubApi, plan: dict[str, Any]) -> None:
    stub.answer("POST", "/deployments", Answer(200, plan), Answer(202, ACCEPTED))
    stub.answer("GET", "/instances", Answer(200, []))


def deployed(stub: StubApi) -> list[dict[str, Any]]:
    return [asked.body for asked in stub.asked_of("POST", "/deployments") if "dry_run" not in asked.path]


def test_a_plan_is_shown_and_nothing_is_rented(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    told(stub, PLAN)
    assert inventiv(*SCALEWAY, "--plan") == ExitCode.OK
    shown = capsys.readouterr().out
    for words in ("0.75 EUR an hour, 18 a day, 540 a month", "weights 15.23", "L4-1-24G", "scarce", "200 GB"):
        assert words in shown
    assert deployed(stub) == []


def test_a_plan_as_json_is_the_apis_document(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    told(stub, PLAN)
    assert inventiv(*SCALEWAY, "--plan", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == PLAN


def test_a_plan_that_would_be_refused_ends_with_its_code(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"error": "INVALID_ZONE", "message": "Provider scaleway has no active zone z."}
    told(stub, {**PLAN, "refusal": refusal})
    assert inventiv(*SCALEWAY, "--plan") == ExitCode.NOT_FOUND
    assert "INVALID_ZONE" in capsys.readouterr().err


def test_what_does_not_fit_is_shown_with_what_would(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {**MEMORY, "verdict": "shorter_context", "reason": "It holds 27004 tokens of context only."}
    larger = {**OFFER, "provider": "scaleway", "instance_type": "L40S-1-48G", "cost_per_hour": 1.3999}
    place = {**OFFER, "is_offered": True, "memory": short}
    told(stub, {**PLAN, "fits": False, "places": [place], "suggestions": [larger]})
    assert inventiv(*SCALEWAY, "--plan") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "27004 tokens of context only" in shown
    assert shown.index("cheapest first") < shown.index("L40S-1-48G")


def test_an_estimate_says_that_it_is_one(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"kv_gb_per_sequence": None, "longest_context_tokens": None, "concurrent_sequences": None}
    place = {**OFFER, "is_offered": True, "memory": {**MEMORY, **unknown, "is_estimate": True}}
    told(stub, {**PLAN, "places": [place]})
    assert inventiv(*SCALEWAY, "--plan") == ExitCode.OK
    assert "an estimate" in capsys.readouterr().out


def test_on_a_terminal_what_costs_something_is_asked_about(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(stub, {**PLAN, "cost_per_hour_at_most": 1.5})
    answering(monkeypatch, "y\n")
    assert inventiv(*SCALEWAY) == ExitCode.OK
    said = capsys.readouterr()
    assert "for up to 1.5 EUR an hour?" in said.err
    assert said.out.strip() == "d"
    assert len(deployed(stub)) == 1


def test_a_no_rents_nothing(inventiv: Inventiv, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
    told(stub, PLAN)
    answering(monkeypatch, "\n")
    assert inventiv(*SCALEWAY) == ExitCode.FAILED
    assert deployed(stub) == []


def test_a_script_must_say_yes_to_what_costs_something(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(stub, PLAN)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert inventiv(*SCALEWAY) == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err
    assert deployed(stub) == []
    stub.answer("POST", "/deployments", Answer(202, ACCEPTED))
    assert inventiv(*SCALEWAY, "--yes") == ExitCode.OK
    assert len(deployed(stub)) == 1


def test_what_costs_nothing_is_not_asked_about(
    inventiv: Inventiv, stub: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    told(stub, {**PLAN, "cost_per_hour_at_most": 0.0})
    assert inventiv(*SCALEWAY) == ExitCode.OK
    stub.answer("POST", "/deployments", Answer(202, ACCEPTED))
    assert inventiv("deploy", "m", "--detach") == ExitCode.OK
    assert len(deployed(stub)) == 2


def test_what_would_be_refused_goes_to_the_platform_which_records_it(
    inventiv: Inventiv, stub: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = {"error": "MISSING_PROVIDER_CREDENTIALS", "message": "The account at scaleway lacks secret_key."}
    stub.answer("POST", "/deployments", Answer(200, {**PLAN, "refusal": refusal}), Answer(400, refusal))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert inventiv(*SCALEWAY) == ExitCode.FAILED
    assert len(deployed(stub)) == 1


def test_other_places_and_a_price_are_passed_on(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("POST", "/deployments", Answer(202, ACCEPTED))
    stub.answer("GET", "/instances", Answer(200, []))
    others = ("--or", "fr-par-1/L4-1-24G", "--or", "nl-ams-1/L40S-1-48G", "--price", "2.5")
    assert inventiv(*SCALEWAY, *others, "--yes") == ExitCode.OK
    (body,) = deployed(stub)
    assert body["engine"] is None
    assert body["price_eur_per_hour"] == 2.5
    assert body["alternatives"] == [
        {"zone": "fr-par-1", "instance_type": "L4-1-24G", "price_eur_per_hour": 2.5},
        {"zone": "nl-ams-1", "instance_type": "L40S-1-48G", "price_eur_per_hour": 2.5},
    ]


@pytest.mark.parametrize("text", ["fr-par-1", "/L4-1-24G", "fr-par-1/"])
def test_half_a_place_is_a_mistake(inventiv: Inventiv, stub: StubApi, text: str) -> None:
    assert inventiv(*SCALEWAY, "--or", text, "--yes") == ExitCode.USAGE
    assert deployed(stub) == []


def test_a_models_config_goes_along_when_it_is_listed(
    inventiv: Inventiv, stub: StubApi, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("POST", "/models", Answer(201, {"id": "m"}))
    config = tmp_path / "config.json"
    add = ("model", "add", "own/8B", "--vram-gb", "16", "--context", "8192", "--config", str(config))
    assert inventiv(*add) == ExitCode.USAGE
    config.write_text("[1]")
    assert inventiv(*add) == ExitCode.USAGE
    assert "is no JSON object" in capsys.readouterr().err
    config.write_text('{"model_type": "llama"}')
    assert inventiv(*add) == ExitCode.OK
    assert stub.asked_of("POST", "/models")[0].body["config"] == {"model_type": "llama"}
