"""API keys over HTTP: the secret appears in one reply, the neighbour sees nothing."""

from collections.abc import AsyncIterator

import pytest
from uuid_utils import uuid7

from domain.api_key import key_hash
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_key_is_shown_once(world: World) -> None:
    async with world.team(ann="admin") as team:
        made = await team["ann"].post("/api_keys", json={"name": " laptop "})
        assert made.status_code == 201
        secret = made.json()["api_key"]
        assert made.json()["key"]["name"] == "laptop"
        assert secret.startswith(made.json()["key"]["key_prefix"])
        listed = await team["ann"].get("/api_keys", headers={"event-position": made.headers["event-position"]})
        assert [key["id"] for key in listed.json()] == [made.json()["key"]["id"]]
        assert secret not in listed.text
        assert key_hash(secret) not in listed.text


async def test_a_key_can_be_renamed_and_revoked(world: World) -> None:
    async with world.team(ann="user") as team:
        ann = team["ann"]
        key = (await ann.post("/api_keys", json={"name": "old"})).json()["key"]
        renamed = await ann.put(f"/api_keys/{key['id']}", json={"name": "new"})
        assert (renamed.status_code, renamed.json()["name"]) == (200, "new")
        revoked = await ann.delete(f"/api_keys/{key['id']}")
        assert revoked.status_code == 204
        position = {"event-position": revoked.headers["event-position"]}
        page = (await ann.get("/api_keys/search?sort_by=name&sort_dir=asc&limit=1", headers=position)).json()
        assert page["total_count"] == 1
        assert page["rows"][0]["revoked_at"]


async def test_colleagues_keys_are_for_owners_and_admins(world: World) -> None:
    async with world.team(boss="owner", ann="user", bob="user") as team:
        key = (await team["ann"].post("/api_keys", json={"name": "ann's"})).json()["key"]
        assert [k["id"] for k in (await team["boss"].get("/api_keys")).json()] == [key["id"]]
        assert (await team["bob"].get("/api_keys")).json() == []
        foreign = await team["bob"].delete(f"/api_keys/{key['id']}")
        absent = await team["bob"].delete(f"/api_keys/{uuid7()}")
        assert refusal(foreign) == (404, "api_key_not_found")
        assert foreign.json() == absent.json()
        assert (await team["boss"].delete(f"/api_keys/{key['id']}")).status_code == 204


async def test_another_organisations_key_does_not_exist(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs:
        key = (await ours["ann"].post("/api_keys", json={"name": "ours"})).json()["key"]
        for request in (
            theirs["eve"].put(f"/api_keys/{key['id']}", json={"name": "theirs"}),
            theirs["eve"].delete(f"/api_keys/{key['id']}"),
            theirs["eve"].delete("/api_keys/not-even-an-id"),
        ):
            assert refusal(await request) == (404, "api_key_not_found")


async def test_a_key_without_a_name_is_refused(world: World) -> None:
    async with world.team(ann="user") as team:
        assert refusal(await team["ann"].post("/api_keys", json={"name": "  "})) == (400, "name_required")
        assert refusal(await team["ann"].post("/api_keys", json={"name": "x" * 101})) == (400, "name_too_long")
        unknown = await team["ann"].post("/api_keys", json={"name": "x", "owner": "someone else"})
        assert refusal(unknown) == (400, "invalid_request")


async def test_a_key_opens_what_keys_may_open_until_revoked(world: World) -> None:
    async with world.team(ann="user") as team, world.client() as client:
        made = (await team["ann"].post("/api_keys", json={"name": "reader"})).json()
        as_header = {"x-api-key": made["api_key"]}
        as_bearer = {"authorization": f"Bearer {made['api_key']}"}
        assert (await client.get("/models", headers=as_header)).status_code == 200
        assert (await client.get("/usage", headers=as_bearer)).status_code == 200
        assert refusal(await client.get("/api_keys", headers=as_header)) == (401, "login_required")
        revoked = await team["ann"].delete(f"/api_keys/{made['key']['id']}")
        await world.visible(int(revoked.headers["event-position"]))
        assert refusal(await client.get("/models", headers=as_header)) == (401, "invalid_api_key")


async def test_a_mistyped_key_is_refused_without_a_look_up(world: World) -> None:
    async with world.client(headers={"x-api-key": "sk-inv-" + "0" * 64}) as client:
        assert refusal(await client.get("/models")) == (401, "invalid_api_key")


async def test_a_body_over_a_mebibyte_is_refused_with_and_without_its_length(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    async with world.team(ann="user") as team:
        declared = await team["ann"].post("/api_keys", content=b" " * 1_100_000)
        undeclared = await team["ann"].post("/api_keys", content=endless())
    assert refusal(declared) == refusal(undeclared) == (413, "body_too_large")
