"""One organisation's model, called by another: offered, shared, revoked, and both doors agree at every step."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.journeys.platform import HTTP, MODEL, Platform, until

pytestmark = pytest.mark.journey

Rest = Callable[..., httpx.Response]


@pytest.fixture
def consumer(platform: Platform) -> Iterator[tuple[str, Rest]]:
    """A second organisation: its slug, and REST with a session of its own, whose workspace it is."""
    password = Path(platform.card["admin_password_file"]).read_text().strip()
    login = {"email": platform.card["admin_username"], "password": password}
    token = HTTP.post(f"{platform.card['api_url']}/auth/login", json=login).cookies["inventiv_session"]
    HTTP.cookies.clear()

    def rest(method: str, path: str, **request: Any) -> httpx.Response:
        return platform.rest(method, path, headers={"Authorization": f"Bearer {token}"}, **request)

    made = rest("POST", "/organizations", json={"name": f"Consumer {uuid4().hex[:8]}"})
    assert made.status_code == 201, made.text
    HTTP.cookies.clear()
    yield made.json()["slug"], rest
    rest("DELETE", "/auth/session")


@pytest.mark.usefixtures("ready_instance")
def test_a_share_lets_a_neighbour_in_and_its_end_keeps_it_out(platform: Platform, consumer: tuple[str, Rest]) -> None:
    slug, neighbour = consumer
    key = neighbour("POST", "/api_keys", json={"name": "consumer"}).json()["api_key"]
    code = f"chat-{uuid4().hex[:8]}"
    offered = platform.rest("POST", "/offerings", json={"model": MODEL, "code": code, "visibility": "private"})
    assert offered.status_code == 201, offered.text
    name = offered.json()["identifier"]

    until(lambda: _chat(platform, platform.key, name).status_code == 200, "its own organisation may call it")
    assert _told(platform, key, name) == (404, "offering_not_found")
    assert _told(platform, key, MODEL) == (404, "model_not_found")

    shared = platform.rest("POST", "/shares", json={"offering": code, "consumer": slug})
    assert shared.status_code == 201, shared.text
    until(lambda: _chat(platform, key, name).status_code == 200, "the neighbour may call it")
    assert name in platform.gateway("GET", "/v1/models", key=key).text

    revoked = platform.rest("POST", f"/shares/{shared.json()['id']}/revoke")
    assert revoked.status_code == 200, revoked.text
    until(lambda: _told(platform, key, name) == (403, "offering_not_accessible"), "the share's end")
    assert name not in platform.gateway("GET", "/v1/models", key=key).text
    assert _chat(platform, platform.key, name).status_code == 200


def _chat(platform: Platform, key: str, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return platform.gateway("POST", "/v1/chat/completions", key=key, json=body)


def _told(platform: Platform, key: str, model: str) -> tuple[int, str]:
    reply = _chat(platform, key, model)
    return reply.status_code, reply.json().get("error", {}).get("code", "")
