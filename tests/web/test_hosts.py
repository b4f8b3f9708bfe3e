"""Hosts over HTTP: who may enrol which machine, what is shown of it, and that neighbours see nothing."""

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from domain.ids import DeploymentId, OrganizationId, derived_id
from domain.instance import INSTANCE
from domain.instance_commands import IntendServerCreate, RecordServerCreated, RequestInstance
from tests.examples import example
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINGERPRINT = "SHA256:" + "k" * 43
SLOT = {"day": 0, "start_minute": 480, "end_minute": 1080}


def wish(address: str = "192.0.2.7", **changes: Any) -> dict[str, Any]:
    facts = {"name": "rack-1", "host_key_fingerprint": FINGERPRINT, "gpu_count": 2, "vram_per_gpu_gb": 48}
    return {"address": address, **facts, "price_eur_per_hour": 0.9, **changes}


async def enrolled(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    reply = await client.post("/hosts", json=wish(**changes))
    assert reply.status_code == 201, reply.text
    client.headers["event-position"] = reply.headers["event-position"]
    shown: dict[str, Any] = reply.json()
    return shown


async def test_a_host_is_enrolled_and_shown(world: World) -> None:
    async with world.team(ann="owner") as team:
        host = await enrolled(team["ann"], slots=[SLOT], cpu_count=32, ram_gb=256)
        assert (host["instance_type"], host["zone"], host["ssh_user"]) == ("host:2x48", "default", "root")
        assert (host["instance_id"], host["slots"], host["price_eur_per_hour"]) == (None, [SLOT], 0.9)
        assert host["open_for_s"] is not None
        assert (await team["ann"].get(f"/hosts/{host['id']}")).json()["id"] == host["id"]
        assert [one["name"] for one in (await team["ann"].get("/hosts")).json()] == ["rack-1"]


async def test_enrolling_twice_is_welcome_and_another_wish_is_refused(world: World) -> None:
    async with world.team(ann="admin") as team:
        first = await enrolled(team["ann"])
        assert (await enrolled(team["ann"]))["id"] == first["id"]
        reply = await team["ann"].post("/hosts", json=wish(gpu_count=4))
        assert refusal(reply) == (409, "host_already_enrolled")


async def test_owners_and_admins_keep_hosts_and_managers_look(world: World) -> None:
    async with world.team(ann="owner", max="manager", ulf="user") as team:
        host = await enrolled(team["ann"])
        team["max"].headers["event-position"] = team["ann"].headers["event-position"]
        assert [one["id"] for one in (await team["max"].get("/hosts")).json()] == [host["id"]]
        assert (await team["max"].post("/hosts", json=wish("192.0.2.8"))).status_code == 403
        assert (await team["max"].delete(f"/hosts/{host['id']}")).status_code == 403
        assert (await team["ulf"].get("/hosts")).status_code == 403


async def test_a_neighbour_s_host_does_not_exist(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs:
        host = await enrolled(ours["ann"])
        theirs["eve"].headers["event-position"] = ours["ann"].headers["event-position"]
        for reply in (
            await theirs["eve"].get(f"/hosts/{host['id']}"),
            await theirs["eve"].put(f"/hosts/{host['id']}", json={k: v for k, v in wish().items() if k != "address"}),
            await theirs["eve"].delete(f"/hosts/{host['id']}"),
        ):
            assert refusal(reply) == (404, "host_not_found")
        assert (await theirs["eve"].get("/hosts")).json() == []
        assert (await enrolled(theirs["eve"]))["id"] != host["id"]


async def test_a_host_is_changed_as_a_whole(world: World) -> None:
    async with world.team(ann="owner") as team:
        host = await enrolled(team["ann"])
        body = {key: value for key, value in wish(name="attic", slots=[SLOT]).items() if key != "address"}
        changed = (await team["ann"].put(f"/hosts/{host['id']}", json=body)).json()
        assert (changed["name"], changed["address"], changed["slots"]) == ("attic", "192.0.2.7", [SLOT])


async def test_a_free_host_is_withdrawn_and_one_that_serves_stays(world: World) -> None:
    async with world.team(ann="owner") as team:
        host = await enrolled(team["ann"])
        organization = OrganizationId((await team["ann"].get("/auth/me")).json()["current_organization_id"])
        instance_id = derived_id(host["id"], "instance")
        wanted = replace(
            example(RequestInstance), deployment_id=DeploymentId(derived_id(host["id"], "d")), provider="bare_metal"
        )
        created = RecordServerCreated(provider_instance_id=f"{host['id']}/0123456789abcdef")
        for command in (wanted, example(IntendServerCreate), created):
            await world.dispatch(INSTANCE, organization, instance_id, command)
        await world.visible()
        assert (await team["ann"].get(f"/hosts/{host['id']}")).json()["instance_id"] == instance_id
        assert refusal(await team["ann"].delete(f"/hosts/{host['id']}")) == (409, "host_serves")
        free = await enrolled(team["ann"], address="192.0.2.9", name="rack-9")
        reply = await team["ann"].delete(f"/hosts/{free['id']}")
        assert reply.status_code == 204
        team["ann"].headers["event-position"] = reply.headers["event-position"]
        assert refusal(await team["ann"].get(f"/hosts/{free['id']}")) == (404, "host_not_found")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1"])
async def test_the_platform_s_own_addresses_are_nobody_s_host(world: World, address: str) -> None:
    async with world.team(ann="owner") as team:
        assert refusal(await team["ann"].post("/hosts", json=wish(address))) == (403, "host_address_not_allowed")


@pytest.mark.parametrize(
    "changes", [{"host_key_fingerprint": "x"}, {"gpu_count": -1}, {"address": "rack-1"}, {"ssh_user": "a b"}]
)
async def test_what_cannot_be_is_refused(world: World, changes: dict[str, Any]) -> None:
    async with world.team(ann="owner") as team:
        assert refusal(await team["ann"].post("/hosts", json=wish(**changes))) == (400, "invalid_host")


async def test_the_audit_log_has_words_for_it(world: World) -> None:
    async with world.team(ann="owner") as team:
        host = await enrolled(team["ann"])
        rows = (await team["ann"].get("/audit", params={"aggregate": "host"})).json()["rows"]
        [row] = [row for row in rows if row["target"]["id"] == host["id"]]
        assert (row["type"], row["target"]["kind"]) == ("HostEnrolled", "host")
