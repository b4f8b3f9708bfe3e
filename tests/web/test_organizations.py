"""Organisations over HTTP: one is created, entered, left; strangers stay outside."""

import jwt
import pytest
from uuid_utils import uuid7

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
