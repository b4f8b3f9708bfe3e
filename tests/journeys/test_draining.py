"""Stopping an instance lets its running answers finish, and gives it no new ones."""

import pytest

from tests.journeys.platform import MODEL, Platform, until
from tests.journeys.streamed import LONG_TEXT, start_stream

pytestmark = pytest.mark.journey


def test_a_stopped_instance_finishes_its_running_stream(platform: Platform) -> None:
    platform.end_instances()  # so that the stream must run on ours
    instance_id = platform.json("deploy", MODEL)["instances"][0]["id"]
    streamed = until(lambda: start_stream(platform, platform.key), "our instance streams")
    assert platform.json("instance", "stop", instance_id)["status"] == "draining"
    refused = {"model": MODEL, "messages": [{"role": "user", "content": "one more?"}]}
    until(
        lambda: platform.gateway("POST", "/v1/chat/completions", key=platform.key, json=refused).status_code == 503,
        "no new requests",
    )
    assert streamed.is_alive()
    streamed.join(timeout=60)
    assert LONG_TEXT.strip() in streamed.content
    assert streamed.ending == "[DONE]"
    until(
        lambda: platform.rest("GET", f"/instances/{instance_id}").json()["status"] == "terminated",
        "the instance ends after its stream",
    )
