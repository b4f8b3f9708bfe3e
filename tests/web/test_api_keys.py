"""API keys over HTTP: who makes, sees and changes them; the secret appears in one reply, the neighbour sees nothing."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from uuid_utils import uuid7

from domain.api_key import key_hash
from domain.roles import Role
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = timedelta(days=1)


async def made(client: httpx.AsyncClient, name: str = "ci", **wish: Any) -> tuple[dict[str, Any], str]:
    """A new key and its secret."""
    reply = await client.post("/api_keys", json={"name": name, **wish})
    assert reply.status_code == 201, reply.text
    body = reply.json()
    return body["key"], body["api_key"]


async def test_a_key_is_shown_once(world: World) -> None:
    async with world.team(ann="admin") as team:
        reply = await team["ann"].post("/api_keys", json={"name": " laptop "})
        assert reply.status_code == 201
        secret = reply.json()["api_key"]
        assert reply.json()["key"]["name"] == "laptop"
        assert secret.startswith(reply.json()["key"]["key_prefix"])
        listed = await team["ann"].get("/api_keys", headers={"event-position": reply.headers["event-position"]})
        assert listed.json() == [reply.json()["key"]]
        assert secret not in listed.text
        assert key_hash(secret) not in listed.text


async def test_a_new_key_has_the_lowest_role_and_ends_after_90_days(world: World) -> None:
    async with world.team(ann="owner") as team:
        key, _ = await made(team["ann"])
        assert datetime.fromisoformat(key["scope"]["expires_at"]) - world.clock() == pytest.approx(90 * DAY, abs=DAY)
        assert key["scope"] | {"expires_at": None} == {
            "role": "user",
            "models": [],
            "endpoints": [],
            "ip_ranges": [],
            "expires_at": None,
            "requests_per_minute": None,
            "tokens_per_minute": None,
            "concurrency": None,
            "spend_limit_eur_micros": None,
        }
        lasting, _ = await made(team["ann"], expires_in_days=None)
        assert lasting["scope"]["expires_at"] is None


async def test_a_scope_is_stored_as_it_was_asked_for(world: World) -> None:
    async with world.team(ann="admin") as team:
        wish: dict[str, Any] = {
            "role": "admin",
            "models": ["acme/chat"],
            "endpoints": ["chat"],
            "ip_ranges": ["10.0.0.0/8"],
            "requests_per_minute": 1,
            "tokens_per_minute": 2,
            "concurrency": 3,
            "spend_limit_eur_micros": 4,
        }
        key, _ = await made(team["ann"], expires_in_days=1, **{**wish, "ip_ranges": ["10.0.0.1/8"]})
        assert key["scope"].items() >= wish.items()
        assert datetime.fromisoformat(key["scope"]["expires_at"]) - world.clock() <= DAY
        shown = await team["ann"].get(f"/api_keys/{key['id']}")
        assert shown.json() == key


@pytest.mark.parametrize(
    ("role", "missing"),
    [("owner", []), ("admin", ["economic"]), ("manager", ["technical"]), ("user", ["technical", "economic"])],
)
async def test_a_new_key_has_the_flags_that_its_maker_may_set(world: World, role: Role, missing: list[str]) -> None:
    async with world.team(ann=role) as team:
        key, _ = await made(team["ann"])
        assert key["activation"]["missing"] == missing
        assert key["activation"]["operational"] == (not missing)
        explicit, _ = await made(team["ann"], activate=[])
        assert explicit["activation"]["missing"] == ["technical", "economic"]
        refused = await team["ann"].post("/api_keys", json={"name": "x", "activate": missing})
        assert refusal(refused) == (403, "activation_not_allowed") if missing else refused.status_code == 201


async def test_a_key_can_be_renamed_and_revoked(world: World) -> None:
    async with world.team(ann="user") as team:
        ann = team["ann"]
        key, _ = await made(ann, "old")
        renamed = await ann.put(f"/api_keys/{key['id']}", json={"name": "new"})
        assert (renamed.status_code, renamed.json()["name"]) == (200, "new")
        revoked = await ann.delete(f"/api_keys/{key['id']}")
        assert revoked.status_code == 204
        position = {"event-position": revoked.headers["event-position"]}
        page = (await ann.get("/api_keys/search?sort_by=name&sort_dir=asc&limit=1", headers=position)).json()
        assert page["total_count"] == 1
        assert page["rows"][0]["revoked_at"]


async def test_a_revoked_key_is_not_changed_any_more(world: World) -> None:
    async with world.team(ann="owner") as team:
        key, _ = await made(team["ann"])
        path = f"/api_keys/{key['id']}"
        await team["ann"].delete(path)
        assert (await team["ann"].delete(path)).status_code == 204
        for request in (
            team["ann"].put(f"{path}/scope", json={"models": ["a"]}),
            team["ann"].post(f"{path}/rotate", json={}),
            team["ann"].put(f"{path}/activation", json={"flag": "technical", "value": False}),
        ):
            assert refusal(await request) == (409, "api_key_revoked")


async def test_colleagues_keys_are_for_those_who_set_flags(world: World) -> None:
    async with world.team(boss="owner", mary="manager", ann="user", bob="user") as team:
        key, _ = await made(team["ann"], "ann's")
        for name in ("boss", "mary"):
            assert [k["id"] for k in (await team[name].get("/api_keys")).json()] == [key["id"]]
        assert (await team["bob"].get("/api_keys")).json() == []
        foreign = await team["bob"].delete(f"/api_keys/{key['id']}")
        absent = await team["bob"].delete(f"/api_keys/{uuid7()}")
        assert refusal(foreign) == (404, "api_key_not_found")
        assert foreign.json() == absent.json()
        by_manager = await team["mary"].delete(f"/api_keys/{key['id']}")
        assert refusal(by_manager) == (403, "insufficient_permissions")
        assert (await team["boss"].delete(f"/api_keys/{key['id']}")).status_code == 204


async def test_the_organisations_keys_are_made_by_owners_and_admins_and_seen_by_all(world: World) -> None:
    async with world.team(ann="admin", mary="manager", bob="user") as team:
        for name in ("mary", "bob"):
            refused = await team[name].post("/api_keys", json={"name": "x", "owner": "organization"})
            assert refusal(refused) == (403, "insufficient_permissions")
        key, _ = await made(team["ann"], "shared", owner="organization")
        assert (key["owner"], key["user_id"]) == ("organization", None)
        assert [k["id"] for k in (await team["bob"].get("/api_keys")).json()] == [key["id"]]
        assert (await team["bob"].get(f"/api_keys/{key['id']}")).status_code == 200
        path = f"/api_keys/{key['id']}"
        for request in (
            team["bob"].put(path, json={"name": "mine"}),
            team["bob"].put(f"{path}/scope", json={"models": []}),
            team["bob"].post(f"{path}/rotate", json={}),
            team["bob"].put(f"{path}/activation", json={"flag": "economic", "value": True}),
            team["mary"].delete(path),
        ):
            assert refusal(await request) == (403, "insufficient_permissions")


async def test_another_organisations_key_does_not_exist(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs:
        own, _ = await made(ours["ann"], "ours")
        shared, _ = await made(ours["ann"], "shared", owner="organization")
        eve = theirs["eve"]
        for key_id in (own["id"], shared["id"], str(uuid7()), "not-even-an-id"):
            path = f"/api_keys/{key_id}"
            for request in (
                eve.get(path),
                eve.put(path, json={"name": "theirs"}),
                eve.put(f"{path}/scope", json={"models": []}),
                eve.post(f"{path}/rotate", json={}),
                eve.put(f"{path}/activation", json={"flag": "technical", "value": False}),
                eve.delete(path),
            ):
                reply = await request
                assert refusal(reply) == (404, "api_key_not_found")
                assert reply.json()["message"] == "There is no API key with this id."
        assert (await eve.get("/api_keys")).json() == []
        assert (await eve.get("/api_keys/search")).json()["total_count"] == 0


async def test_a_key_without_a_name_is_refused(world: World) -> None:
    async with world.team(ann="user") as team:
        assert refusal(await team["ann"].post("/api_keys", json={"name": "  "})) == (400, "name_required")
        assert refusal(await team["ann"].post("/api_keys", json={"name": "x" * 101})) == (400, "name_too_long")
        unknown = await team["ann"].post("/api_keys", json={"name": "x", "key_sha256": "0" * 64})
        assert refusal(unknown) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"ip_ranges": ["everywhere"]}, "invalid_ip_range"),
        ({"models": ["a b"]}, "invalid_model_code"),
        ({"models": ["m"] * 101}, "too_many_models"),
        ({"ip_ranges": ["10.0.0.1"] * 101}, "too_many_ip_ranges"),
        ({"concurrency": 0}, "invalid_limit"),
        ({"requests_per_minute": 2**60}, "invalid_limit"),
        ({"expires_in_days": 0}, "invalid_request"),
        ({"expires_in_days": 10**9}, "invalid_request"),
        ({"role": "emperor"}, "invalid_request"),
        ({"endpoints": ["everything"]}, "invalid_request"),
        ({"owner": "neighbour"}, "invalid_request"),
    ],
)
async def test_a_scope_that_says_nothing_sensible_is_refused(world: World, wish: dict[str, Any], code: str) -> None:
    async with world.team(ann="owner") as team:
        assert refusal(await team["ann"].post("/api_keys", json={"name": "x", **wish})) == (400, code)


@pytest.mark.parametrize(("role", "wished"), [("user", "manager"), ("manager", "admin"), ("admin", "owner")])
async def test_no_key_may_more_than_its_maker(world: World, role: Role, wished: Role) -> None:
    async with world.team(ann=role) as team:
        refused = await team["ann"].post("/api_keys", json={"name": "x", "role": wished})
        assert refusal(refused) == (403, "key_wider_than_creator")
        key, _ = await made(team["ann"], role=role)
        wider = await team["ann"].put(f"/api_keys/{key['id']}/scope", json={"role": wished})
        assert refusal(wider) == (403, "key_wider_than_creator")


async def test_a_scope_changes_only_where_it_is_named(world: World) -> None:
    async with world.team(ann="owner") as team:
        key, _ = await made(team["ann"], models=["m"], ip_ranges=["10.0.0.0/8"], concurrency=3)
        path = f"/api_keys/{key['id']}/scope"
        changed = (await team["ann"].put(path, json={"models": None, "concurrency": 5})).json()
        assert changed["scope"] == {**key["scope"], "models": [], "concurrency": 5}
        lifted = (await team["ann"].put(path, json={"expires_in_days": None, "concurrency": None})).json()
        assert (lifted["scope"]["expires_at"], lifted["scope"]["concurrency"]) == (None, None)
        assert lifted["scope"]["ip_ranges"] == ["10.0.0.0/8"]


async def test_a_members_key_needs_a_flag_of_each_kind(world: World) -> None:
    async with world.team(ada="admin", mary="manager", bob="user") as team:
        key, _ = await made(team["bob"])
        path = f"/api_keys/{key['id']}/activation"
        technical, economic = {"flag": "technical", "value": True}, {"flag": "economic", "value": True}
        assert refusal(await team["bob"].put(path, json=technical)) == (403, "insufficient_permissions")
        assert refusal(await team["mary"].put(path, json=technical)) == (403, "activation_not_allowed")
        assert refusal(await team["ada"].put(path, json=economic)) == (403, "activation_not_allowed")
        half = await team["ada"].put(path, json=technical)
        assert half.json() == {"technical": True, "economic": False, "operational": False, "missing": ["economic"]}
        whole = await team["mary"].put(path, json=economic)
        assert whole.json() == {"technical": True, "economic": True, "operational": True, "missing": []}
        shown = (await team["bob"].get(f"/api_keys/{key['id']}")).json()
        ada, mary = [(await team[name].get("/auth/me")).json()["user_id"] for name in ("ada", "mary")]
        assert shown["flag_changes"]["technical_by"] == f"user:{ada}"
        assert shown["flag_changes"]["economic_by"] == f"user:{mary}"


async def test_a_rotated_key_shows_its_new_secret_once(world: World) -> None:
    async with world.team(ann="owner") as team:
        key, secret = await made(team["ann"])
        headers = {"idempotency-key": "rotate it once"}
        path = f"/api_keys/{key['id']}/rotate"
        rotated = await team["ann"].post(path, json={"overlap_s": 60}, headers=headers)
        again = await team["ann"].post(path, json={"overlap_s": 60}, headers=headers)
        assert rotated.json() == again.json()
        assert rotated.json()["api_key"] != secret
        assert rotated.json()["key"]["key_prefix"] == rotated.json()["api_key"][:12]
        until = datetime.fromisoformat(rotated.json()["key"]["previous_valid_until"])
        assert timedelta() < until - world.clock() <= timedelta(seconds=60)
        too_long = await team["ann"].post(path, json={"overlap_s": 31 * 86_400})
        assert refusal(too_long) == (400, "invalid_request")


async def test_nobody_is_shown_a_secret_of_somebody_elses_key(world: World) -> None:
    """It would let them act as that person."""
    async with world.team(boss="owner", ann="user") as team:
        key, _ = await made(team["ann"])
        refused = await team["boss"].post(f"/api_keys/{key['id']}/rotate", json={})
        assert refusal(refused) == (403, "api_key_does_not_belong_to_user")


async def test_nobody_is_shown_a_secret_of_a_key_that_may_more_than_they(world: World) -> None:
    async with world.team(boss="owner", ada="admin") as team:
        key, _ = await made(team["boss"], owner="organization", role="owner")
        refused = await team["ada"].post(f"/api_keys/{key['id']}/rotate", json={})
        assert refusal(refused) == (403, "key_wider_than_creator")
        lesser, _ = await made(team["boss"], owner="organization", role="admin")
        assert (await team["ada"].post(f"/api_keys/{lesser['id']}/rotate", json={})).status_code == 200


async def test_a_search_pages_counts_and_sorts(world: World) -> None:
    async with world.team(ann="owner") as team:
        keys = [(await made(team["ann"], name))[0] for name in ("b", "a", "c")]
        await team["ann"].delete(f"/api_keys/{keys[2]['id']}")
        page = (await team["ann"].get("/api_keys/search?sort_by=name&sort_dir=asc&revoked=false&offset=1")).json()
        assert [row["name"] for row in page["rows"]] == ["b"]
        assert (page["offset"], page["limit"], page["filtered_count"], page["total_count"]) == (1, 200, 2, 3)
        for column in ("key_prefix", "created_at", "last_used_at", "revoked_at"):
            reply = await team["ann"].get(f"/api_keys/search?sort_by={column}")
            assert len(reply.json()["rows"]) == 3, column
        assert refusal(await team["ann"].get("/api_keys/search?limit=501")) == (400, "invalid_request")
        assert refusal(await team["ann"].get("/api_keys/search?sort_by=key_sha256")) == (400, "invalid_request")


async def test_a_body_over_a_mebibyte_is_refused_with_and_without_its_length(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    async with world.team(ann="user") as team:
        declared = await team["ann"].post("/api_keys", content=b" " * 1_100_000)
        undeclared = await team["ann"].post("/api_keys", content=endless())
    assert refusal(declared) == refusal(undeclared) == (413, "body_too_large")
