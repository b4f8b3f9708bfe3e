"""SIGKILL for any one process, at several moments of the journey: it finishes all the same, and nothing is doubled.

    wish ──┬──> instance ready ──> answers ──┬──> stop ──┬──> gone
         kill                              kill        kill

Afterwards the books are checked: one server was made for the instance, the log has no hole and no double, and the usage
counts each answered request once.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

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
    made = platform.json("key", "create", "for the books")
    deployed = platform.json("deploy", MODEL, "--detach")
    kill(platform)
    instance_id = until(lambda: _ready(platform, deployed["deployment_id"]), "the instance becomes ready")
    for _ in range(ANSWERS):
        until(lambda: _answer(platform, made["api_key"]), "an answer")
    kill(platform)
    platform.json("instance", "stop", instance_id)
    kill(platform)
    until(lambda: _has_ended(platform, instance_id), "the instance ends")

    _check_the_servers(platform, instance_id)
    _check_the_log(platform, instance_id)
    counted = until(lambda: n if (n := _usage(platform, made["key"]["id"])) >= ANSWERS else None, "usage is counted")
    assert counted == ANSWERS


def _ready(platform: Platform, deployment_id: str) -> str | None:
    reply = platform.rest("GET", "/instances")
    views = reply.json() if reply.status_code == 200 else []
    ready = (v for v in views if v["deployment_id"] == deployment_id and v["status"] == "ready")
    return next((str(view["id"]) for view in ready), None)


def _has_ended(platform: Platform, instance_id: str) -> bool:
    reply = platform.rest("GET", f"/instances/{instance_id}")
    return reply.status_code == 200 and bool(reply.json()["status"] == "terminated")


def _answer(platform: Platform, key: str) -> bool:
    """One answered request; a refused or broken one is not counted, for nobody may bill it as completed."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return platform.gateway("POST", "/v1/chat/completions", key=key, json=body).status_code == 200


def _usage(platform: Platform, key_id: str) -> int:
    """Completed requests with the key, as the read model counts them."""
    reply = platform.rest("GET", "/usage?by=api_key_id")
    totals = reply.json() if reply.status_code == 200 else []
    return sum(total["successful_requests"] for total in totals if total["of"] == key_id)


def _check_the_servers(platform: Platform, instance_id: str) -> None:
    """One was made, under its fixed name, and none is left: neither record nor process."""
    assert [name for name in platform.server_names() if instance_id in name] == [f"inventiv-worker-{instance_id}-1"]
    assert not any(instance_id in name for name in platform.server_names(deleted=False))
    folders = {Path(process.cmdline()[1]).parent for process in platform.agents()}
    assert all((folder / "server.json").exists() for folder in folders)


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
