"""Three nats-servers hold the log: the one that leads it is killed, and who deploys or chats hardly notices."""

import asyncio
import os
import signal

import msgspec
import pytest

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.processes.data_folder import Ports
from infra.processes.running import read_platform
from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey

NODES = ("nats-1", "nats-2", "nats-3")
ELECTION_S = 60.0
"""The server itself takes 5 to 7 s; the machine may be busy."""


def leader_of_events(platform: Platform) -> str | None:
    """Its name among the platform's processes."""
    ports = msgspec.json.decode((platform.data_dir / "run" / "ports.json").read_bytes(), type=Ports)
    cluster = EmbeddedNatsCluster(platform.data_dir / "nats", ports.nats_nodes)
    try:
        return asyncio.run(cluster.leader("EVENTS")).name
    except EmbeddedServerError:
        return None


def chats(platform: Platform) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return platform.gateway("POST", "/v1/chat/completions", key=platform.key, json=body).status_code == 200


def test_the_platform_goes_on_when_the_node_that_leads_the_log_is_killed(own_platform: Platform) -> None:
    platform = own_platform
    platform.start("--nats-nodes", "3")
    running = read_platform(platform.data_dir)
    assert running is not None
    assert set(NODES) < set(running.servers)
    platform.json("deploy", MODEL)
    until(lambda: chats(platform), "an answer")

    leader = until(lambda: leader_of_events(platform), "EVENTS has a leader")
    os.kill(platform.pid_of(leader), signal.SIGKILL)
    assert chats(platform), "the gateway answers from memory"
    again = platform.json("deploy", MODEL, timeout_s=ELECTION_S)
    assert again["instances"][0]["status"] == "ready"
    assert until(lambda: leader_of_events(platform), "EVENTS has a leader again")
    until(lambda: platform.children()[leader].restarts == 1, "the node was started again")
    platform.settled()
    until(lambda: chats(platform), "an answer")

    status = platform.json("status")
    assert {status["servers"][node]["state"] for node in NODES} == {"running"}
    assert "@" not in status["nats_url"]
    checks = {check["name"]: check for check in platform.json("doctor")["checks"]}
    assert checks["copies"]["found"] == "3 of each stream, whole", checks["copies"]
    positions = [event["position"] for event in platform.events()]
    assert positions == list(range(1, len(positions) + 1))

    assert platform.stop() == 0
    refused = platform.inventiv("up", "--nats-nodes", "1")
    assert refused.code == 1
    assert "leave the option out" in refused.err
    platform.start()
    until(lambda: chats(platform), "an answer after a restart")
