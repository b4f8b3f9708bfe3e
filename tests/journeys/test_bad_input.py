"""What is wrong is answered in the caller's own terms: OpenAI's error shape at the gateway, ours at the REST API."""

from typing import Any

import httpx
import pytest

from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
OVER_ANY_LIMIT_BYTES = 40 * 1024 * 1024


def error_of(body: Any) -> dict[str, Any]:
    """OpenAI's shape, or the assertion fails."""
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    return dict(body["error"])


def test_an_unknown_model_is_404(platform: Platform) -> None:
    reply = platform.gateway("POST", CHAT, key=platform.key, json={"model": "no-such-model", "messages": HELLO})
    assert reply.status_code == 404
    assert error_of(reply.json())["code"] == "model_not_found"


def test_malformed_json_is_400(platform: Platform) -> None:
    reply = platform.gateway("POST", CHAT, key=platform.key, content=b'{"model": ')
    assert reply.status_code == 400
    assert error_of(reply.json())["code"] == "invalid_json"


@pytest.mark.parametrize("key", ["", "nonsense", "sk-inv-" + "0" * 64])
def test_a_missing_or_wrong_key_is_401(platform: Platform, key: str) -> None:
    reply = platform.gateway("POST", CHAT, key=key, json={"model": MODEL, "messages": HELLO})
    assert reply.status_code == 401
    error_of(reply.json())


def test_a_revoked_key_is_401(platform: Platform) -> None:
    made = platform.json("key", "create", "short-lived")
    platform.json("key", "revoke", made["key"]["id"])
    until(lambda: platform.gateway("GET", "/v1/models", key=made["api_key"]).status_code == 401, "it is refused")


def test_a_wanted_model_without_a_ready_worker_is_503_with_retry_after(platform: Platform) -> None:
    model = "Qwen/Qwen2.5-0.5B-Instruct"
    deployed = platform.json("deploy", model, "--detach")
    reply = until(lambda: r if (r := _ask(platform, model)).status_code == 503 else None, "the wish is known")
    assert int(reply.headers["retry-after"]) >= 1
    assert error_of(reply.json())["code"] == "no_ready_worker"
    platform.json("deployment", "stop", deployed["deployment_id"])


def _ask(platform: Platform, model: str) -> httpx.Response:
    return platform.gateway("POST", CHAT, key=platform.key, json={"model": model, "messages": HELLO})


def test_a_body_over_its_limit_is_413_at_the_gateway(platform: Platform) -> None:
    reply = platform.gateway("POST", CHAT, key=platform.key, content=_endless())
    assert reply.status_code == 413
    error_of(reply.json())


def test_a_body_over_its_limit_is_413_at_the_api(platform: Platform) -> None:
    assert platform.rest("POST", "/api_keys", content=_endless()).status_code == 413


def _endless() -> Any:
    """Without a length, so that the limit must be kept while reading."""
    piece = b" " * 65_536
    return (piece for _ in range(OVER_ANY_LIMIT_BYTES // len(piece)))


def test_the_api_says_what_is_wrong_in_its_own_shape(platform: Platform) -> None:
    malformed = platform.rest("POST", "/api_keys", content=b"{", headers={"Content-Type": "application/json"})
    assert (malformed.status_code, malformed.json()["error"]) == (400, "invalid_json")
    stranger = platform.rest("GET", "/instances", signed=False)
    assert (stranger.status_code, stranger.json()["error"]) == (401, "login_required")
    nowhere = platform.rest("GET", "/nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"model": ""}, "MISSING_MODEL"),
        ({"model": "no-such-model"}, "INVALID_MODEL"),
        ({"provider_code": "ovh"}, "INVALID_PROVIDER"),
        ({"zone": "moon"}, "INVALID_ZONE"),
        ({"instance_type": "abacus"}, "INVALID_INSTANCE_TYPE"),
        ({"engine": "vllm"}, "INCOMPATIBLE_MODEL_INSTANCE"),
    ],
)
def test_each_refused_deployment_is_an_event_with_its_code(platform: Platform, wish: dict[str, str], code: str) -> None:
    usual = {"model": MODEL, "provider_code": "local", "zone": "local", "instance_type": "mock-local-instance"}
    reply = platform.rest("POST", "/deployments", json=usual | wish)
    assert reply.json()["error"] == code
    story = platform.json("events", "show", "deployment", reply.json()["deployment_id"])["events"]
    assert [event["type"] for event in story] == ["DeploymentRequested", "DeploymentRefused"]
    assert story[1]["data"]["code"] == code
