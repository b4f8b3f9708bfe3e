"""SIGKILL for any one process, at several moments of the journey: it finishes all the same, and nothing is doubled.

    wish ──┬─> instance ready ──┬─> answers ──┬─> stop ──┬─> gone
         kill                 kill          (kill)     kill

Afterwards the books are checked: one server was made for the instance, the log has no hole and no double, and the usage
counts each answered request once.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey

ANSWERS = 5
Kill = Callable[[Platform], None]


def kill_child(name: str) -> Kill:
    def kill(platform: Platform) -> None:
        pid = platform.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _lives(pid), f"{name} is dead")

    return kill


def kill_agents(platform: Platform) -> None:
    for agent in platform.agents():
        agent.kill()


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_agent(platform: Platform) -> None:
    the_journey_survives(platform, kill_agents)


def test_the_gateway(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("gateway"))


def test_the_handlers(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("handlers"))


def test_the_projections(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("projections"))


def test_the_web(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("web"))


def test_the_nats_server(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("nats"))


def test_the_postgres(platform: Platform) -> None:
    the_journey_survives(platform, kill_child("postgres"))


def the_journey_survives(platform: Platform, kill: Kill) -> None:
    platform.settled()
    made_before = {record["name"] for record in platform.servers()}
    before = _usage(platform)
    deployed = platform.json("deploy", MODEL, "--detach")
    kill(platform)
    instance_id = until(lambda: _ready(platform, deployed["deployment_id"]), "the instance becomes ready")
    kill(platform)
    for _ in range(ANSWERS):
        until(lambda: _answer(platform), "an answer")
    kill(platform)
    platform.json("instance", "stop", instance_id)
    kill(platform)
    until(lambda: _instance(platform, instance_id)["status"] == "terminated", "the instance ends")

    made = [record["name"] for record in platform.servers() if record["name"] not in made_before]
    assert made == []
    _check_the_log(platform, instance_id)
    until(lambda: _usage(platform) - before >= ANSWERS, "all usage is counted")
    assert _usage(platform) - before == ANSWERS
    platform.settled()


def _ready(platform: Platform, deployment_id: str) -> str | None:
    """The instance's id once it is ready and the gateway may send it requests."""
    views = platform.json("instance", "ls")["instances"]
    view = next((v for v in views if v["deployment_id"] == deployment_id), None)
    return str(view["id"]) if view and view["status"] == "ready" else None


def _instance(platform: Platform, instance_id: str) -> Any:
    return platform.json("instance", "show", instance_id)


def _answer(platform: Platform) -> bool:
    """One answered request; a refused or broken one is not counted, for nobody may bill it as completed."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return platform.gateway("POST", "/v1/chat/completions", key=platform.key, json=body).status_code == 200


def _usage(platform: Platform) -> int:
    """Completed requests of the model, as the read model counts them."""
    totals = platform.rest("GET", "/usage").json()
    return sum(total["successful_requests"] for total in totals if total["of"] == MODEL)


def _check_the_log(platform: Platform, instance_id: str) -> None:
    events = platform.events()
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["event_id"] for event in events}) == len(events)
    versions: dict[tuple[str, str], int] = {}
    for event in events:
        thing = (event["aggregate"], event["id"])
        assert event["version"] == versions.get(thing, 0) + 1
        versions[thing] = event["version"]
    story = [event["type"] for event in events if event["id"] == instance_id]
    assert story.count("ServerCreateIntended") == 1
    assert story.count("ServerCreated") == 1
    assert story.count("InstanceTerminated") == 1
