"""Stopping an instance lets its running answers finish, and gives it no new ones."""

import json
import threading
from typing import Any

import httpx
import pytest

from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey

LONG_TEXT = "word " * 400
"""About 500 tokens: ten seconds at the simulated engine's usual rate."""


class Streamed(threading.Thread):
    """Reads one streamed answer in the background."""

    def __init__(self, platform: Platform, text: str) -> None:
        super().__init__()
        self.platform = platform
        self.text = text
        self.pieces: list[str] = []
        self.ending = ""

    def run(self) -> None:
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": self.text}]}
        headers = {"Authorization": f"Bearer {self.platform.key}"}
        url = f"{self.platform.card['gateway_url']}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    self.pieces += [choice["delta"].get("content") or "" for choice in chunk.get("choices", [])]
                elif line.startswith("data: "):
                    self.ending = line.removeprefix("data: ")


def test_a_stopped_instance_finishes_its_running_stream(platform: Platform) -> None:
    others = [view["id"] for view in platform.json("instance", "ls")["instances"] if view["status"] == "ready"]
    instance_id = platform.json("deploy", MODEL)["instances"][0]["id"]
    for other in others:  # so that the stream must run on ours
        platform.json("instance", "stop", other, "--force")
    streamed = until(lambda: _started(platform, instance_id), "our instance streams")
    stopped = platform.json("instance", "stop", instance_id)
    assert stopped["status"] == "draining"
    streamed.join(timeout=60)
    assert "".join(streamed.pieces).endswith(LONG_TEXT.strip()) or LONG_TEXT.strip() in "".join(streamed.pieces)
    assert streamed.ending == "[DONE]"
    until(lambda: _status(platform, instance_id) == "terminated", "the instance ends after its stream")


def _started(platform: Platform, instance_id: str) -> Streamed | None:
    """A stream that runs on the instance, judged by its queue; None when it ran elsewhere or was refused."""
    if _status(platform, instance_id) != "ready":
        return None
    streamed = Streamed(platform, LONG_TEXT)
    streamed.start()
    until(lambda: streamed.pieces or not streamed.is_alive(), "the first word or a refusal")
    if streamed.pieces:
        return streamed
    streamed.join()
    return None


def _status(platform: Platform, instance_id: str) -> str:
    return str(platform.rest("GET", f"/instances/{instance_id}").json()["status"])
