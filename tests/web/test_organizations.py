"""Organisations over HTTP: one is created, entered, left; strangers stay outside."""

from typing import Any

import httpx
import jwt
import pytest
from uuid_utils import uuid7

from domain.ids import OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import StopInstance
from domain.roles import Role
from tests.projections.steps import requested
from tests.web.test_deployments import MODEL
from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World
from web.tokens import COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_new_organisation_is_owned_and_entered(world: World) -> None:
    await world.person("founder")
    async with world.signed_in("founder", PERSON_PASSWORD) as client:
        assert refusal(await client.get("/instances")) == (400, "no_current_organization")
        made = await client.post("/organizations", json={"name": "Éclair & Co"})
        assert made.status_code == 201
        assert (made.json()["slug"], made.json()["role"], made.json()["member_count"]) == ("clair-co", "owner", 1)
        assert (await client.get("/instances")).json() == []
        assert [one["id"] for one in (await client.get("/organizations")).json()] == [made.json()["id"]]


async def test_a_browser_gets_a_cookie_that_names_its_new_workspace(world: World) -> None:
    await world.person("browser")
    token = await world.token("browser", PERSON_PASSWORD)
    headers = {"cookie": f"{COOKIE}={token}", "x-requested-with": "console"}
    async with world.client() as client:
        made = await client.post("/organizations", json={"name": "Browser"}, headers=headers)
        claims = jwt.decode(made.cookies[COOKIE], options={"verify_signature": False})
        assert claims["current_organization_id"] == made.json()["id"]
        assert claims["current_organization_role"] == "owner"


async def test_a_taken_slug_is_refused(world: World) -> None:
    await world.person("first")
    async with world.signed_in("first", PERSON_PASSWORD) as client:
        assert (await client.post("/organizations", json={"name": "Twice"})).status_code == 201
        again = await client.post("/organizations", json={"name": "twice!"})
        assert refusal(again) == (409, "organization_slug_already_exists")
        assert refusal(await client.post("/organizations", json={"name": " "})) == (400, "name_required")


async def test_one_can_go_back_to_the_personal_workspace(world: World) -> None:
    async with world.team(ann="user") as team:
        assert (await team["ann"].get("/instances")).status_code == 200
        assert (await team["ann"].put("/organizations/current", json={"organization_id": None})).json() is None
        assert refusal(await team["ann"].get("/instances")) == (400, "no_current_organization")


async def test_a_stranger_cannot_enter(world: World) -> None:
    async with world.team(ann="user") as ours, world.team(eve="owner") as theirs:
        organization = (await ours["ann"].get("/organizations")).json()[0]["id"]
        foreign = await theirs["eve"].put("/organizations/current", json={"organization_id": organization})
        absent = await theirs["eve"].put("/organizations/current", json={"organization_id": str(uuid7())})
        assert refusal(foreign) == (403, "not_a_member")
        assert foreign.json() == absent.json()


async def test_the_next_login_returns_to_the_last_workspace(world: World) -> None:
    await world.person("returner")
    async with world.signed_in("returner", PERSON_PASSWORD) as client:
        await client.post("/organizations", json={"name": "Return 1"})
        second = (await client.post("/organizations", json={"name": "Return 2"})).json()
    async with world.signed_in("returner", PERSON_PASSWORD) as client:
        assert (await client.get("/auth/me")).json()["current_organization_id"] == second["id"]


async def made(client: httpx.AsyncClient, *names: str) -> list[dict[str, Any]]:
    """The last one is where the session works."""
    return [(await client.post("/organizations", json={"name": name})).json() for name in names]


async def test_an_owner_gives_it_another_name_slug_and_colour(world: World) -> None:
    await world.person("renamer")
    async with world.signed_in("renamer", PERSON_PASSWORD) as client:
        [own] = await made(client, "Renamer")
        assert (own["plan"], own["sidebar_color"]) == ("free", "")
        body = {"name": "Renamed", "slug": "Renamed Again", "sidebar_color": "#A1B2C3"}
        changed = (await client.patch("/organizations/current", json=body)).json()
        assert (changed["name"], changed["slug"], changed["sidebar_color"]) == ("Renamed", "renamed-again", "#a1b2c3")
        assert changed == (await client.get("/organizations")).json()[0]
        assert (await client.patch("/organizations/current", json={})).json() == changed


async def test_a_former_slug_stays_its_own_and_is_nobody_elses(world: World) -> None:
    await world.person("mover")
    await world.person("squatter")
    async with (
        world.signed_in("mover", PERSON_PASSWORD) as mover,
        world.signed_in("squatter", PERSON_PASSWORD) as squatter,
    ):
        await made(mover, "Old Home")
        assert (await mover.patch("/organizations/current", json={"slug": "new-home"})).status_code == 200
        for slug in ("old-home", "new-home"):
            taken = await squatter.post("/organizations", json={"name": "Squatter", "slug": slug})
            assert refusal(taken) == (409, "organization_slug_already_exists")
        await made(squatter, "Squatter")
        renamed = await squatter.patch("/organizations/current", json={"slug": "old-home"})
        assert refusal(renamed) == (409, "organization_slug_already_exists")
        back = await mover.patch("/organizations/current", json={"slug": "old-home"})
        assert back.json()["slug"] == "old-home"


async def test_a_change_happens_as_a_whole_or_not_at_all(world: World) -> None:
    await world.person("halfway")
    async with world.signed_in("halfway", PERSON_PASSWORD) as client:
        [own] = await made(client, "Halfway")
        for body, code in (
            ({"name": "Other", "sidebar_color": "green"}, "invalid_sidebar_color"),
            ({"name": " "}, "name_required"),
            ({"name": "x" * 101, "sidebar_color": "#000000"}, "name_too_long"),
            ({"slug": "!!", "sidebar_color": "#000000"}, "invalid_slug"),
        ):
            assert refusal(await client.patch("/organizations/current", json=body)) == (400, code)
        assert (await client.get("/organizations")).json() == [own]


@pytest.mark.parametrize("role", ["admin", "manager", "user"])
async def test_only_owners_change_or_delete_it(world: World, role: Role) -> None:
    async with world.team(ann=role) as team:
        for reply in (
            await team["ann"].patch("/organizations/current", json={"name": "Mine"}),
            await team["ann"].delete("/organizations/current"),
        ):
            assert refusal(reply) == (403, "insufficient_permissions")


async def test_a_deleted_organisation_is_closed_to_all_at_once(world: World) -> None:
    await world.person("closer")
    guest = await world.person("guest")
    async with world.signed_in("closer", PERSON_PASSWORD) as closer, world.signed_in("guest", PERSON_PASSWORD) as other:
        first, second = await made(closer, "Stays", "Goes")
        await world.join(OrganizationId(second["id"]), guest, "user")
        await world.visible()
        assert (await other.put("/organizations/current", json={"organization_id": second["id"]})).status_code == 200
        assert (await closer.delete("/organizations/current")).status_code == 200
        assert [one["id"] for one in (await closer.get("/organizations")).json()] == [first["id"]]
        assert (await closer.get("/auth/me")).json()["current_organization_id"] is None
        assert refusal(await other.get("/instances")) == (400, "no_current_organization")
        entering = await closer.put("/organizations/current", json={"organization_id": second["id"]})
        assert refusal(entering) == (403, "not_a_member")
        again = await closer.post("/organizations", json={"name": "Thief", "slug": "goes"})
        assert refusal(again) == (409, "organization_slug_already_exists")


async def test_the_last_organisation_stays(world: World) -> None:
    await world.person("keeper")
    async with world.signed_in("keeper", PERSON_PASSWORD) as client:
        await made(client, "Keeper")
        refused = await client.delete("/organizations/current")
        assert refusal(refused) == (409, "last_organization_cannot_be_deleted")


async def test_an_organisation_with_something_running_stays(world: World) -> None:
    await world.person("runner")
    async with world.signed_in("runner", PERSON_PASSWORD) as client:
        _, running = await made(client, "First", "Running")
        deployed = (await client.post("/deployments", json={"model": MODEL})).json()
        refused = await client.delete("/organizations/current")
        assert refusal(refused) == (409, "organization_has_live_instances")
        assert (await client.delete(f"/deployments/{deployed['deployment_id']}")).status_code == 202
        for command in (requested(deployment_id=deployed["deployment_id"]), StopInstance(reason="deployment_stopped")):
            await world.dispatch(INSTANCE, running["id"], deployed["instance_id"], command)
            await world.visible()
            gone = isinstance(command, StopInstance)
            reply = await client.delete("/organizations/current")
            assert reply.status_code == (200 if gone else 409), "an instance lives on after its deployment"


async def test_limits_are_for_platform_admins_to_change_and_for_members_to_see(world: World) -> None:
    await world.person("limited")
    async with world.signed_in("limited", PERSON_PASSWORD) as client, world.signed_in() as admin:
        [own] = await made(client, "Limited")
        assert set(own["limits"].values()) == {None}
        path = f"/organizations/{own['id']}/limits"
        assert refusal(await client.patch(path, json={"concurrency": 5})) == (403, "admin_required")
        assert refusal(await client.get(path)) == (403, "admin_required")
        changed = await admin.patch(path, json={"concurrency": 5, "requests_per_minute": 60})
        assert (changed.status_code, changed.json()["limits"]["concurrency"]) == (200, 5)
        lifted = (await admin.patch(path, json={"concurrency": None})).json()
        assert (lifted["limits"]["concurrency"], lifted["limits"]["requests_per_minute"]) == (None, 60)
        assert (await admin.get(path)).json() == lifted
        assert (await client.get("/organizations")).json()[0]["limits"] == lifted["limits"]
        assert refusal(await admin.patch(path, json={"tokens_per_minute": 0})) == (400, "invalid_limit")
        for wrong in (str(uuid7()), "current"):
            absent = f"/organizations/{wrong}/limits"
            assert refusal(await admin.patch(absent, json={"concurrency": 5})) == (404, "organization_not_found")
            assert refusal(await admin.get(absent)) == (404, "organization_not_found")


async def test_a_plan_is_for_platform_admins_to_change(world: World) -> None:
    await world.person("payer")
    async with world.signed_in("payer", PERSON_PASSWORD) as client, world.signed_in() as admin:
        [own] = await made(client, "Payer")
        path = f"/organizations/{own['id']}/plan"
        assert refusal(await client.put(path, json={"plan": "subscriber"})) == (403, "admin_required")
        changed = await admin.put(path, json={"plan": "subscriber"})
        assert (changed.status_code, changed.json()["plan"], changed.json()["id"]) == (200, "subscriber", own["id"])
        assert (await client.get("/organizations")).json()[0]["plan"] == "subscriber"
        for wrong in (str(uuid7()), "current"):
            absent = await admin.put(f"/organizations/{wrong}/plan", json={"plan": "free"})
            assert refusal(absent) == (404, "organization_not_found")
