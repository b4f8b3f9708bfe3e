"""Settings and provider accounts over HTTP: who may what, what counts, and that a secret goes in and never out."""

from typing import Any

import pytest

from domain.deployment import DEPLOYMENT
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web.api.catalogue import provider_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

STALE = "OPENAI_WORKER_STALE_SECONDS"
SECRETS = {"project_id": "a-project-of-ours", "secret_key": "a-secret-that-is-ours"}


def of(code: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [row for row in rows if row["provider_code"] == code]
    return found


async def test_definitions_tell_types_bounds_and_defaults(world: World) -> None:
    async with world.team(ann="manager") as team:
        shown = {one["key"]: one for one in (await team["ann"].get("/settings/definitions")).json()}
    port = shown["WORKER_HEALTH_PORT"]
    assert (port["value_type"], port["min_int"], port["max_int"], port["default_int"]) == ("int", 1, 65_535, 8080)
    assert (port["default_bool"], port["default_text"]) == (None, None)
    assert len(shown) == 13


async def test_an_organisation_sets_and_takes_back_its_own(world: World) -> None:
    async with world.team(ann="admin") as team, world.team(zoe="admin") as neighbours:
        path = f"/providers/{provider_id('local')}/params"
        changed = await team["ann"].put(path, json={"worker_health_port": 9000, "worker_expose_ports": False})
        assert changed.json()["overrides"] == {"worker_health_port": 9000, "worker_expose_ports": False}
        assert changed.json()["effective"]["worker_health_port"] == 9000
        theirs = of("local", (await neighbours["zoe"].get("/providers/params")).json())
        assert (theirs["overrides"], theirs["effective"]["worker_health_port"]) == ({}, 8080)
        back = await team["ann"].put(path, json={"worker_health_port": None})
        assert back.json()["overrides"] == {"worker_expose_ports": False}


async def test_a_deployment_takes_the_organisations_own_patience(world: World) -> None:
    async with world.team(ann="admin") as team:
        await team["ann"].put("/providers/local/params", json={"worker_instance_startup_timeout_s": 77})
        made = (await team["ann"].post("/deployments", json={"model": "mock-echo-model"})).json()
        organization = (await team["ann"].get("/auth/me")).json()["current_organization_id"]
        state = (await world.dispatcher.load(DEPLOYMENT, organization, made["deployment_id"])).state
    assert state.request is not None
    assert state.request.startup_timeout_s == 77


async def test_only_owners_and_admins_edit_and_users_do_not_look(world: World) -> None:
    async with world.team(olga="owner", ann="admin", max="manager", uma="user") as team:
        answers = {
            name: (
                (await client.get("/providers/params")).status_code,
                (await client.put("/providers/local/params", json={"worker_vllm_port": 8001})).status_code,
            )
            for name, client in team.items()
        }
    assert answers == {"olga": (200, 200), "ann": (200, 200), "max": (200, 403), "uma": (403, 403)}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"worker_health_port": 0}, "setting_out_of_range"),
        ({"worker_vllm_mode": "both"}, "setting_out_of_range"),
        ({"worker_health_port": "8080"}, "invalid_request"),
        ({"worker_expose_ports": 1}, "invalid_request"),
        ({"no_such": 1}, "invalid_request"),
    ],
)
async def test_what_does_not_fit_is_refused(world: World, body: dict[str, Any], code: str) -> None:
    async with world.team(ann="admin") as team:
        assert refusal(await team["ann"].put("/providers/local/params", json=body)) == (400, code)


async def test_a_global_setting_is_the_platforms(world: World) -> None:
    async with world.signed_in() as admin, world.team(olga="owner") as team:
        body = {"key": STALE, "value_int": 60}
        assert refusal(await team["olga"].put("/settings/global", json=body)) == (403, "admin_required")
        assert (await admin.put("/settings/global", json=body)).json() == [
            {"key": STALE, "value": 60, "is_override": True}
        ]
        assert (await team["olga"].get("/settings/global")).json()[0]["value"] == 60
        unset = await admin.put("/settings/global", json={"key": STALE})
        assert unset.json() == [{"key": STALE, "value": 120, "is_override": False}]


async def test_an_unknown_global_setting_is_refused(world: World) -> None:
    async with world.signed_in() as admin:
        reply = await admin.put("/settings/global", json={"key": "NO_SUCH", "value_int": 1})
        assert refusal(reply) == (400, "unknown_setting")


async def test_credentials_go_in_and_never_out(world: World) -> None:
    async with world.team(ann="admin") as team, world.team(zoe="admin") as neighbours:
        before = of("scaleway", (await team["ann"].get("/providers/config-status")).json())
        assert (before["is_configured"], before["missing_config"]) == (False, ["project_id", "secret_key"])
        given = await team["ann"].put("/providers/scaleway/credentials", json={"values": SECRETS})
        assert (given.json()["is_configured"], given.json()["configured"]) == (True, ["project_id", "secret_key"])
        pages = [await team["ann"].get(p) for p in ("/providers/config-status", "/events", "/providers/params")]
        assert not [secret for secret in SECRETS.values() for page in (given, *pages) if secret in page.text]
        assert not [secret for secret in SECRETS.values() if secret.encode() in world.everything_written()]
        theirs = of("scaleway", (await neighbours["zoe"].get("/providers/config-status")).json())
        assert not theirs["is_configured"]
        gone = await team["ann"].delete("/providers/scaleway/credentials")
        assert gone.json()["missing_config"] == ["project_id", "secret_key"]


async def test_this_machine_needs_no_credentials(world: World) -> None:
    async with world.team(ann="manager") as team:
        local = of("local", (await team["ann"].get("/providers/config-status")).json())
    assert (local["is_configured"], local["missing_config"]) == (True, [])


async def test_a_credential_nobody_asked_for_is_refused_before_it_is_kept(world: World) -> None:
    async with world.team(ann="admin") as team:
        path = "/providers/scaleway/credentials"
        assert refusal(await team["ann"].put(path, json={"values": {"pin": "1"}})) == (400, "unknown_credential")
        assert refusal(await team["ann"].put(path, json={"values": {}})) == (400, "invalid_request")
        assert refusal(await team["ann"].put("/providers/nowhere/credentials", json={"values": SECRETS})) == (
            404,
            "provider_not_found",
        )


async def test_a_token_for_gated_models_goes_in_and_never_out(world: World) -> None:
    """It is no account at a provider: nothing is rented there, so nobody looks at it."""
    path, token = "/providers/huggingface/credentials", "hf_aSecretThatNobodySees"
    async with world.team(ann="admin") as team, world.team(zoe="admin") as neighbours:
        given = await team["ann"].put(path, json={"values": {"token": f"{token}\n"}})
        assert (given.json()["is_configured"], given.json()["configured"]) == (True, ["token"])
        assert token not in given.text
        assert token.encode() not in world.everything_written()
        assert not of("huggingface", (await neighbours["zoe"].get("/providers/config-status")).json())["is_configured"]
        assert refusal(await team["ann"].put(path, json={"values": {"token": "two words"}})) == (
            400,
            "invalid_credential",
        )
        assert "huggingface" not in (await team["ann"].get("/provider_accounts")).text
        assert "huggingface" not in (await team["ann"].get("/providers")).text
        gone = await team["ann"].delete(path)
        assert gone.json()["missing_config"] == ["token"]
