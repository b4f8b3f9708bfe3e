"""What an API key opens in the REST API: never more than its scope, its owner, and its flags say, and only alone."""

from typing import Any

import httpx
import pytest

from domain.ids import OrganizationId, UserId
from domain.organization import ORGANIZATION
from domain.organization_commands import ChangeMemberRole, DeleteOrganization, RemoveMember
from tests.web.test_api_keys import DAY, made
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web.tokens import COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def used(world: World, secret: str, path: str = "/models", **headers: str) -> httpx.Response:
    async with world.client(headers={"x-api-key": secret, **headers}) as client:
        return await client.get(path)


async def made_by(world: World, secret: str, name: str = "child", **wish: Any) -> httpx.Response:
    async with world.client(headers={"authorization": f"Bearer {secret}"}) as client:
        return await client.post("/api_keys", json={"name": name, **wish})


async def whereabouts(client: httpx.AsyncClient) -> tuple[OrganizationId, UserId]:
    me = (await client.get("/auth/me")).json()
    return OrganizationId(me["current_organization_id"]), UserId(me["user_id"])


async def told(world: World, organization_id: OrganizationId, command: Any) -> None:
    """The command has happened, and every read model knows."""
    await world.visible(await world.dispatch(ORGANIZATION, organization_id, organization_id, command))


async def test_a_key_opens_what_keys_may_open_until_revoked(world: World) -> None:
    async with world.team(ann="owner") as team, world.client() as client:
        key, secret = await made(team["ann"], "reader")
        as_header = {"x-api-key": secret}
        as_bearer = {"authorization": f"Bearer {secret}"}
        assert (await client.get("/models", headers=as_header)).status_code == 200
        assert (await client.get("/usage", headers=as_bearer)).status_code == 200
        assert refusal(await client.get("/api_keys", headers=as_header)) == (401, "login_required")
        revoked = await team["ann"].delete(f"/api_keys/{key['id']}")
        await world.visible(int(revoked.headers["event-position"]))
        assert refusal(await client.get("/models", headers=as_header)) == (401, "invalid_api_key")


async def test_a_mistyped_key_is_refused_without_a_look_up(world: World) -> None:
    assert refusal(await used(world, "sk-inv-" + "0" * 64)) == (401, "invalid_api_key")


@pytest.mark.parametrize("flag", ["technical", "economic"])
async def test_a_key_that_is_not_operational_is_told_what_is_missing(world: World, flag: str) -> None:
    async with world.team(ann="owner") as team:
        key, secret = await made(team["ann"])
        await team["ann"].put(f"/api_keys/{key['id']}/activation", json={"flag": flag, "value": False})
        refused = await used(world, secret)
        assert refusal(refused) == (403, "api_key_not_operational")
        assert f"{flag} activation is missing" in refused.json()["message"]
        await team["ann"].put(f"/api_keys/{key['id']}/activation", json={"flag": flag, "value": True})
        assert (await used(world, secret)).status_code == 200


async def test_a_key_ends_with_its_last_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.team(ann="owner") as team:
        _, secret = await made(team["ann"], expires_in_days=1)
        assert (await used(world, secret)).status_code == 200
        monkeypatch.setattr(world.clock, "ahead", DAY)
        assert refusal(await used(world, secret)) == (401, "api_key_expired")


async def test_a_key_works_from_its_addresses_whatever_a_stranger_claims(world: World) -> None:
    async with world.team(ann="owner") as team:
        _, near = await made(team["ann"], ip_ranges=["10.0.0.0/8"])
        _, far = await made(team["ann"], ip_ranges=["203.0.113.0/24"])
        assert (await used(world, near)).status_code == 200
        assert refusal(await used(world, far)) == (403, "ip_address_not_allowed")
        forged = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9"}
        assert refusal(await used(world, far, **forged)) == (403, "ip_address_not_allowed")


async def test_a_key_for_the_gateway_alone_opens_no_route_here(world: World) -> None:
    async with world.team(ann="owner") as team:
        _, gateway = await made(team["ann"], endpoints=["chat"])
        _, both = await made(team["ann"], endpoints=["chat", "rest"])
        assert refusal(await used(world, gateway)) == (403, "endpoint_not_allowed")
        assert (await used(world, both)).status_code == 200


async def test_both_secrets_of_a_rotated_key_work_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.team(ann="owner") as team:
        key, old = await made(team["ann"])
        path = f"/api_keys/{key['id']}/rotate"
        new = (await team["ann"].post(path, json={"overlap_s": 3600})).json()["api_key"]
        assert [(await used(world, secret)).status_code for secret in (old, new)] == [200, 200]
        monkeypatch.setattr(world.clock, "ahead", DAY / 12)
        assert refusal(await used(world, old)) == (401, "invalid_api_key")
        assert (await used(world, new)).status_code == 200


async def test_a_rotation_without_overlap_ends_the_old_secret_now(world: World) -> None:
    async with world.team(ann="owner") as team:
        key, old = await made(team["ann"])
        new = (await team["ann"].post(f"/api_keys/{key['id']}/rotate", json={"overlap_s": 0})).json()["api_key"]
        assert refusal(await used(world, old)) == (401, "invalid_api_key")
        assert (await used(world, new)).status_code == 200


async def test_a_key_acts_with_the_lesser_of_its_own_and_its_owners_role(world: World) -> None:
    async with world.team(boss="owner", ann="owner") as team:
        organization_id, ann = await whereabouts(team["ann"])
        _, strong = await made(team["ann"], role="admin")
        _, weak = await made(team["ann"])
        shared = {"owner": "organization"}
        assert (await made_by(world, strong, **shared)).status_code == 201
        assert refusal(await made_by(world, weak, **shared)) == (403, "insufficient_permissions")
        await told(world, organization_id, ChangeMemberRole(by=None, user_id=ann, role="manager"))
        assert refusal(await made_by(world, strong, **shared)) == (403, "insufficient_permissions")
        assert (await made_by(world, strong)).status_code == 201


async def test_a_persons_key_ends_with_their_membership_and_the_organisations_stays(world: World) -> None:
    async with world.team(boss="owner", ann="owner") as team:
        organization_id, ann = await whereabouts(team["ann"])
        _, own = await made(team["ann"])
        _, shared = await made(team["ann"], owner="organization")
        await told(world, organization_id, RemoveMember(user_id=ann))
        assert refusal(await used(world, own)) == (401, "invalid_api_key")
        assert (await used(world, shared)).status_code == 200


async def test_all_keys_end_with_their_organisation(world: World) -> None:
    async with world.team(ann="owner") as team:
        organization_id, _ = await whereabouts(team["ann"])
        _, own = await made(team["ann"])
        _, shared = await made(team["ann"], owner="organization")
        await told(world, organization_id, DeleteOrganization(live_instances=0))
        for secret in (own, shared):
            assert refusal(await used(world, secret)) == (401, "invalid_api_key")


WIDER: list[dict[str, Any]] = [
    {"models": ["a", "c"]},
    {"models": []},
    {"models": None},
    {"concurrency": 6},
    {"concurrency": None},
    {"expires_in_days": 31},
    {"expires_in_days": None},
    {"ip_ranges": ["10.0.0.0/7"]},
    {"ip_ranges": []},
]


async def test_a_key_makes_keys_that_are_as_narrow_as_itself(world: World) -> None:
    async with world.team(ann="owner") as team:
        maker, secret = await made(
            team["ann"], role="owner", models=["a", "b"], concurrency=5, expires_in_days=30, ip_ranges=["10.0.0.0/8"]
        )
        child = (await made_by(world, secret)).json()["key"]
        assert child["scope"] == {**maker["scope"], "role": "user"}
        assert (child["user_id"], child["made_by_key"]) == (maker["user_id"], maker["id"])
        narrower = (await made_by(world, secret, models=["a"], concurrency=1, expires_in_days=1)).json()["key"]
        assert narrower["scope"]["models"] == ["a"]
        for wider in WIDER:
            assert refusal(await made_by(world, secret, **wider)) == (403, "key_wider_than_creator"), wider


async def test_a_key_gives_no_role_and_sets_no_flag_beyond_its_own(world: World) -> None:
    async with world.team(ann="owner") as team:
        _, secret = await made(team["ann"], role="admin")
        assert refusal(await made_by(world, secret, role="owner")) == (403, "key_wider_than_creator")
        assert refusal(await made_by(world, secret, activate=["economic"])) == (403, "activation_not_allowed")
        child = (await made_by(world, secret, role="admin")).json()
        assert child["key"]["activation"]["missing"] == ["economic"]


async def test_the_organisations_key_makes_keys_of_the_organisation_and_is_nobody(world: World) -> None:
    async with world.team(ann="owner") as team:
        _, ann = await whereabouts(team["ann"])
        maker, secret = await made(team["ann"], owner="organization", role="admin")
        child = (await made_by(world, secret)).json()["key"]
        assert (child["owner"], child["user_id"]) == ("organization", None)
        assert (child["created_by"], child["made_by_key"]) == (ann, maker["id"])
        assert refusal(await made_by(world, secret, owner="user")) == (403, "insufficient_permissions")


async def test_what_a_key_made_ends_with_it(world: World) -> None:
    """Whoever stole a key must not outlive its end with another one."""
    async with world.team(ann="owner") as team:
        first, one = await made(team["ann"], role="owner")
        two = (await made_by(world, one, role="owner")).json()["api_key"]
        three = (await made_by(world, two, role="owner")).json()["api_key"]
        _, bystander = await made(team["ann"])
        assert (await used(world, three)).status_code == 200
        revoked = await team["ann"].delete(f"/api_keys/{first['id']}")
        await world.visible(int(revoked.headers["event-position"]))
        for secret in (one, two, three):
            assert refusal(await used(world, secret)) == (401, "invalid_api_key")
        assert (await used(world, bystander)).status_code == 200


async def test_very_many_made_keys_are_ended_in_several_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.api.api_keys.MAX_LIST_ROWS", 1)
    async with world.team(ann="owner") as team:
        first, one = await made(team["ann"], role="owner")
        two = (await made_by(world, one)).json()["api_key"]
        path = f"/api_keys/{first['id']}"
        assert refusal(await team["ann"].delete(path)) == (503, "made_keys_remain")
        assert (await team["ann"].delete(path)).status_code == 204
        await world.visible()
        assert refusal(await used(world, two)) == (401, "invalid_api_key")


async def test_what_a_key_may_not_do_is_recorded_as_its_attempt(world: World) -> None:
    """A revoked one's, too: somebody still has it."""
    async with world.team(ann="owner") as team:
        idle, stopped = await made(team["ann"], activate=[])
        ended, revoked = await made(team["ann"])
        await team["ann"].delete(f"/api_keys/{ended['id']}")
        await world.visible()
        await used(world, stopped)
        await used(world, revoked)
        await world.app.state.denials.settled()
        await world.visible()
        rows = (await team["ann"].get("/events?type=AttemptDenied")).json()["events"]
    assert [(row["actor"], row["data"]["code"]) for row in rows] == [
        (f"key:{idle['id']}", "api_key_not_operational"),
        (f"key:{ended['id']}", "invalid_api_key"),
    ]


async def test_two_credentials_in_one_request_are_refused(world: World) -> None:
    async with world.team(ann="owner") as team, world.client() as client:
        _, secret = await made(team["ann"])
        bearer = team["ann"].headers["authorization"]
        cookie = f"{COOKIE}={bearer.removeprefix('Bearer ')}"
        for headers in (
            [("x-api-key", secret), ("authorization", bearer)],
            [("x-api-key", secret), ("cookie", cookie)],
            [("x-api-key", secret), ("x-api-key", secret)],
            [("authorization", f"bearer {secret}"), ("cookie", cookie)],
            [("authorization", bearer), ("authorization", f"Bearer {secret}")],
            [("x-api-key", ""), ("authorization", bearer)],
        ):
            assert refusal(await client.get("/models", headers=headers)) == (400, "multiple_credentials"), headers
        assert (await client.get("/models", headers=[("cookie", cookie)])).status_code == 200


async def test_a_key_is_not_told_what_its_owner_was_told_under_the_same_idempotency_key(world: World) -> None:
    """The reply that was kept for the person may hold the secret of a wider key."""
    async with world.team(ann="owner") as team, world.client() as client:
        _, secret = await made(team["ann"], models=["a"])
        headers = {"idempotency-key": "the same one"}
        persons = await team["ann"].post("/api_keys", json={"name": "x"}, headers=headers)
        keys = await client.post("/api_keys", json={"name": "x"}, headers={**headers, "x-api-key": secret})
        assert keys.status_code == persons.status_code == 201
        assert keys.json()["api_key"] != persons.json()["api_key"]
        assert keys.json()["key"]["scope"]["models"] == ["a"]
