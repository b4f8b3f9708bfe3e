"""Rules for every endpoint, present and future: access is declared, errors have one shape, secrets stay out."""

import json
import re
from typing import Any

import pytest
import structlog
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from domain.permissions import PERMISSIONS, is_allowed
from domain.roles import Role
from tests.web.test_deployments import MODEL
from tests.web.test_sign_in import refusal
from tests.web.world import ADMIN_PASSWORD, World
from web.api import system
from web.app import OPENAPI_PATH
from web.auth import Served, platform_admin, public, signed_in
from web.declared import UndeclaredRouteError, api_routes, require_access_rules, rule_of, rules_of
from web.layers import SAFE_HEADERS
from web.openapi import OPENAPI_FILE, document
from web.services import Parked

pytestmark = pytest.mark.asyncio(loop_scope="module")


def routes(world: World) -> list[APIRoute]:
    return api_routes(world.app)


async def test_every_route_says_who_may_call_it(world: World) -> None:
    assert len(routes(world)) > 35
    require_access_rules(world.app)
    assert {route.path: rules for route in routes(world) if len(rules := rules_of(route)) != 1} == {}


def _planted(world: World, *rules: Any) -> FastAPI:
    app = FastAPI(openapi_url=OPENAPI_PATH, docs_url=None, redoc_url=None)
    router = APIRouter(prefix="/planted", dependencies=[Depends(rule) for rule in rules])

    @router.post("/{thing}")
    async def planted(thing: str, services: Served) -> None: ...

    app.include_router(system.router)
    app.include_router(router)
    app.state.services = world.services
    return app


@pytest.mark.parametrize(("rules", "count"), [((), 0), ((public, signed_in), 2), ((public, platform_admin), 2)])
async def test_an_application_with_an_undeclared_route_is_not_built(
    world: World, rules: tuple[Any, ...], count: int
) -> None:
    with pytest.raises(UndeclaredRouteError, match=rf"POST /planted/{{thing}} has {count}"):
        require_access_rules(_planted(world, *rules))
    require_access_rules(_planted(world, signed_in))


async def test_nor_one_with_a_route_that_can_have_no_rule(world: World) -> None:
    app = _planted(world, public)
    app.mount("/files", FastAPI(openapi_url=None, docs_url=None, redoc_url=None))
    with pytest.raises(UndeclaredRouteError, match="/files is no API route"):
        require_access_rules(app)
    planned = FastAPI()  # with its documentation pages
    with pytest.raises(UndeclaredRouteError, match="/docs is no API route"):
        require_access_rules(planned)


async def test_only_these_routes_are_public(world: World) -> None:
    public = {route.path for route in routes(world) if rule_of(route).name == "public"}
    assert public == {
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/api/version",
        "/swagger-ui",
        "/auth/login",
        "/auth/password-reset/request",
        "/auth/password-reset/reset",
        "/organizations/invitations/{token}",
        "/internal/worker/agent.pyz",
    }


async def test_a_stranger_is_asked_to_sign_in_everywhere_else(world: World) -> None:
    async with world.client() as stranger:
        for route in routes(world):
            if rule_of(route).name in {"public", "worker"}:
                continue
            for method in route.methods or ():
                reply = await stranger.request(method, re.sub(r"{\w+(:\w+)?}", "1", route.path))
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
