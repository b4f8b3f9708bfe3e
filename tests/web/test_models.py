"""The catalogue over HTTP: the platform's models for everyone, an organisation's own for itself alone."""

from typing import Any

import httpx
import pytest

from domain.catalogue import model_id_of
from domain.deployment import DEPLOYMENT, StopDeployment
from projections.projection import Scope
from tests.web.market import ok
from tests.web.test_deployments import MODEL
from tests.web.test_hosts import enrolled
from tests.web.test_plans import LLAMA_CONFIG
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web.api.catalogue import instance_type_id

pytestmark = pytest.mark.asyncio(loop_scope="module")


def a_model(code: str, **more: Any) -> dict[str, Any]:
    return {"model_id": code, "name": code, "required_vram_gb": 1, "context_length": 1024, **more}


async def test_an_own_model_is_listed_corrected_and_delisted(world: World) -> None:
    async with world.team(ann="admin") as team:
        ann = team["ann"]
        made = ok(await ann.post("/models", json=a_model("team/own-7B")), 201)
        assert (made["code"], made["scope"], made["is_active"]) == ("team/own-7B", "organization", True)
        changed = ok(await ann.put(f"/models/{made['id']}", json={"context_length": 2048}))
        assert (changed["context_length"], changed["name"]) == (2048, "team/own-7B")
        assert ok(await ann.get(f"/models/{made['id']}")) == changed
        assert (await ann.delete(f"/models/{made['id']}")).status_code == 204
        await world.visible()
        assert made["id"] not in [one["id"] for one in ok(await ann.get("/models"))]
        assert made["id"] in [one["id"] for one in ok(await ann.get("/models", params={"active": False}))]


async def test_a_code_is_listed_once_and_never_changes(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        made = ok(await ann.post("/models", json=a_model("team/once")), 201)
        assert ok(await ann.post("/models", json=a_model("team/once")), 201) == made
        other = a_model("team/once", context_length=1)
        assert refusal(await ann.post("/models", json=other)) == (409, "model_already_exists")
        fixed = await ann.put(f"/models/{made['id']}", json={"model_id": "team/other"})
        assert refusal(fixed) == (409, "model_code_is_fixed")


async def test_an_inactive_model_cannot_be_deployed(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        made = ok(await ann.post("/models", json=a_model("team/idle", is_active=False)), 201)
        assert made["is_active"] is False
        refused = await ann.post("/deployments", json={"model": "team/idle"})
        assert refusal(refused) == (400, "INVALID_MODEL")
        assert ok(await ann.put(f"/models/{made['id']}", json={"is_active": True}))["is_active"] is True
        assert (await ann.post("/deployments", json={"model": "team/idle"})).status_code == 202


async def test_only_owners_and_admins_manage_models(world: World) -> None:
    async with world.team(mia="manager", uli="user") as team:
        for who in team.values():
            assert refusal(await who.post("/models", json=a_model("x/y"))) == (403, "insufficient_permissions")


async def test_the_platforms_models_are_its_administrators(world: World) -> None:
    async with world.signed_in() as admin, world.team(ann="owner") as team:
        ann = team["ann"]
        assert refusal(await ann.post("/models", json=a_model("p/q", platform=True))) == (403, "admin_required")
        assert refusal(await ann.put(f"/models/{model_id_of(MODEL)}", json={})) == (403, "admin_required")
        assert refusal(await ann.delete(f"/models/{model_id_of(MODEL)}")) == (403, "admin_required")
        made = ok(await admin.post("/models", json=a_model("p/q", platform=True)), 201)
        assert (made["id"], made["scope"]) == (model_id_of("p/q"), "platform")
        assert made["id"] in [one["id"] for one in ok(await ann.get("/models"))]


async def test_another_organisations_own_model_is_not_there(world: World) -> None:
    async with world.team(ann="owner") as team, world.team(eve="owner") as others:
        ann, eve = team["ann"], others["eve"]
        made = ok(await ann.post("/models", json=a_model("team/secret")), 201)
        absent = "00000000-0000-7000-8000-000000000000"
        for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/recommended-data-volume")):
            body: dict[str, str] | None = {} if method == "PUT" else None
            replies = [await eve.request(method, f"/models/{one}{path}", json=body) for one in (made["id"], absent)]
            assert refusal(replies[0]) == refusal(replies[1]) == (404, "model_not_found")
            assert replies[0].content == replies[1].content
        assert "team/secret" not in (await eve.get("/models", params={"active": False})).text
        assert refusal(await eve.post("/deployments", json={"model": "team/secret"})) == (400, "INVALID_MODEL")
        assert refusal(await eve.post("/deployments", json={"model_id": made["id"]})) == (400, "INVALID_MODEL")
        offered = await eve.post("/offerings", json={"model_id": made["id"], "code": "stolen"})
        assert refusal(offered) == (404, "model_not_found")


async def test_the_wall_alone_keeps_own_models_to_their_organisation(world: World) -> None:
    async with world.team(ann="owner") as team, world.team(eve="owner") as others:
        made = ok(await team["ann"].post("/models", json=a_model("team/walled")), 201)
        for client, sees in ((team["ann"], True), (others["eve"], False)):
            organization = ok(await client.get("/organizations"))[0]["id"]
            async with world.services.read("models", scope=Scope(organization=organization)) as rows:
                found = await (await rows.execute("SELECT id FROM models")).fetchall()
            assert ((made["id"],) in found) is sees
            assert (model_id_of(MODEL),) in found


async def test_an_organisation_deploys_its_own_model_before_the_platforms(world: World) -> None:
    async with world.team(ann="owner") as team, world.team(bob="owner") as others:
        own = a_model("Qwen/Qwen2.5-72B-Instruct", name="smaller")  # the platform's needs 160 GB
        ok(await team["ann"].post("/models", json=own), 201)
        asked = {"model": "Qwen/Qwen2.5-72B-Instruct", "engine": "vllm"}
        assert (await team["ann"].post("/deployments", json=asked)).status_code == 202
        assert refusal(await others["bob"].post("/deployments", json=asked)) == (400, "INCOMPATIBLE_MODEL_INSTANCE")


async def test_a_model_in_use_stays(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        made = ok(await ann.post("/models", json=a_model("team/used")), 201)
        deployed = ok(await ann.post("/deployments", json={"model": "team/used"}), 202)
        await world.visible()
        assert refusal(await ann.delete(f"/models/{made['id']}")) == (409, "model_in_use")
        organization = ok(await ann.get("/organizations"))[0]["id"]
        await world.visible(await world.dispatch(DEPLOYMENT, organization, deployed["deployment_id"], StopDeployment()))
        offered = ok(await ann.post("/offerings", json={"model": "team/used", "code": "used"}), 201)
        assert refusal(await ann.delete(f"/models/{made['id']}")) == (409, "model_in_use")
        assert (await ann.delete(f"/offerings/{offered['id']}")).status_code == 204
        await world.visible()
        assert (await ann.delete(f"/models/{made['id']}")).status_code == 204


async def test_a_platform_model_in_use_by_anybody_stays(world: World) -> None:
    async with world.signed_in() as admin, world.team(ann="owner") as team:
        made = ok(await admin.post("/models", json=a_model("p/shared", platform=True)), 201)
        ok(await team["ann"].post("/offerings", json={"model": "p/shared", "code": "shared"}), 201)
        await world.visible()
        assert refusal(await admin.delete(f"/models/{made['id']}")) == (409, "model_in_use")


async def test_the_disk_is_recommended_by_model_setting_or_size(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        made = ok(await ann.post("/models", json=a_model("team/own-7B")), 201)
        path = f"/models/{made['id']}/recommended-data-volume"
        assert ok(await ann.get(path)) == {
            "model_id": made["id"],
            "model_name": "team/own-7B",
            "recommended_data_volume_gb": 100,
            "default_gb": 100,
            "stored_data_volume_gb": None,
        }
        ok(await ann.put("/providers/local/params", json={"worker_data_volume_gb_default": 150}))
        await world.visible()
        by_setting = ok(await ann.get(path, params={"provider_id": "local"}))
        assert (by_setting["recommended_data_volume_gb"], by_setting["default_gb"]) == (150, 150)
        ok(await ann.put(f"/models/{made['id']}", json={"data_volume_gb": 300}))
        said = ok(await ann.get(path, params={"provider_id": "local"}))
        assert (said["recommended_data_volume_gb"], said["stored_data_volume_gb"]) == (300, 300)
        assert refusal(await ann.get(path, params={"provider_id": "nowhere"})) == (404, "provider_not_found")


async def test_only_models_that_a_plan_would_let_start_are_listed_for_a_type(world: World) -> None:
    """Llama 3.1 8B fits into the memory of an L4, but not with all of the context that is listed for it."""
    async with world.team(uli="user") as team:
        small = await _codes(team["uli"], instance_type_id("scaleway", "L4-1-24G"))
        large = await _codes(team["uli"], instance_type_id("scaleway", "H100-1-80G"))
        llama, qwen = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
        assert (qwen in small, llama in small) == (True, False)
        assert {qwen, llama} <= large
        assert "Qwen/Qwen2.5-72B-Instruct" not in large
        assert refusal(await team["uli"].get("/instance_types/unknown/models")) == (404, "instance_type_not_found")


async def test_a_host_of_ones_own_has_its_models_too_and_the_neighbours_has_not(world: World) -> None:
    async with world.team(ann="owner") as team, world.team(zoe="owner") as neighbours:
        await enrolled(team["ann"], address="192.0.2.77")
        [offered] = [
            one for one in ok(await team["ann"].get("/instance_types")) if one["provider_code"] == "bare_metal"
        ]
        assert "Qwen/Qwen2.5-7B-Instruct" in await _codes(team["ann"], offered["id"])
        assert refusal(await neighbours["zoe"].get(f"/instance_types/{offered['id']}/models")) == (
            404,
            "instance_type_not_found",
        )


async def _codes(client: httpx.AsyncClient, type_id: str) -> set[str]:
    return {one["code"] for one in ok(await client.get(f"/instance_types/{type_id}/models"))}


async def test_a_model_shows_what_its_config_said(world: World) -> None:
    async with world.team(ann="owner") as team:
        made = ok(await team["ann"].post("/models", json=a_model("team/shaped", config=LLAMA_CONFIG)), 201)
        assert made["shape"]["kv_heads"] == 8
        assert made["shape"]["kv_bytes_per_token"] == 2 * 32 * 8 * 128 * 2
        await world.visible()
        listed = {one["code"]: one["shape"] for one in ok(await team["ann"].get("/models"))}
        assert listed["team/shaped"] == made["shape"]
        assert listed["mock-echo-model"] is None
        assert listed["Qwen/Qwen2.5-7B-Instruct"]["layers"] == 28, "as the seed knows it"


async def test_models_come_in_the_order_that_was_asked_for(world: World) -> None:
    async with world.team(uli="user") as team:
        query = {"order_by": "required_vram_gb", "order_dir": "desc"}
        sizes = [one["required_vram_gb"] for one in ok(await team["uli"].get("/models", params=query))]
        assert sizes == sorted(sizes, reverse=True)
        assert refusal(await team["uli"].get("/models", params={"order_by": "id; --"})) == (400, "invalid_request")
