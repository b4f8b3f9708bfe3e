"""What a hostile client tries at the door: headers, hosts, bodies; and what every reply tells browsers."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.web.world import World
from web.app import create_app
from web.layers import HSTS, MAX_HEADER_BYTES, SAFE_HEADERS

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGE_HOSTS = ("evil.example/auth/login?x=", "a/?x", "api.test:80#", "[::1]", "", "api.test\t", "../../users")
STRANGE_PATHS = ("//users", "/%2fusers", "/users/..;/healthz", "/./users", "/users%00", "/USERS", "/users/.")


@pytest.mark.parametrize("host", STRANGE_HOSTS)
async def test_no_host_header_opens_a_door(world: World, host: str) -> None:
    async with world.client(headers={"host": host}) as client:
        for path in ("/users", "/instances", "/audit/checkpoints", "/auth/me"):
            assert (await client.get(path)).status_code == 401, path


@pytest.mark.parametrize("path", STRANGE_PATHS)
async def test_no_spelling_of_a_path_opens_a_door(world: World, path: str) -> None:
    async with world.client() as client:
        request = client.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert (await client.send(request)).status_code in {401, 404}


async def test_headers_beyond_any_need_are_refused(world: World) -> None:
    async with world.client(headers={"x-filler": "x" * MAX_HEADER_BYTES}) as client:
        reply = await client.get("/version")
    assert (reply.status_code, reply.json()["error"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "body", [b"[" * 500_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"name": "\xed\xa0\x80"}', b'{"name": NaN}', b"null"]
)
async def test_a_body_made_to_break_the_parser_is_a_bad_request(world: World, body: bytes) -> None:
    async with world.signed_in() as client:
        reply = await client.post("/api_keys", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in {400, 413, 422}, reply.text[:200]
    assert reply.json()["error"] in {"invalid_json", "invalid_request", "body_too_large"}


async def test_an_unknown_field_is_heard_and_not_repeated(world: World) -> None:
    async with world.signed_in() as client:
        reply = await client.post("/api_keys", json={"name": "k", "role": "a value nobody should read back"})
    assert reply.status_code == 400
    assert "a value nobody should read back" not in reply.text


async def test_every_reply_makes_browsers_careful(world: World) -> None:
    async with world.client() as client:
        replies: list[httpx.Response] = [await client.get(p) for p in ("/version", "/nowhere", "/auth/me")]
        replies.append(await client.delete("/version"))
    for reply in replies:
        assert {name: reply.headers.get(name) for name in SAFE_HEADERS} == dict(SAFE_HEADERS), reply.url
        assert "strict-transport-security" not in reply.headers  # over http it would lock a browser out


async def test_behind_https_browsers_are_told_to_stay_there(world: World) -> None:
    services = replace(world.services, settings=replace(world.services.settings, cookie_secure=True))
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="https://api.test") as client:
        assert (await client.get("/version")).headers["strict-transport-security"] == HSTS


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://api.test.evil.example"},
        {"content-type": "text/plain"},
    ],
)
async def test_a_foreign_page_changes_nothing_with_our_cookie(world: World, headers: dict[str, str]) -> None:
    token = await world.token()
    async with world.client(cookies={"inventiv_session": token}, headers=headers) as client:
        replies: list[Any] = [
            await client.post("/api_keys", content=json.dumps({"name": "k"})),
            await client.put("/organizations/current", content=json.dumps({"organization_id": None})),
            await client.delete("/api_keys/0192aaaa-0000-7000-8000-000000000001"),
        ]
        assert (await client.get("/auth/me")).status_code == 200
    assert {(reply.status_code, reply.json()["error"]) for reply in replies} == {(403, "csrf_check_failed")}


async def test_our_own_page_may(world: World) -> None:
    token = await world.token()
    async with world.client(cookies={"inventiv_session": token}, headers={"origin": "http://api.test"}) as client:
        assert (await client.post("/api_keys", json={"name": "k"})).status_code == 201
