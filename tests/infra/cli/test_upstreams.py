"""Upstreams from the command line: what is asked of the API, where keys may come from, and what a person reads."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli.output import ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

KEY = "sk-canary-on-the-command-line"
URL = "https://api.example.com/v1"
BOTH = {"technical": True, "economic": True, "operational": True, "missing": []}
HALF = {"technical": True, "economic": False, "operational": False, "missing": ["economic"]}
UPSTREAM: dict[str, Any] = {"url": URL, "model": "large", "key_fingerprint": "0123456789ab", "activation": BOTH}
DEPLOYMENT: dict[str, Any] = {
    "id": "d",
    "model_code": "chat",
    "status": "ready",
    "engine": "upstream",
    "created_at": "2026-11-21T12:00:00+00:00",
    "upstream": UPSTREAM,
}
MACHINES = {**DEPLOYMENT, "id": "m", "engine": "vllm", "upstream": None}
ACCEPTED = {"status": "accepted", "deployment_id": "d", "model": "chat", "instance_id": "", "instances": []}


@pytest.fixture
def connectable(stub: StubApi) -> StubApi:
    stub.answer("POST", "/deployments", Answer(202, ACCEPTED))
    stub.answer("GET", "/deployments/d", Answer(200, DEPLOYMENT))
    return stub


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_an_upstream_is_connected_with_a_key_from_standard_input(
    connectable: StubApi, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, f"{KEY}\n")
    assert inventiv("upstream", "connect", "chat", URL, "--model", "large", "--key-stdin") == ExitCode.OK
    [asked] = connectable.asked_of("POST", "/deployments")
    assert asked.body == {"model": "chat", "upstream": {"url": URL, "model": "large", "api_key": KEY}}
    shown = capsys.readouterr()
    assert (shown.out, KEY in shown.err) == ("d\n", False)
    assert f"chat is answered by {URL}" in shown.err


def test_an_upstream_may_need_no_key(connectable: StubApi, inventiv: Inventiv) -> None:
    assert inventiv("upstream", "connect", "chat", URL) == ExitCode.OK
    [asked] = connectable.asked_of("POST", "/deployments")
    assert asked.body == {"model": "chat", "upstream": {"url": URL, "model": ""}}


def test_what_is_missing_is_told_with_its_cure(
    connectable: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {**DEPLOYMENT, "upstream": {**UPSTREAM, "activation": HALF}}
    connectable.answer("GET", "/deployments/d", Answer(200, half))
    assert inventiv("upstream", "connect", "chat", URL) == ExitCode.OK
    assert "`inventiv upstream activate d economic`" in capsys.readouterr().err


def test_with_json_there_is_one_document(
    connectable: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    connectable.answer("GET", "/deployments", Answer(200, [DEPLOYMENT, MACHINES]))
    assert inventiv("upstream", "connect", "chat", URL, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == DEPLOYMENT
    assert inventiv("upstream", "ls", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"upstreams": [DEPLOYMENT]}


def test_upstreams_are_listed_without_machines_or_with_what_to_do(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    keyless = {**DEPLOYMENT, "id": "e", "upstream": {**UPSTREAM, "key_fingerprint": ""}}
    stub.answer("GET", "/deployments", Answer(200, [DEPLOYMENT, keyless, MACHINES]))
    assert inventiv("upstream", "ls") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[1:]] == [
        ["d", "chat", URL, "large", "0123456789ab"],
        ["e", "chat", URL, "large", "none"],
    ]
    stub.answer("GET", "/deployments", Answer(200, [MACHINES]))
    assert inventiv("upstream", "ls") == ExitCode.OK
    assert "inventiv upstream connect" in capsys.readouterr().err


def test_a_key_is_replaced_from_a_file(
    stub: StubApi, inventiv: Inventiv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("PUT", "/deployments/d/upstream/key", Answer(200, UPSTREAM))
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert inventiv("upstream", "key", "d", "--key-file", str(tmp_path / "key")) == ExitCode.OK
    assert stub.asked_of("PUT", "/deployments/d/upstream/key")[0].body == {"api_key": KEY}
    shown = capsys.readouterr()
    assert "fingerprint 0123456789ab" in shown.err
    assert KEY not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (("key", "d"), "", "key_required"),
        (("key", "d", "--key-stdin"), "\n", "key_required"),
        (("key", "d", "--key-file", "/nowhere"), "", "file_unreadable"),
        (("key", "d", "--key-file", "/nowhere", "--key-stdin"), KEY, "two_keys"),
        (("connect", "chat", URL, "--key-stdin"), " ", "key_required"),
    ],
)
def test_a_key_that_is_not_said_is_asked_for(
    stub: StubApi,
    inventiv: Inventiv,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    text: str,
    code: str,
) -> None:
    typed(monkeypatch, text)
    assert inventiv("upstream", *arguments, "--json") == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"] == code
    assert stub.asked == []


def test_each_flag_is_set_and_cleared(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("PUT", "/deployments/d/activation", Answer(200, UPSTREAM))
    assert inventiv("upstream", "activate", "d", "economic") == ExitCode.OK
    assert inventiv("upstream", "deactivate", "d", "technical", "--json") == ExitCode.OK
    assert [asked.body for asked in stub.asked_of("PUT", "/deployments/d/activation")] == [
        {"flag": "economic", "value": True},
        {"flag": "technical", "value": False},
    ]
    shown = capsys.readouterr()
    assert "The economic flag of https://api.example.com/v1 is set." in shown.err
    assert json.loads(shown.out) == UPSTREAM


def test_a_refused_address_says_what_its_operator_can_do(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"error": "upstream_address_not_allowed", "message": "It may not be called."}
    stub.answer("POST", "/deployments", Answer(400, refused))
    assert inventiv("upstream", "connect", "chat", "http://10.0.0.9:8000") == ExitCode.FAILED
    assert "INVENTIV_UPSTREAM_ALLOW=" in capsys.readouterr().err
