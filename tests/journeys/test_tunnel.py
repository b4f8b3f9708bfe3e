"""A worker that is reached through its own tunnel alone, on a whole platform; and the relay killed under it."""

import os
import signal

import pytest

from tests.journeys.platform import MODEL, Platform, until
from web.api.catalogue import provider_id

pytestmark = pytest.mark.journey


def test_a_tunnelled_worker_answers_and_outlives_its_relay(own_platform: Platform) -> None:
    own_platform.start()
    path = f"/providers/{provider_id('local')}/params"
    assert own_platform.rest("PUT", path, json={"worker_tunnel": True}).status_code == 200
    instance_id = own_platform.json("deploy", MODEL)["instances"][0]["id"]

    def answers() -> bool:
        return "over the hills" in own_platform.inventiv("chat", MODEL, "over the hills").out

    until(answers, "the first answer")
    [view] = own_platform.rest("GET", "/instances").json()
    assert view["engine_url"].endswith(f"/t/{instance_id}/engine/v1")
    [server] = [path.parent for path in own_platform.data_dir.glob("servers/local-*/server.json")]
    assert "WORKER_TUNNEL" in (server / "server.json").read_text()

    os.kill(own_platform.pid_of("tunnel"), signal.SIGKILL)
    until(answers, "the answer after the relay was killed")
    [after] = own_platform.rest("GET", "/instances").json()
    assert (after["id"], after["status"]) == (instance_id, "ready")
    until(lambda: own_platform.children()["tunnel"].restarts > 0, "the supervisor started another")
