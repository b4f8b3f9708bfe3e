"""Looks at providers over HTTP: who may ask, which accounts are meant, and the answer in the provider's own words."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.ids import PLATFORM, OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import IntendServerCreate, RecordServerCreateFailed
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import (
    RecordCatalogueSyncFailed,
    RecordOffers,
    RecordReconciled,
    RecordReconciliationFailed,
    Signed,
)
from tests.examples import L4
from tests.handlers.world import instance_wanted
from tests.web.test_settings import SECRETS, of
from tests.web.test_sign_in import refusal
from tests.web.world import World, instance_of
from web.api.catalogue import provider_id, zone_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCALEWAY = "/providers/scaleway/credentials"


async def organization_of(client: Any) -> OrganizationId:
    return OrganizationId((await client.get("/auth/me")).json()["current_organization_id"])


async def record(world: World, organization_id: str, command: Any) -> None:
    account_id = provider_account_id_of(OrganizationId(organization_id), command.provider)
    await world.visible(await world.dispatch(PROVIDER_ACCOUNT, organization_id, account_id, command))


async def asked_at(world: World, organization_id: str, provider: str) -> Any:
    account_id = provider_account_id_of(OrganizationId(organization_id), provider)
    state = (await world.dispatcher.load(PROVIDER_ACCOUNT, organization_id, account_id)).state
    return state.reconciliation_requested_at


def complete(provider: str, asked: Any = None) -> RecordReconciled:
    return RecordReconciled(
        provider=provider,
        asked_at=asked,
        servers=frozenset({"fr-par-2/srv-1"}),
        volumes=frozenset(),
        strays=(),
        unrecorded=(),
        missed={},
        grace_s=60.0,
    )


async def test_without_an_account_there_is_nothing_to_look_at(world: World) -> None:
    async with world.team(ann="admin") as team:
        triggered = await team["ann"].post("/reconcile")
        assert (triggered.status_code, triggered.json()["providers"]) == (202, [])
        refused = await team["ann"].post("/reconcile", params={"provider": "scaleway"})
        assert refusal(refused) == (409, "provider_not_configured")
        assert "project_id, secret_key" in refused.json()["message"]
        assert refusal(await team["ann"].post("/reconcile", params={"provider": "mars"})) == (404, "provider_not_found")


async def test_a_look_is_an_intent_that_is_shown_until_it_is_answered(world: World) -> None:
    async with world.team(ann="admin") as team:
        ann = team["ann"]
        await ann.put(SCALEWAY, json={"values": SECRETS})
        triggered = await ann.post("/reconcile")
        assert triggered.json() == {
            "status": "triggered",
            "providers": ["scaleway"],
            "position": int(triggered.headers["event-position"]),
        }
        seen = {"event-position": triggered.headers["event-position"]}
        pending = of("scaleway", (await ann.get("/provider_accounts", headers=seen)).json())
        assert pending["reconciliation"]["requested_at"] is not None
        organization_id = await organization_of(ann)
        await record(world, organization_id, complete("scaleway", await asked_at(world, organization_id, "scaleway")))
        shown = of("scaleway", (await ann.get("/provider_accounts")).json())
    found = shown["reconciliation"]
    assert (found["requested_at"], found["servers"], found["volumes"], found["failure"]) == (None, 1, 0, "")
    assert (shown["is_configured"], shown["missing_config"]) == (True, [])


async def test_asking_twice_is_one_intent(world: World) -> None:
    async with world.team(ann="owner") as team:
        await team["ann"].put(SCALEWAY, json={"values": SECRETS})
        first = await team["ann"].post("/catalog/sync", params={"provider": "scaleway"})
        again = await team["ann"].post("/catalog/sync", params={"provider": provider_id("scaleway")})
        assert first.json()["position"] == again.json()["position"]


async def test_a_failure_is_shown_in_the_providers_own_words_until_it_works_again(world: World) -> None:
    async with world.team(ann="manager") as team:
        organization_id = await organization_of(team["ann"])
        trouble = RecordReconciliationFailed(
            provider="scaleway", asked_at=None, call="list_servers", kind="auth", message="authentication is denied"
        )
        await record(world, organization_id, trouble)
        await record(
            world, organization_id, RecordCatalogueSyncFailed(provider="scaleway", kind="transient", message="HTTP 503")
        )
        shown = of("scaleway", (await team["ann"].get("/provider_accounts")).json())
        found = shown["reconciliation"]
        assert (found["failed_call"], found["failure_kind"]) == ("list_servers", "auth")
        assert (found["failure"], shown["catalogue"]["failure"]) == ("authentication is denied", "HTTP 503")
        await record(world, organization_id, complete("scaleway"))
        await record(world, organization_id, RecordOffers(provider="scaleway", offers=(L4,)))
        shown = of("scaleway", (await team["ann"].get("/provider_accounts")).json())
    assert (shown["reconciliation"]["failure"], shown["catalogue"]["failure"]) == ("", "")


async def test_a_neighbour_sees_nothing_of_it(world: World) -> None:
    async with world.team(ann="owner") as team, world.team(zoe="owner") as neighbours:
        await record(world, await organization_of(team["ann"]), complete("scaleway"))
        shown = of("scaleway", (await neighbours["zoe"].get("/provider_accounts")).json())
    assert (shown["position"], shown["reconciliation"]["servers"]) == (0, None)


async def test_the_platforms_own_account_is_for_its_administrators(world: World) -> None:
    async with world.team(ann="owner") as team, world.signed_in() as admin:
        assert "local" not in {one["provider_code"] for one in (await team["ann"].get("/provider_accounts")).json()}
        mine = await team["ann"].post("/reconcile", params={"provider": "local"})
        assert refusal(mine) == (403, "admin_required")
        triggered = await admin.post("/reconcile")
        assert triggered.json()["providers"] == ["local"]
        await record(world, PLATFORM, complete("local", await asked_at(world, PLATFORM, "local")))
        assert of("local", (await admin.get("/provider_accounts")).json())["reconciliation"]["servers"] == 1


@pytest.mark.parametrize("role", ["manager", "user"])
async def test_only_who_runs_machines_may_ask(world: World, role: Any) -> None:
    async with world.team(mia=role) as team:
        for path in ("/reconcile", "/catalog/sync"):
            assert (await team["mia"].post(path)).status_code == 403


async def test_synced_offers_stand_before_the_built_in_ones(world: World) -> None:
    dear, new = replace(L4, price_eur_micros_per_hour=900_000, stock="out"), replace(L4, zone="pl-waw-9")
    async with world.team(ann="admin", uli="user") as team, world.team(zoe="admin") as neighbours:
        ann = team["ann"]
        before = (await ann.get("/instance_types")).json()
        assert {one["source"] for one in before} == {"built_in"}
        await record(world, await organization_of(ann), RecordOffers(provider="scaleway", offers=(dear, new)))
        [l4] = [one for one in (await ann.get("/instance_types")).json() if one["code"] == L4.instance_type]
        assert (l4["source"], l4["cost_per_hour"]) == ("provider", 0.75)
        places = {one["zone_code"]: (one["cost_per_hour"], one["stock"]) for one in l4["places"]}
        assert places == {"fr-par-2": (0.9, "out"), "pl-waw-9": (0.75, "available")}
        zones = {one["code"]: one for one in (await ann.get("/zones")).json()}
        assert (zones["pl-waw-9"]["region"], zones["pl-waw-9"]["instance_types"]) == ("pl-waw", [L4.instance_type])
        path = f"/zones/{zone_id('scaleway', 'fr-par-2')}/instance_types"
        [there] = (await team["uli"].get(path)).json()
        assert (there["code"], there["cost_per_hour"]) == (L4.instance_type, 0.9)
        assert of("scaleway", [{**p, "provider_code": p["code"]} for p in (await ann.get("/providers")).json()])[
            "synced_at"
        ]
        theirs = (await neighbours["zoe"].get("/instance_types")).json()
    assert theirs == before, "a neighbour's account tells nobody else"


async def test_a_zone_that_nobody_knows_is_not_found(world: World) -> None:
    async with world.team(uli="user") as team:
        assert refusal(await team["uli"].get("/zones/nowhere/instance_types")) == (404, "zone_not_found")


async def test_credentials_stay_while_instances_may_own_servers_there(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        organization_id = await organization_of(ann)
        await ann.put(SCALEWAY, json={"values": SECRETS})
        instance_id = instance_of(organization_id)
        wanted = replace(instance_wanted(provider="scaleway"), zone="fr-par-2")
        await world.dispatch(INSTANCE, organization_id, instance_id, wanted)
        await world.dispatch(INSTANCE, organization_id, instance_id, IntendServerCreate(server_name="worker-1"))
        refused = await ann.delete(SCALEWAY)
        assert refusal(refused) == (409, "provider_in_use")
        assert wanted.deployment_id in refused.json()["message"]
        replaced = await ann.put(SCALEWAY, json={"values": {**SECRETS, "access_key": "another"}})
        assert replaced.status_code == 200, "another key of the same project is welcome"
        elsewhere = await ann.put(SCALEWAY, json={"values": {**SECRETS, "project_id": "another"}})
        assert refusal(elsewhere) == (409, "provider_in_use"), "its server would be gone for us, and billed"
        failed = RecordServerCreateFailed(code="PROVIDER_CREATE_FAILED", message="no")
        await world.dispatch(INSTANCE, organization_id, instance_id, failed)
        moved = await ann.put(SCALEWAY, json={"values": {**SECRETS, "project_id": "another"}})
        assert moved.status_code == 200, "nothing is left behind"
        removed = await ann.delete(SCALEWAY)
        assert (removed.status_code, removed.json()["is_configured"]) == (200, False)


async def test_credentials_stay_until_what_nobody_wants_is_deleted(world: World) -> None:
    async with world.team(ann="owner") as team:
        ann = team["ann"]
        organization_id = await organization_of(ann)
        await ann.put(SCALEWAY, json={"values": SECRETS})
        stray = Signed(
            resource="server",
            provider_resource_id="fr-par-2/srv-1",
            organization_id=organization_id,
            instance_id=instance_of(organization_id),
            attempt=1,
        )
        await record(world, organization_id, replace(complete("scaleway"), strays=(stray,)))
        assert refusal(await ann.delete(SCALEWAY)) == (409, "provider_in_use")
        await record(world, organization_id, replace(complete("scaleway"), servers=frozenset()))
        assert (await ann.delete(SCALEWAY)).status_code == 200
