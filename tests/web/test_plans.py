"""Plan before spend: what would be rented, whether it fits, what it costs; and nothing of it is on record."""

from dataclasses import replace as replace_settings
from typing import Any

import pytest
from msgspec.structs import replace

from domain.host import HOST, EnrolHost, host_id_of
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import RecordOffers
from domain.provider_credentials import PROVIDER_CREDENTIALS, RecordCredentialsSet, credentials_id_of
from tests.examples import HOST_FACTS
from tests.examples import L4 as OFFER
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

QWEN = "Qwen/Qwen2.5-7B-Instruct"
L4: dict[str, Any] = {
    "model": QWEN,
    "provider_code": "scaleway",
    "zone": "fr-par-2",
    "instance_type": "L4-1-24G",
}
G6 = {**L4, "provider_code": "aws", "zone": "eu-west-3b", "instance_type": "g6.xlarge"}
LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
NAMES = {"scaleway": ("project_id", "secret_key"), "aws": ("access_key_id", "secret_access_key")}


async def with_account(world: World, client: Any, provider: str) -> None:
    organization = (await client.get("/auth/me")).json()["current_organization_id"]
    command = RecordCredentialsSet(provider=provider, names=NAMES[provider])
    await world.dispatch(PROVIDER_CREDENTIALS, organization, credentials_id_of(organization, provider), command)
    await world.visible()


async def planned(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    reply = await client.post("/deployments?dry_run=true", json=body)
    assert reply.status_code == 200, reply.text
    plan: dict[str, Any] = reply.json()
    return plan


async def test_a_plan_says_what_where_whether_it_fits_and_what_it_costs(world: World) -> None:
    async with world.team(ann="admin") as team:
        await with_account(world, team["ann"], "scaleway")
        plan = await planned(team["ann"], {**L4, "instances": 2})
        assert (plan["status"], plan["fits"], plan["engine"], plan["refusal"]) == ("planned", True, "vllm", None)
        assert (plan["cost_per_hour"], plan["cost_per_day"], plan["cost_per_month"]) == (1.5, 36.0, 1080.0)
        assert plan["disk_gb"] == 200
        (place,) = plan["places"]
        assert (place["zone"], place["stock"], place["cost_per_hour"]) == ("fr-par-2", "unknown", 0.75)
        memory = place["memory"]
        assert (memory["total_gb"], memory["usable_gb"], memory["weights_gb"]) == (24.0, 21.6, 15.23)
        assert (memory["kv_gb_per_sequence"], memory["concurrent_sequences"]) == (1.88, 2)


async def test_a_plan_leaves_nothing_in_the_log(world: World) -> None:
    async with world.team(ann="admin") as team:
        await with_account(world, team["ann"], "scaleway")
        before = await world.log.head()
        for body in (L4, {**L4, "instance_type": "H100"}, {"model": "no/such"}, {}):
            await planned(team["ann"], body)
        assert await world.log.head() == before
        assert (await team["ann"].get("/deployments")).json() == []
        assert (await team["ann"].post("/deployments", json=L4)).status_code == 202
        assert await world.log.head() > before  # the control: the same body without dry_run is on record


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "MISSING_MODEL"),
        ({**L4, "zone": "elsewhere"}, "INVALID_ZONE"),
        ({**L4, "zone": "fr-par-1"}, "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE"),
        ({**L4, "instance_type": "RTX"}, "INVALID_INSTANCE_TYPE"),
        ({**L4, "model": "Qwen/Qwen2.5-72B-Instruct"}, "INCOMPATIBLE_MODEL_INSTANCE"),
        (
            {**L4, "alternatives": [{"zone": "nl-ams-1", "instance_type": "L4-1-24G"}]},
            "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE",
        ),
        ({**L4, "model": "meta-llama/Llama-3.1-8B-Instruct"}, "INCOMPATIBLE_MODEL_INSTANCE"),
        (L4, "MISSING_PROVIDER_CREDENTIALS"),
        (G6, "PRICE_UNKNOWN"),
    ],
)
async def test_a_plan_refuses_what_the_deployment_refuses(world: World, body: dict[str, Any], code: str) -> None:
    async with world.team(ann="admin") as team:
        plan = await planned(team["ann"], body)
        reply = await team["ann"].post("/deployments", json=body)
        assert refusal(reply) == (400, code)
        assert plan["refusal"] == {"error": code, "message": reply.json()["message"]}
        position = {"event-position": reply.headers["event-position"]}
        shown = (await team["ann"].get(f"/deployments/{reply.json()['deployment_id']}", headers=position)).json()
        assert (shown["status"], shown["error_code"]) == ("refused", code)


async def test_what_the_account_lacks_is_named_beside_everything_else(world: World) -> None:
    async with world.team(ann="admin") as team:
        plan = await planned(team["ann"], L4)
        assert plan["credentials_missing"] == ["project_id", "secret_key"]
        assert (plan["fits"], plan["cost_per_hour"]) == (True, 0.75)


async def test_a_neighbours_account_is_not_ours(world: World) -> None:
    async with world.team(ann="admin") as ours, world.team(eve="admin") as theirs:
        await with_account(world, theirs["eve"], "scaleway")
        assert (await planned(ours["ann"], L4))["credentials_missing"] == ["project_id", "secret_key"]
        assert (await planned(theirs["eve"], L4))["credentials_missing"] == []


async def test_what_does_not_fit_comes_with_the_cheapest_that_does(world: World) -> None:
    async with world.team(ann="admin") as team:
        plan = await planned(team["ann"], {**L4, "model": "meta-llama/Llama-3.1-8B-Instruct"})
        assert plan["fits"] is False
        assert plan["places"][0]["memory"]["verdict"] == "shorter_context"
        assert plan["places"][0]["memory"]["longest_context_tokens"] == 27_004
        assert plan["suggestions"][0]["instance_type"] == "L40S-1-48G"
        shorter = await planned(
            team["ann"], {**L4, "model": "meta-llama/Llama-3.1-8B-Instruct", "context_tokens": 16_384}
        )
        assert (shorter["fits"], shorter["places"][0]["memory"]["context_tokens"]) == (True, 16_384)


async def test_alternatives_are_planned_and_recorded_in_order(world: World) -> None:
    async with world.team(ann="admin") as team:
        await with_account(world, team["ann"], "scaleway")
        others = [{"zone": "fr-par-2", "instance_type": code} for code in ("L40S-1-48G", "L4-2-24G")]
        body = {**L4, "alternatives": others}
        plan = await planned(team["ann"], body)
        assert [place["instance_type"] for place in plan["places"]] == ["L4-1-24G", "L40S-1-48G", "L4-2-24G"]
        assert (plan["cost_per_hour"], plan["cost_per_hour_at_most"]) == (0.75, 1.5)
        assert (await team["ann"].post("/deployments", json=body)).status_code == 202


async def test_who_knows_an_unknown_price_says_it_and_is_believed(world: World) -> None:
    async with world.team(ann="admin") as team:
        await with_account(world, team["ann"], "aws")
        assert (await planned(team["ann"], G6))["cost_per_hour"] is None
        priced = {**G6, "price_eur_per_hour": 1.25}
        plan = await planned(team["ann"], priced)
        assert (plan["cost_per_hour"], plan["refusal"]) == (1.25, None)
        made = (await team["ann"].post("/deployments", json=priced)).json()["deployment_id"]
        await world.visible()
        assert (await team["ann"].get(f"/deployments/{made}")).json()["cost_per_hour"] == 1.25


async def test_what_a_provider_said_counts_more_than_the_built_in_list(world: World) -> None:
    """Its stock and its price; and what it does not rent any more is not offered."""
    async with world.team(ann="admin") as team:
        organization = (await team["ann"].get("/auth/me")).json()["current_organization_id"]
        offer = replace(OFFER, zone="nl-ams-1", price_eur_micros_per_hour=800_000, stock="scarce")
        account = provider_account_id_of(organization, "scaleway")
        await world.dispatch(
            PROVIDER_ACCOUNT, organization, account, RecordOffers(provider="scaleway", offers=(offer,))
        )
        await world.visible()
        plan = await planned(team["ann"], {**L4, "zone": "nl-ams-1"})
        assert (plan["places"][0]["stock"], plan["cost_per_hour"]) == ("scarce", 0.8)
        withdrawn = await planned(team["ann"], L4)
        assert withdrawn["refusal"]["error"] == "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE"


async def test_hosts_of_ones_own_are_planned_at_what_they_cost(world: World) -> None:
    body = {**L4, "provider_code": "bare_metal", "zone": HOST_FACTS.zone, "instance_type": HOST_FACTS.instance_type}
    async with world.team(ann="admin") as ours, world.team(eve="admin") as theirs:
        organization = (await ours["ann"].get("/auth/me")).json()["current_organization_id"]
        host = host_id_of(organization, "192.0.2.7", 22)
        enrol = EnrolHost(address="192.0.2.7", ssh_port=22, facts=HOST_FACTS, allowed=True)
        await world.dispatch(HOST, organization, host, enrol)
        await world.visible()
        plan = await planned(ours["ann"], body)
        assert (plan["fits"], plan["cost_per_hour"], plan["disk_gb"]) == (True, 0.9, 0)
        assert plan["credentials_missing"] == ["ssh_private_key"]
        neighbour = await planned(theirs["eve"], body)
        assert neighbour["refusal"]["error"] == "INVALID_ZONE"


async def test_a_known_price_is_nobodys_to_say(world: World) -> None:
    async with world.team(ann="admin") as team:
        reply = await team["ann"].post("/deployments?dry_run=true", json={**L4, "price_eur_per_hour": 0.01})
        assert refusal(reply) == (400, "price_already_known")


async def test_the_simulated_engine_fits_everywhere_and_this_machine_is_free(world: World) -> None:
    async with world.team(ann="admin") as team:
        plan = await planned(team["ann"], {"model": QWEN})
        assert (plan["provider"], plan["engine"], plan["cost_per_hour"]) == ("local", "simulated", 0.0)
        assert (plan["fits"], plan["places"][0]["memory"], plan["disk_gb"]) == (None, None, 0)


async def test_only_who_may_deploy_may_plan(world: World) -> None:
    async with world.team(max="manager") as team:
        assert refusal(await team["max"].post("/deployments?dry_run=true", json=L4))[0] == 403


async def test_an_upstream_has_nothing_to_plan(world: World) -> None:
    async with world.team(ann="admin") as team:
        body = {"model": "m", "upstream": {"url": "https://api.example.com/v1"}}
        reply = await team["ann"].post("/deployments?dry_run=true", json=body)
        assert refusal(reply) == (400, "upstream_takes_no_machines")


async def test_a_models_config_makes_its_plan_exact(world: World) -> None:
    async with world.team(olga="owner") as team:
        new = {"model_id": "own/8B", "required_vram_gb": 16, "context_length": 8192}
        made = (await team["olga"].post("/models", json=new)).json()["id"]
        before = (await planned(team["olga"], {**L4, "model": "own/8B"}))["places"][0]["memory"]
        assert (before["is_estimate"], before["weights_gb"], before["concurrent_sequences"]) == (True, 16.0, None)
        assert (await team["olga"].put(f"/models/{made}", json={"config": LLAMA_CONFIG})).status_code == 200
        after = (await planned(team["olga"], {**L4, "model": "own/8B"}))["places"][0]["memory"]
        assert (after["is_estimate"], after["weights_gb"], after["concurrent_sequences"]) == (False, 16.06, 3)
        assert (await team["olga"].put(f"/models/{made}", json={"name": "Mine"})).status_code == 200
        kept = (await planned(team["olga"], {**L4, "model": "own/8B"}))["places"][0]["memory"]
        assert kept == after  # a change of the name leaves the shape alone


async def test_a_config_that_is_not_understood_is_refused(world: World) -> None:
    async with world.team(olga="owner") as team:
        body = {"model_id": "own/x", "required_vram_gb": 1, "context_length": 1, "config": {"model_type": "mamba"}}
        assert refusal(await team["olga"].post("/models", json=body)) == (400, "model_config_not_understood")


async def test_the_operator_can_force_the_size_of_every_disk(world: World) -> None:
    """For a platform whose providers bill by the GB, or whose images do not fit otherwise."""
    settings = replace_settings(world.services.settings, data_volume_gb=220)
    async with world.team(ann="admin") as team:
        usual = await planned(team["ann"], L4)
        world.app.state.services = replace_settings(world.services, settings=settings)
        try:
            forced = await planned(team["ann"], L4)
            model = next(one for one in (await team["ann"].get("/models")).json() if one["code"] == QWEN)
            path = f"/models/{model['id']}/recommended-data-volume"
            told = (await team["ann"].get(path)).json()["recommended_data_volume_gb"]
        finally:
            world.app.state.services = world.services
    assert (usual["disk_gb"], forced["disk_gb"], told) == (200, 220, 220)
