"""Rules for every endpoint, present and future: access is declared, errors have one shape, secrets stay out."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from domain.permissions import PERMISSIONS, is_allowed
from domain.roles import Role
from tests.web.test_deployments import MODEL
from tests.web.test_sign_in import refusal
from tests.web.world import ADMIN_PASSWORD, World
from web.auth import ACCESS_RULES
from web.layers import SAFE_HEADERS
from web.openapi import OPENAPI_FILE, document
from web.services import Parked

pytestmark = pytest.mark.asyncio(loop_scope="module")


def routes(world: World) -> list[APIRoute]:
    return [route for route in _all(world.app.routes) if route.path != "/api-docs/openapi.json"]


def _all(found: Any) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from _all(getattr(getattr(route, "original_router", None), "routes", []))


def access_of(dependant: Dependant) -> list[str]:
    own = [ACCESS_RULES[dependant.call]] if dependant.call in ACCESS_RULES else []
    return own + [rule for inner in dependant.dependencies for rule in access_of(inner)]


async def test_every_route_says_who_may_call_it(world: World) -> None:
    found = routes(world)
    assert len(found) > 35
    assert {
        f"{sorted(r.methods or [])} {r.path}": len(access_of(r.dependant))
        for r in found
        if len(access_of(r.dependant)) != 1
    } == {}


async def test_only_these_routes_are_public(world: World) -> None:
    public = {route.path for route in routes(world) if access_of(route.dependant) == ["public"]}
    assert public == {"/", "/healthz", "/readyz", "/metrics", "/version", "/api/version", "/swagger-ui", "/auth/login"}


async def test_a_stranger_is_asked_to_sign_in_everywhere_else(world: World) -> None:
    async with world.client() as stranger:
        for route in routes(world):
            if access_of(route.dependant) in (["public"], ["worker"]):
                continue
            for method in route.methods or ():
                reply = await stranger.request(method, route.path.replace("{", "").replace("}", ""))
                assert refusal(reply) == (401, "login_required"), (method, route.path)


@pytest.mark.parametrize("role", ["owner", "admin", "manager", "user"])
async def test_each_role_may_what_the_table_says(world: World, role: Role) -> None:
    reads = {
        "instances.view": "/instances",
        "deployments.view": "/deployments",
        "api_keys.own": "/api_keys",
        "audit.view": "/events",
        "usage.view": "/usage",
        "catalogue.view": "/providers",
    }
    async with world.team(ann=role) as team:
        for action in PERMISSIONS:
            if action in reads:
                expected = 200 if is_allowed(role, action) else 403
                assert (await team["ann"].get(reads[action])).status_code == expected, action
        may_deploy = is_allowed(role, "deployments.change")
        assert (await team["ann"].post("/deployments", json={"model": MODEL})).status_code == (
            202 if may_deploy else 403
        )


async def test_an_unknown_path_or_method_has_the_common_shape(world: World) -> None:
    async with world.client() as client:
        assert refusal(await client.get("/nowhere")) == (404, "not_found")
        assert refusal(await client.patch("/models")) == (405, "method_not_allowed")


async def test_a_defect_tells_the_client_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret detail")

    async with world.signed_in() as admin:
        monkeypatch.setattr(world.vault, "open_all", broken)
        with structlog.testing.capture_logs() as lines:
            reply = await admin.get("/auth/me")
        assert refusal(reply) == (500, "internal_error")
        assert [line["event"] for line in lines] == ["request_failed"]
        assert "secret detail" not in reply.text


async def test_every_reply_tells_browsers_to_be_careful(world: World) -> None:
    async with world.client() as client:
        for path in ("/", "/healthz", "/nowhere", "/auth/me", "/api-docs/openapi.json"):
            headers = (await client.get(path)).headers
            assert {name: headers.get(name) for name in SAFE_HEADERS} == dict(SAFE_HEADERS), path


def committed() -> str:
    return OPENAPI_FILE.read_text()


async def test_the_committed_openapi_is_todays() -> None:
    assert committed() == document(), "run `python -m web.openapi`"


async def test_the_reference_page_needs_nothing_from_elsewhere(world: World) -> None:
    async with world.client() as client:
        page = await client.get("/swagger-ui")
        assert page.status_code == 200
        assert "https://" not in page.text
        assert "http://" not in page.text
        served = (await client.get("/api-docs/openapi.json")).json()
    assert served["paths"] == json.loads(document())["paths"]


async def test_health_readiness_and_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> int:
        raise ConnectionError("no log")

    async with world.client() as client:
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).json() == {"ready": True, "checks": {"log": "ok"}}
        monkeypatch.setitem(world.services.checks, "log", away)
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["checks"]) == (503, {"log": "unavailable"})
        version = (await client.get("/version")).json()
        assert version == (await client.get("/api/version")).json()
        assert version["backend_version"] == world.services.settings.version


async def test_secrets_and_personal_data_stay_out_of_log_and_output(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every secret this API ever shows or takes, sought in the bytes of the whole log and in all that was printed."""
    await world.person("Zebulon", "zebulon's password")
    async with world.signed_in("Zebulon", "zebulon's password") as client:
        token = client.headers["authorization"].removeprefix("Bearer ")
        await client.post("/organizations", json={"name": "Secrets"})
        headers = {"idempotency-key": "secrets"}
        key = (await client.post("/api_keys", json={"name": "k"}, headers=headers)).json()["api_key"]
    written = world.everything_written()
    printed = "".join(capfd.readouterr()).encode()
    for secret in (
        ADMIN_PASSWORD,
        "zebulon's password",
        token,
        token.split(".")[2],
        key,
        key[12:],
        "Zebulon",
        "zebulon",
        world.environment.admin_email,
    ):
        assert secret.encode() not in written
        assert secret.encode() not in printed


async def test_parked_work_is_for_platform_admins(world: World) -> None:
    one = Parked(
        id="advance_instance.instance.i-1",
        reaction="advance_instance",
        aggregate="instance",
        aggregate_id="i-1",
        organization="o",
        position=7,
        event_id="e",
        reason="gave up",
        attempts=8,
        parked_at=world.clock(),
    )
    world.parking.parked = [one]
    async with world.signed_in() as admin, world.team(ann="owner") as team:
        assert refusal(await team["ann"].get("/parked")) == (403, "admin_required")
        shown = (await admin.get("/parked")).json()
        assert [(work["id"], work["reason"]) for work in shown] == [(one.id, "gave up")]
        assert (await admin.post(f"/parked/{one.id}/retry")).status_code == 202
        assert (await admin.post(f"/parked/{one.id}/skip")).status_code == 202
        assert refusal(await admin.post("/parked/unknown/skip")) == (404, "parked_work_not_found")
    assert world.parking.told == [("retry", one.id), ("skip", one.id)]
