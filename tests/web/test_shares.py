"""Sharing over HTTP: a provider and a consumer agree, and a third organisation sees nothing of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projections.projection import Scope
from tests.web.market import Market, a_market, ok
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "00000000-0000-7000-8000-000000000000"
FREE = {"input_eur_micros_per_million": 0, "output_eur_micros_per_million": 0}
CHEAP = {"input_eur_micros_per_million": 1, "output_eur_micros_per_million": 2}


async def of_consumer(market: Market) -> list[Any]:
    await market.world.visible()
    shares: list[Any] = ok(await market.consumer["mia"].get("/shares", params={"side": "consumer"}))
    return shares


async def test_a_request_is_asked_answered_and_used(world: World) -> None:
    async with a_market(world) as market:
        await market.subscribe()
        made = await market.publish("chat", access_policy="request_required")
        path = f"/offerings/{made['id']}/access"
        asked = ok(await market.consumer["mia"].post(path), 202)
        assert (asked["side"], asked["status"], asked["gives_access"]) == ("consumer", "requested", False)
        again = ok(await market.consumer["olga"].post(path), 202)
        assert (again["id"], again["updated_at"]) == (asked["id"], asked["updated_at"])
        assert (await market.found())["chat"]["refusal_code"] == "access_request_pending"

        olga = market.provider["olga"]
        [open_request] = ok(await olga.get("/shares"))
        assert open_request["consumer"]["slug"] == market.slugs["consumer"]
        granted = ok(await olga.put(f"/shares/{asked['id']}", json={"price": CHEAP}))
        assert (granted["status"], granted["gives_access"], granted["price"]) == ("active", True, CHEAP)
        found = (await market.found())["chat"]
        assert (found["callable"], found["price"], found["share_id"]) == (True, CHEAP, asked["id"])
        assert (await market.found("stranger"))["chat"]["callable"] is False


async def test_a_refused_organisation_may_ask_again(world: World) -> None:
    async with a_market(world) as market:
        await market.subscribe()
        made = await market.publish("chat", access_policy="request_required")
        asked = ok(await market.consumer["olga"].post(f"/offerings/{made['id']}/access"), 202)
        refused = ok(await market.provider["adam"].post(f"/shares/{asked['id']}/refuse"))
        assert refused["status"] == "refused"
        assert (await market.found())["chat"]["refusal_code"] == "access_request_required"
        again = ok(await market.consumer["olga"].post(f"/offerings/{made['id']}/access"), 202)
        assert (again["id"], again["status"]) == (asked["id"], "requested")


async def test_asking_needs_a_subscription_and_an_offering_of_somebody_else(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("chat", access_policy="request_required")
        path = f"/offerings/{made['id']}/access"
        assert refusal(await market.consumer["olga"].post(path)) == (403, "subscription_required")
        assert refusal(await market.provider["olga"].post(path)) == (400, "consumer_must_differ")
        assert refusal(await market.consumer["uli"].post(path)) == (403, "insufficient_permissions")


async def test_what_one_may_not_know_of_cannot_be_asked_for(world: World) -> None:
    async with a_market(world) as market:
        await market.subscribe()
        hidden = await market.publish("secret", visibility="private")
        half = await market.publish("half", activate=["technical"])
        olga = market.consumer["olga"]
        for step in ("access", "trial"):
            replies = [await olga.post(f"/offerings/{one}/{step}") for one in (hidden["id"], half["id"], ABSENT)]
            assert {refusal(reply) for reply in replies} == {(404, "offering_not_found")}
            assert len({reply.content for reply in replies}) == 1


async def test_a_private_offering_is_opened_by_a_share_alone(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("secret", visibility="private")
        assert await market.found() == {}
        share = await market.share(made)
        assert set(await market.found()) == {"secret"}
        assert await market.found("stranger") == {}
        olga, path = market.provider["olga"], f"/shares/{share['id']}"
        steps = (("pause", "paused", False), ("resume", "active", True), ("revoke", "revoked", False))
        for step, status, gives_access in steps:
            shown = ok(await olga.post(f"{path}/{step}"))
            assert (shown["status"], shown["gives_access"]) == (status, gives_access)
            assert (await market.found())["secret"]["callable"] is gives_access
        assert refusal(await olga.post(f"{path}/resume")) == (409, "share_revoked")
        assert ok(await olga.post(f"{path}/revoke"))["status"] == "revoked"
        assert (await market.share(made))["status"] == "active"


async def test_a_share_needs_both_flags(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("secret", visibility="private")
        asked = {"offering": "secret", "consumer": market.ids["consumer"]}
        share = ok(await market.provider["adam"].post("/shares", json=asked), 201)
        assert (share["offering_id"], share["activation"]["missing"]) == (made["id"], ["economic"])
        assert (await market.found())["secret"]["callable"] is False
        path = f"/shares/{share['id']}/activation"
        economic = {"flag": "economic", "value": True}
        assert refusal(await market.provider["adam"].put(path, json=economic)) == (403, "activation_not_allowed")
        assert ok(await market.provider["mia"].put(path, json=economic))["gives_access"] is True
        assert (await market.found())["secret"]["callable"] is True
        assert ok(await market.provider["mia"].put(path, json={**economic, "value": False}))["gives_access"] is False


async def test_a_share_has_its_time(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("secret", visibility="private")
        now = datetime.now(UTC)
        terms = {"starts_at": (now + timedelta(hours=1)).isoformat(), "ends_at": (now + timedelta(hours=2)).isoformat()}
        share = await market.share(made, **terms)
        assert (await market.found())["secret"]["callable"] is False
        earlier = {"starts_at": (now - timedelta(hours=1)).isoformat()}
        assert ok(await market.provider["olga"].put(f"/shares/{share['id']}", json=earlier))["gives_access"] is True
        assert (await market.found())["secret"]["callable"] is True
        over = {"starts_at": "2020-01-01T00:00:00Z", "ends_at": "2020-01-02T00:00:00Z"}
        assert ok(await market.provider["olga"].put(f"/shares/{share['id']}", json=over))["gives_access"] is False
        endless = ok(await market.provider["olga"].put(f"/shares/{share['id']}", json={"ends_at": None}))
        assert (endless["ends_at"], endless["gives_access"]) == (None, True)


async def test_a_trial_is_begun_by_the_consumer_once(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("try", access_policy="trial", trial_days=3, price=CHEAP)
        path = f"/offerings/{made['id']}/trial"
        begun = ok(await market.consumer["mia"].post(path), 201)
        assert (begun["status"], begun["gives_access"], begun["is_trial_used"]) == ("active", True, True)
        lasts = datetime.fromisoformat(begun["ends_at"]) - datetime.fromisoformat(begun["starts_at"])
        assert lasts == timedelta(days=3)
        assert ok(await market.consumer["mia"].post(path), 201)["ends_at"] == begun["ends_at"]
        found = (await market.found())["try"]
        assert (found["callable"], found["price"]) == (True, FREE)
        assert (await market.found("stranger"))["try"]["refusal_code"] == "trial_required"
        ok(await market.provider["olga"].post(f"/shares/{begun['id']}/revoke"))
        assert refusal(await market.consumer["mia"].post(path)) == (409, "trial_already_used")
        free = await market.publish("free")
        assert refusal(await market.consumer["mia"].post(f"/offerings/{free['id']}/trial")) == (
            400,
            "trial_not_offered",
        )


async def test_each_side_sees_its_own_view_and_nobody_of_the_other(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("chat")
        given = await market.share(made)
        [taken] = await of_consumer(market)
        assert taken["id"] == given["id"]
        assert (taken["side"], taken["identifier"]) == ("consumer", made["identifier"])
        assert taken["provider"] == given["provider"] != given["consumer"]
        assert taken["flags"] is None
        assert [flag["by"][:5] for flag in given["flags"]] == ["user:", "user:"]
        assert ok(await market.consumer["mia"].get("/shares")) == []
        for team, side in ((market.provider, "provider"), (market.consumer, "consumer")):
            assert ok(await team["mia"].get(f"/shares/{given['id']}"))["side"] == side
            assert refusal(await team["uli"].get("/shares")) == (403, "insufficient_permissions")


async def test_only_the_provider_handles_a_share_and_strangers_see_none(world: World) -> None:
    async with a_market(world) as market:
        share = await market.share(await market.publish("chat"))
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("PUT", "", {"json": {}}),
            ("POST", "/pause", {}),
            ("POST", "/revoke", {}),
            ("POST", "/refuse", {}),
            ("PUT", "/activation", {"json": {"flag": "technical", "value": False}}),
        ]
        for who in (market.consumer["olga"], market.stranger["olga"]):
            for method, path, body in calls:
                replies = [await who.request(method, f"/shares/{one}{path}", **body) for one in (share["id"], ABSENT)]
                assert refusal(replies[0]) == (404, "share_not_found"), (method, path)
                assert replies[0].content == replies[1].content
        eve = market.stranger["olga"]
        assert refusal(await eve.get(f"/shares/{share['id']}")) == (404, "share_not_found")
        for side in ("provider", "consumer"):
            assert ok(await eve.get("/shares", params={"side": side})) == []
        assert [one["status"] for one in await of_consumer(market)] == ["active"]


async def test_the_wall_alone_shows_a_share_to_its_two_sides(world: World) -> None:
    """Queries that name no tenant: Postgres' row security is all there is."""
    async with a_market(world) as market:
        made = await market.publish("chat")
        share = await market.share(made)
        for side, sees in (("provider", True), ("consumer", True), ("stranger", False)):
            async with world.services.read("shares", "offerings", scope=Scope(organization=market.ids[side])) as rows:
                shares = await (await rows.execute("SELECT id FROM shares")).fetchall()
                offerings = await (await rows.execute("SELECT id FROM offerings")).fetchall()
            assert shares == ([(share["id"],)] if sees else []), side
            assert offerings == ([(made["id"],)] if side == "provider" else []), side


async def test_what_cannot_be_shared_is_refused(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("chat")
        olga = market.provider["olga"]
        good = {"offering": made["id"], "consumer": market.slugs["consumer"]}
        bad: list[tuple[dict[str, Any], tuple[int, str]]] = [
            ({"consumer": "nobody-has-this-slug"}, (404, "organization_not_found")),
            ({"consumer": market.slugs["provider"]}, (400, "consumer_must_differ")),
            ({"offering": "no-such-code"}, (404, "offering_not_found")),
            ({"offering": ABSENT}, (404, "offering_not_found")),
            ({"price": {"input_eur_micros_per_million": -1}}, (400, "invalid_price")),
            ({"ends_at": "2020-01-01T00:00:00Z"}, (400, "invalid_period")),
            ({"ends_at": "2020-01-01T00:00:00"}, (400, "invalid_request")),
            ({"ends_at": "0001-01-01T00:00:00+14:00"}, (400, "invalid_request")),
        ]
        for change, expected in bad:
            assert refusal(await olga.post("/shares", json={**good, **change})) == expected, change
        ok(await olga.post("/shares", json=good), 201)
        assert refusal(await olga.post("/shares", json={**good, "price": CHEAP})) == (409, "share_already_exists")
        assert refusal(await market.provider["mia"].post("/shares", json=good)) == (403, "insufficient_permissions")
        assert (await olga.delete(f"/offerings/{made['id']}")).status_code == 204
        other = {**good, "consumer": market.slugs["stranger"]}
        assert refusal(await olga.post("/shares", json=other)) == (409, "offering_withdrawn")


async def test_a_withdrawn_offering_is_gone_for_who_had_a_share(world: World) -> None:
    async with a_market(world) as market:
        made = await market.publish("chat", visibility="private")
        await market.share(made)
        assert set(await market.found()) == {"chat"}
        assert (await market.provider["olga"].delete(f"/offerings/{made['id']}")).status_code == 204
        await world.visible()
        assert await market.found() == {}


async def test_a_provider_is_not_told_who_asked_but_by_an_id(world: World) -> None:
    """The wish is an event of the provider's log; its actor's name, address and browser are the consumer's business."""
    async with a_market(world) as market:
        await market.subscribe()
        made = await market.publish("quiet", access_policy="request_required")
        ok(await market.consumer["olga"].post(f"/offerings/{made['id']}/access"), 202)
        asker = ok(await market.consumer["olga"].get("/auth/me"))["user_id"]
        position = {"event-position": str(await world.log.head())}
        rows = ok(await market.provider["olga"].get("/audit?limit=500", headers=position))["rows"]
    (asked,) = [row for row in rows if row["type"] == "AccessRequested"]
    assert (asked["actor"]["id"], asked["actor"]["name"]) == (asker, None)
    assert (asked["origin"]["ip"], asked["origin"]["browser"]) == (None, None)
    own = [row for row in rows if row["type"] == "OfferingPublished"]
    assert own
    assert all(row["actor"]["name"] and row["origin"]["ip"] for row in own)
