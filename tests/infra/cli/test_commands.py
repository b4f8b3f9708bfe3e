"""What scripts rely on: exit codes, one JSON document on stdout, words on stderr."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from infra.cli import calling
from infra.cli.output import ExitCode, age
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

MODEL = {
    "id": "m",
    "code": "mock-echo-model",
    "name": "mock",
    "scope": "platform",
    "required_vram_gb": 0,
    "context_length": 1,
    "data_volume_gb": 0,
}


def instance(status: str = "ready", progress: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "id": "i",
        "deployment_id": "d",
        "model_code": "mock-echo-model",
        "status": status,
        "progress_percent": progress,
        "error_code": None,
        "error_message": None,
        **more,
    }


def envelope(position: int, event_type: str = "InstanceReady") -> dict[str, Any]:
    return {
        "position": position,
        "aggregate": "instance",
        "id": "i",
        "version": position,
        "type": event_type,
        "at": "2026-11-21T08:00:00Z",
        "actor": "system:handlers",
        "cause": None,
        "correlation": "c",
        "data": {},
    }


def page(*envelopes: dict[str, Any], following: int | None = None) -> Answer:
    return Answer(200, {"events": list(envelopes), "next": following})


def accepted(stub: StubApi, *views: dict[str, Any]) -> None:
    reply = {"status": "accepted", "deployment_id": "d", "instances": ["i"], "message": ""}
    stub.answer("POST", "/deployments", Answer(202, reply))
    stub.answer("GET", "/instances", *(Answer(200, [view]) for view in views))


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_help_is_there_for_every_command(inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("--help") == ExitCode.OK
    listed = capsys.readouterr().out
    for noun in ("up", "serve", "status", "doctor", "deploy", "chat", "model", "instance", "key", "events"):
        assert f"\n  {noun} " in listed
        assert inventiv(noun, "--help") == ExitCode.OK


@pytest.mark.parametrize(
    "words", [("nonsense",), ("deploy",), ("deploy", "m", "--instances", "0"), ("serve", "kitchen"), ("key", "create")]
)
def test_wrong_usage_is_exit_code_2(inventiv: Inventiv, words: tuple[str, ...]) -> None:
    assert inventiv(*words) == ExitCode.USAGE


def test_a_list_is_one_document(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/models", Answer(200, [MODEL]))
    assert inventiv("model", "ls", "--json") == ExitCode.OK
    assert document(capsys) == {"models": [MODEL]}


def test_a_table_has_no_colours_when_piped(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/models", Answer(200, [MODEL]))
    inventiv("model", "ls")
    assert capsys.readouterr().out.splitlines()[1].split() == ["mock-echo-model", "platform", "0", "1", "0"]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (404, "instance_not_found", ExitCode.NOT_FOUND),
        (403, "insufficient_permissions", ExitCode.NOT_ALLOWED),
        (409, "instance_terminating", ExitCode.CONFLICT),
        (400, "instance_not_terminated", ExitCode.FAILED),
        (500, "internal_error", ExitCode.FAILED),
    ],
)
def test_each_refusal_has_its_exit_code_and_a_document(
    inventiv: Inventiv,
    stub: StubApi,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: str,
    exit_code: ExitCode,
) -> None:
    stub.answer("GET", "/instances/i", Answer(status, {"error": code, "message": "Because."}))
    assert inventiv("instance", "show", "i", "--json") == exit_code
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": code, "message": f"Because. ({code})", "exit_code": exit_code}
    assert "Because." in said.err


def test_no_capacity_has_an_exit_code_of_its_own() -> None:
    assert calling.exit_code_of(503, "no_ready_worker") == ExitCode.NO_CAPACITY
    assert calling.exit_code_of(503, "unavailable") == ExitCode.UNREACHABLE


def test_nobody_there_is_said_with_the_cure(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_API_URL", "http://127.0.0.1:9")
    assert inventiv("model", "ls") == ExitCode.UNREACHABLE
    assert "Nothing answers at http://127.0.0.1:9; start it with `inventiv up`." in capsys.readouterr().err


def test_status_of_nothing_is_a_document_and_exit_code_8(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("status", "--json") == ExitCode.UNREACHABLE
    said = document(capsys)
    assert said["running"] is False
    assert said["data_dir"] == os.environ["INVENTIV_DATA_DIR"]


def test_deploy_waits_until_ready_and_tells_each_step(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted(stub, instance("provisioning", 5), instance("booting", 40), instance("booting", 40), instance())
    assert inventiv("deploy", "mock-echo-model", "--json") == ExitCode.OK
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert (answer["deployment_id"], answer["model"]) == ("d", "mock-echo-model")
    assert [view["status"] for view in answer["instances"]] == ["ready"]
    assert said.err.count("booting 40 %") == 1
    asked = stub.asked_of("POST", "/deployments")[0]
    assert asked.body["instances"] == 1
    assert asked.body["engine"] == "simulated"


def test_a_detached_deploy_does_not_wait(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    accepted(stub, instance("provisioning", 5))
    assert inventiv("deploy", "mock-echo-model", "--detach", "--json") == ExitCode.OK
    assert document(capsys)["deployment_id"] == "d"


def test_a_detached_deploy_names_instances_that_are_not_there_yet(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted(stub, instance(id="another"))
    assert inventiv("deploy", "mock-echo-model", "--detach", "--json") == ExitCode.OK
    assert document(capsys)["instances"] == [{"id": "i", "status": "provisioning", "progress_percent": 0}]


def test_a_deploy_that_takes_too_long_is_124(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted(stub, instance("booting", 40))
    assert inventiv("deploy", "mock-echo-model", "--timeout", "0.2") == ExitCode.TIMED_OUT
    assert "goes on by itself" in capsys.readouterr().err


def test_a_failed_instance_ends_the_waiting_with_its_code(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = instance("provisioning_failed", 0, error_code="PROVIDER_OUT_OF_STOCK", error_message="None left.")
    accepted(stub, failed)
    assert inventiv("deploy", "mock-echo-model", "--json") == ExitCode.NO_CAPACITY
    assert document(capsys)["error"] == "PROVIDER_OUT_OF_STOCK"


def test_tail_prints_one_envelope_a_line_over_several_pages(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.cli.events.reading.PAGE_EVENTS", 2)
    stub.answer("GET", "/events", page(envelope(2), envelope(3)), page(envelope(1)))
    assert inventiv("events", "tail", "--json") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [1, 2, 3]


def test_chat_prints_the_streamed_words(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "secrets" / "cli_api_key").write_text("sk-inv-cli\n")
    chunks = [
        {"choices": [{"delta": {"content": "hel"}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 2}},
    ]
    stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    stub.answer("POST", "/v1/chat/completions", Answer(200, stream.encode()))
    assert inventiv("chat", "mock-echo-model", "hello") == ExitCode.OK
    assert capsys.readouterr().out == "hello\n"
    assert stub.asked[-1].headers["authorization"] == "Bearer sk-inv-cli"
    assert inventiv("chat", "mock-echo-model", "hello", "--json") == ExitCode.OK
    assert document(capsys) == {
        "model": "mock-echo-model",
        "content": "hello",
        "finish_reason": "stop",
        "usage": {"total_tokens": 2},
    }


def test_chat_without_a_ready_worker_is_exit_code_6(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_API_KEY", "sk-inv-given")
    error = {"error": {"message": "None is ready.", "type": "unavailable", "code": "no_ready_worker"}}
    stub.answer("POST", "/v1/chat/completions", Answer(503, error))
    assert inventiv("chat", "mock-echo-model", "hello") == ExitCode.NO_CAPACITY
    assert "None is ready." in capsys.readouterr().err


def test_a_key_is_printed_alone_so_that_a_script_can_catch_it(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    key = {"id": "k", "activation": {"missing": []}}
    stub.answer("POST", "/api_keys", Answer(201, {"key": key, "api_key": "sk-inv-new"}))
    assert inventiv("key", "create", "ci") == ExitCode.OK
    assert capsys.readouterr().out == "sk-inv-new\n"


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-11-21T08:00:00Z", "0 s"),
        ("2026-11-21T07:58:00Z", "2 min"),
        ("2026-11-18T08:00:00Z", "3 d"),
        (None, ""),
    ],
)
def test_ages_are_said_in_one_unit(moment: str | None, words: str) -> None:
    from datetime import UTC, datetime

    assert age(moment, now=datetime(2026, 11, 21, 8, tzinfo=UTC)) == words
