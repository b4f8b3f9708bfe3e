"""The same journey by REST, as a program of somebody else's would make it."""

import json
from typing import Any

import httpx
import pytest

from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey

WISH = {"model": MODEL, "provider_code": "local", "zone": "local", "instance_type": "mock-local-instance"}


def test_from_the_wish_to_an_answer_to_the_end(platform: Platform) -> None:
    accepted = platform.rest("POST", "/deployments", json=WISH)
    assert accepted.status_code == 202
    position = accepted.headers["event-position"]
    deployment_id, instance_id = accepted.json()["deployment_id"], accepted.json()["instance_id"]
    seen = platform.rest("GET", f"/deployments/{deployment_id}", headers={"Event-Position": position})
    assert seen.json()["model_code"] == MODEL
    until(lambda: _instance(platform, instance_id).get("status") == "ready", "the instance is ready")

    issued = platform.rest("POST", "/api_keys", json={"name": "rest"}).json()
    until(lambda: _chat(platform, issued["api_key"]).status_code == 200, "the gateway answers")
    used = until(lambda: _asked(platform, issued["api_key"], instance_id), "the usage is counted")
    assert used["successful_requests"] >= 1
    assert used["total_tokens"] > 0

    assert platform.rest("DELETE", f"/instances/{instance_id}").status_code == 202
    until(lambda: _instance(platform, instance_id)["status"] == "terminated", "the instance has ended")
    history = [milestone["status_after"] for milestone in _instance(platform, instance_id)["history"]]
    assert [s for n, s in enumerate(history) if n == 0 or history[n - 1] != s] == [
        "provisioning",
        "booting",
        "starting",
        "ready",
        "draining",
        "terminating",
        "terminated",
    ]


def _instance(platform: Platform, instance_id: str) -> dict[str, Any]:
    reply = platform.rest("GET", f"/instances/{instance_id}")
    return dict(reply.json()) if reply.status_code == 200 else {}


def _asked(platform: Platform, key: str, instance_id: str) -> dict[str, Any] | None:
    """Asks once more, since the answer before may have come from another test's instance."""
    _chat(platform, key)
    return _metrics(platform, instance_id)


def _metrics(platform: Platform, instance_id: str) -> dict[str, Any] | None:
    metrics = platform.rest("GET", f"/instances/{instance_id}/metrics").json()
    return dict(metrics) if metrics["total_requests"] else None


def _chat(platform: Platform, key: str) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return platform.gateway("POST", "/v1/chat/completions", key=key, json=body)


def test_the_same_wish_under_the_same_key_is_one_deployment(platform: Platform) -> None:
    key = {"Idempotency-Key": "one wish, sent twice"}
    first = platform.rest("POST", "/deployments", json=WISH, headers=key)
    second = platform.rest("POST", "/deployments", json=WISH, headers=key)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    asked = [e for e in platform.events() if e["type"] == "DeploymentRequested"]
    assert sum(e["id"] == first.json()["deployment_id"] for e in asked) == 1
    instance_id = first.json()["instance_id"]
    until(lambda: platform.rest("DELETE", f"/instances/{instance_id}?force=true").status_code == 202, "it is let go")


def test_live_updates_resume_where_they_were_left(platform: Platform) -> None:
    made = platform.rest("POST", "/api_keys", json={"name": "watched"})
    position = int(made.headers["event-position"])
    platform.rest("DELETE", f"/api_keys/{made.json()['key']['id']}")
    headers = {"Last-Event-ID": str(position - 1), "Authorization": f"Bearer {platform._token}"}
    url = f"{platform.card['api_url']}/events/stream"
    seen: dict[int, str] = {}
    with httpx.stream("GET", url, headers=headers, timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and "type" in (event := json.loads(line.removeprefix("data:"))):
                seen[event["position"]] = event["type"]
                if event["type"] == "ApiKeyRevoked":
                    break
    assert min(seen) == position
    assert seen[position] == "ApiKeyIssued"
