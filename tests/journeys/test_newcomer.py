"""The newcomer's journey, told by the command line alone: from a model's name to an answer, and back to nothing."""

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from infra.cli.output import ExitCode
from tests.journeys.platform import INVENTIV, MODEL, Platform, until

pytestmark = pytest.mark.journey


def test_a_newcomer_deploys_chats_reads_the_story_and_stops(platform: Platform) -> None:
    assert MODEL in {model["code"] for model in platform.json("model", "ls")["models"]}

    deployed = platform.json("deploy", MODEL, "--instances", "2")
    assert deployed["model"] == MODEL
    first, second = (view["id"] for view in deployed["instances"])
    listed = {view["id"]: view for view in platform.json("instance", "ls")["instances"]}
    assert {(listed[one]["status"], listed[one]["progress_percent"]) for one in (first, second)} == {("ready", 100)}

    answer = until(lambda: _answer(platform), "the gateway knows the workers")
    assert "hello there" in answer["content"]
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] > 0
    spoken = platform.inventiv("chat", MODEL, "hello there")
    assert "hello there" in spoken.out

    story = platform.json("events", "show", "instance", first)["events"]
    assert [event["version"] for event in story] == list(range(1, len(story) + 1))
    assert story[0]["type"] == "InstanceRequested"
    assert "InstanceReady" in {event["type"] for event in story}
    by_id = {event["event_id"]: event for event in platform.events()}
    assert by_id[story[0]["cause"]]["type"] == "DeploymentRequested"
    assert {event["correlation"] for event in story} == {by_id[story[0]["cause"]]["correlation"]}

    assert platform.json("instance", "stop", second)["status"] == "draining"
    assert platform.json("instance", "stop", first, "--wait")["status"] == "terminated"
    platform.json("instance", "archive", first)
    assert first not in {view["id"] for view in platform.json("instance", "ls")["instances"]}
    assert first in {view["id"] for view in platform.json("instance", "ls", "--archived")["instances"]}


def _answer(platform: Platform) -> Any:
    ran = platform.inventiv("chat", MODEL, "hello there", "--json")
    return ran.document if ran.code == 0 else None


def test_a_key_opens_the_gateway_until_it_is_revoked(platform: Platform, ready_instance: str) -> None:
    made = platform.json("key", "create", "for a script")
    key, key_id = made["api_key"], made["key"]["id"]
    until(lambda: platform.gateway("GET", "/v1/models", key=key).status_code == 200, "the key is known")
    platform.json("key", "rename", key_id, "another name")
    platform.json("key", "revoke", key_id)
    until(lambda: platform.gateway("GET", "/v1/models", key=key).status_code == 401, "the key is dead")
    listed = {row["id"]: row for row in platform.json("key", "ls")["api_keys"]}
    assert listed[key_id]["name"] == "another name"
    assert listed[key_id]["revoked_at"]


def test_tail_prints_one_whole_envelope_a_line(platform: Platform) -> None:
    wanted = {"position", "aggregate", "id", "version", "type", "at", "actor", "cause", "correlation"}
    ran = platform.inventiv("events", "tail", "--last", "5", "--json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert len(lines) == 5
    assert all(wanted <= set(line) for line in lines)
    assert [line["position"] for line in lines] == sorted(line["position"] for line in lines)


def test_status_names_every_process(platform: Platform) -> None:
    status = platform.json("status")
    assert status["api_url"] == platform.card["api_url"]
    assert status["gateway_url"] == platform.card["gateway_url"]
    assert status["data_dir"] == str(platform.data_dir)
    assert set(status["roles"]) == {"web", "gateway", "handlers", "projections", "tunnel"}
    assert set(status["servers"]) == {"nats", "postgres"}
    assert "@" not in status["nats_url"] + status["postgres_url"]


def test_doctor_finds_a_running_platform_healthy(platform: Platform) -> None:
    platform.settled()
    findings = platform.json("doctor")
    assert findings["healthy"]
    by_name = {check["name"]: check for check in findings["checks"]}
    assert {by_name[name]["result"] for name in ("streams", "projections", "web", "gateway answers")} == {"ok"}


def test_nothing_is_parked_on_a_healthy_platform(platform: Platform) -> None:
    assert platform.json("events", "parked") == {"parked": []}


def test_a_refused_deployment_says_why_and_is_on_record(platform: Platform) -> None:
    ran = platform.inventiv("deploy", "no-such-model", "--json")
    assert ran.code == ExitCode.NOT_FOUND
    assert ran.document["error"] == "INVALID_MODEL"
    refused = [event for event in platform.events() if event["type"] == "DeploymentRefused"]
    assert "INVALID_MODEL" in {event["data"]["code"] for event in refused}


def test_what_does_not_exist_is_not_found(platform: Platform) -> None:
    ran = platform.inventiv("instance", "show", "00000000-0000-0000-0000-000000000000")
    assert ran.code == ExitCode.NOT_FOUND


def test_following_goes_on_through_a_death_of_the_api_without_a_gap(platform: Platform) -> None:
    follow = [*INVENTIV, "events", "tail", "--last", "1", "--follow", "--json"]
    with subprocess.Popen(follow, env=platform.environment, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        seen = [json.loads(tail.stdout.readline())]
        before = platform.json("key", "create", "before")["key"]["id"]
        while seen[-1]["id"] != before:
            seen.append(json.loads(tail.stdout.readline()))
        os.kill(platform.pid_of("web"), signal.SIGKILL)
        after = platform.json("key", "create", "after")["key"]["id"]
        while seen[-1]["id"] != after:
            seen.append(json.loads(tail.stdout.readline()))
        tail.send_signal(signal.SIGINT)
    assert tail.returncode == ExitCode.INTERRUPTED
    positions = [envelope["position"] for envelope in seen]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
