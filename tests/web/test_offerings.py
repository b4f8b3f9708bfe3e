"""Offerings over HTTP: published, revised, activated flag by flag, withdrawn; and what others find of them."""

from typing import Any

import pytest

from tests.web.market import a_market, ok
from tests.web.test_deployments import MODEL
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "00000000-0000-7000-8000-000000000000"


async def test_an_offering_has_a_public_name_and_its_terms(world: World) -> None:
    async with a_market(world) as market:
        price = {"input_eur_micros_per_million": 150_000, "output_eur_micros_per_million": 600_000}
        made = await market.publish("chat", description="Talks.", access_policy="pay_per_token", price=price)
        assert made["identifier"] == f"{market.slugs['provider']}/chat"
        assert (made["name"], made["model_code"], made["price"]) == ("chat", MODEL, price)
        assert made["activation"] == {"technical": True, "economic": True, "operational": True, "missing": []}
        assert {flag["flag"] for flag in made["flags"] if flag["by"] and flag["at"]} == {"technical", "economic"}
        olga = market.provider["olga"]
        assert ok(await olga.get(f"/offerings/{made['id']}")) == made
        assert ok(await olga.get("/offerings")) == [made]


async def test_it_is_revised_field_by_field_and_withdrawn(world: World) -> None:
    async with a_market(world) as market:
        olga = market.provider["olga"]
        made = await market.publish("chat", access_policy="trial", trial_days=14)
        path = f"/offerings/{made['id']}"
        revised = ok(await olga.put(path, json={"name": "Chat", "access_policy": "free"}))
        assert (revised["name"], revised["access_policy"], revised["trial_days"]) == ("Chat", "free", 0)
        assert revised["visibility"] == "public"
        assert refusal(await olga.put(path, json={"trial_days": 3})) == (400, "invalid_trial_days")
        assert (await olga.delete(path)).status_code == 204
        assert (await olga.delete(path)).status_code == 204
        assert refusal(await olga.put(path, json={"name": "x"})) == (409, "offering_withdrawn")
        await world.visible()
        assert ok(await olga.get("/offerings")) == []
        [shown] = ok(await olga.get("/offerings", params={"withdrawn": True}))
        assert shown["is_live"] is False
        again = await market.publish("chat")
        assert (again["id"], again["is_live"]) == (made["id"], True)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"code": "Not A Slug"}, 400, "invalid_code"),
        ({"code": "x" * 65}, 400, "invalid_code"),
        ({"model": "no/such"}, 404, "model_not_found"),
        ({"model": "", "model_id": "no-uuid"}, 404, "model_not_found"),
        ({"price": {"input_eur_micros_per_million": -1}}, 400, "invalid_price"),
        ({"price": {"input_eur_micros_per_million": 10**30}}, 400, "invalid_price"),
        ({"description": "x" * 2001}, 400, "description_too_long"),
        ({"access_policy": "trial"}, 400, "invalid_trial_days"),
        ({"visibility": "secret"}, 400, "invalid_request"),
        ({"price": {"input": 1}}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_offered_is_refused(world: World, body: dict[str, Any], status: int, code: str) -> None:
    async with world.team(olga="owner") as team:
        reply = await team["olga"].post("/offerings", json={"model": MODEL, "code": "chat", **body})
    assert refusal(reply) == (status, code)


async def test_owners_and_admins_publish_and_each_flag_has_its_own_roles(world: World) -> None:
    async with a_market(world) as market:
        asked = {"model": MODEL, "code": "by-admin"}
        team = market.provider
        for who in ("mia", "uli"):
            assert refusal(await team[who].post("/offerings", json=asked)) == (403, "insufficient_permissions")
        both = await team["adam"].post("/offerings", json={**asked, "activate": ["technical", "economic"]})
        assert refusal(both) == (403, "activation_not_allowed")
        made = ok(await team["adam"].post("/offerings", json=asked), 201)
        assert made["activation"]["missing"] == ["economic"]
        path = f"/offerings/{made['id']}/activation"
        economic = {"flag": "economic", "value": True}
        assert refusal(await team["uli"].put(path, json=economic)) == (403, "insufficient_permissions")
        assert refusal(await team["adam"].put(path, json=economic)) == (403, "activation_not_allowed")
        assert ok(await team["mia"].put(path, json=economic))["activation"]["operational"] is True
        technical = {"flag": "technical", "value": False}
        assert refusal(await team["mia"].put(path, json=technical)) == (403, "activation_not_allowed")
        assert ok(await team["adam"].put(path, json=technical))["activation"]["missing"] == ["technical"]


async def test_a_neighbours_offering_is_not_there_for_its_managing(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("chat")
        eve = market.stranger["olga"]
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "", {}),
            ("PUT", "", {"json": {"name": "mine"}}),
            ("DELETE", "", {}),
            ("PUT", "/activation", {"json": {"flag": "technical", "value": False}}),
        ]
        for method, path, body in calls:
            replies = [await eve.request(method, f"/offerings/{one}{path}", **body) for one in (made["id"], ABSENT)]
            assert refusal(replies[0]) == (404, "offering_not_found")
            assert replies[0].content == replies[1].content
        assert ok(await eve.get("/offerings")) == []
        assert ok(await market.provider["uli"].get(f"/offerings/{made['id']}")) == made


async def test_others_find_what_is_public_and_works(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("open")
        await market.publish("by-name", visibility="unlisted")
        await market.publish("secret", visibility="private")
        await market.publish("half", activate=["technical"])
        found = await market.found()
        assert set(found) == {"open"}
        assert (found["open"]["callable"], found["open"]["refusal_code"]) == (True, None)
        assert found["open"]["identifier"] == made["identifier"]
        slug = market.slugs["provider"]
        assert set(await market.found(name=f"{slug}/by-name")) == {"by-name"}
        for name in (f"{slug}/secret", f"{slug}/half", f"{slug}/none", "nobody/open", slug, "/", "a/b/c"):
            assert await market.found(name=name) == {}, name
        own = ok(await market.provider["olga"].get("/catalogue/offerings"))
        assert [one for one in own if one["provider_id"] == market.ids["provider"]] == []


async def test_the_catalogue_says_what_the_gateway_would(world: World) -> None:
    async with a_market(world) as market:
        await market.publish("free")
        await market.publish("plan", access_policy="subscription_required")
        await market.publish("token", access_policy="pay_per_token")
        await market.publish("ask", access_policy="request_required")
        await market.publish("try", access_policy="trial", trial_days=1)
        refusals = {code: one["refusal_code"] for code, one in (await market.found()).items()}
        assert refusals == {
            "free": None,
            "plan": "subscription_required",
            "token": "subscription_required",
            "ask": "access_request_required",
            "try": "trial_required",
        }
        await market.subscribe()
        found = await market.found()
        assert {code for code, one in found.items() if one["callable"]} == {"free", "plan", "token"}


async def test_a_person_without_an_organisation_sees_public_ones(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("open")
        await world.person("loner")
        async with world.signed_in("loner", "a password that is long") as loner:
            listed = ok(await loner.get("/catalogue/offerings"))
            assert made["id"] in [one["id"] for one in listed]
            assert refusal(await loner.get("/offerings")) == (400, "no_current_organization")
