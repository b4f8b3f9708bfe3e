"""Deployments and instances over HTTP: every wish is on record, refusals have SPEC's codes, neighbours see nothing."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from uuid_utils import uuid7

from domain.activation import FLAGS
from domain.catalogue import model_id_of
from domain.deployment import instance_ids
from domain.ids import DeploymentId, WorkerId
from domain.instance import INSTANCE
from domain.instance_commands import (
    IntendServerCreate,
    ObserveWorker,
    RecordAddress,
    RecordServerCreated,
    RecordServerStarted,
    RegisterWorker,
    RequestInstance,
    RequestTermination,
)
from domain.message import subject_of
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web.api.catalogue import instance_type_id, provider_id, zone_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "mock-echo-model"
REQUEST = RequestInstance(
    deployment_id=DeploymentId("d"),
    ordinal=1,
    model_code=MODEL,
    engine="simulated",
    provider="local",
    zone="local",
    instance_type="mock-local-instance",
    gpu_count=1,
    vram_per_gpu_gb=2,
    price_eur_micros_per_hour=2_500_000,
    startup_timeout_s=300,
    activated=("technical", "economic"),
)
READY = (
    REQUEST,
    IntendServerCreate(server_name="s"),
    RecordServerCreated(provider_instance_id="p"),
    RecordServerStarted(),
    RecordAddress(ip_address="127.8.0.1"),
    RegisterWorker(
        worker_id=WorkerId("w"),
        token_sha256="t",
        token_prefix="wk_",
        engine_url="http://127.8.0.1:8000",
        agent_url="http://127.8.0.1:8080",
        agent_version="1",
        agent_sha256="",
    ),
    ObserveWorker(status="ready", engine_up=True, model_loaded=True, warmed_up=True, queue_depth=0, agent_sha256=""),
)


async def instance_in(world: World, client: Any, commands: tuple[Any, ...]) -> str:
    """An instance of the client's organisation that has come so far."""
    organization = (await client.get("/auth/me")).json()["current_organization_id"]
    instance = str(uuid7())
    for command in commands:
        await world.dispatch(INSTANCE, organization, instance, command)
    await world.visible()
    return instance


async def test_a_deployment_is_accepted_and_shown(world: World) -> None:
    async with world.team(ann="admin") as team:
        reply = await team["ann"].post("/deployments", json={"model": MODEL, "instances": 2})
        assert reply.status_code == 202
        made = reply.json()
        assert made["status"] == "accepted"
        assert made["instances"] == list(instance_ids(made["deployment_id"], 2))
        assert made["instance_id"] == made["instances"][0]
        position = {"event-position": reply.headers["event-position"]}
        shown = (await team["ann"].get(f"/deployments/{made['deployment_id']}", headers=position)).json()
        assert (shown["model_code"], shown["instances"], shown["engine"]) == (MODEL, 2, "simulated")
        assert (shown["provider"], shown["zone"], shown["instance_type"]) == ("local", "local", "mock-local-instance")
        assert [one["id"] for one in (await team["ann"].get("/deployments")).json()] == [made["deployment_id"]]


async def test_ids_serve_as_well_as_codes(world: World) -> None:
    async with world.team(ann="admin") as team:
        body = {
            "model_id": model_id_of(MODEL),
            "provider_id": provider_id("local"),
            "zone_id": zone_id("local", "local"),
            "instance_type_id": instance_type_id("local", "mock-local-instance"),
        }
        reply = await team["ann"].post("/deployments", json=body)
        assert (reply.status_code, reply.json()["model"]) == (202, MODEL)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "MISSING_MODEL"),
        ({"model": "no/such-model"}, "INVALID_MODEL"),
        ({"model_id": "0192aaaa-0000-7000-8000-000000000000"}, "INVALID_MODEL"),
        ({"model": MODEL, "provider_code": "moon"}, "MISSING_PARAMS"),
        ({"model": MODEL, "provider_code": "moon", "zone": "z", "instance_type": "t"}, "INVALID_PROVIDER"),
        ({"model": MODEL, "provider_code": "ovh", "zone": "z", "instance_type": "t"}, "INVALID_PROVIDER"),
        ({"model": MODEL, "provider_code": "scaleway", "zone": "z", "instance_type": "L4-1-24G"}, "INVALID_ZONE"),
        ({"model": MODEL, "zone": "elsewhere"}, "INVALID_ZONE"),
        ({"model": MODEL, "instance_type": "H100"}, "INVALID_INSTANCE_TYPE"),
        ({"model": MODEL, "instances": 0}, "MISSING_PARAMS"),
        ({"model": MODEL, "instances": 65}, "MISSING_PARAMS"),
        ({"model": MODEL, "engine": "vllm"}, "INCOMPATIBLE_MODEL_INSTANCE"),
        ({"model": "Qwen/Qwen2.5-72B-Instruct", "engine": "vllm"}, "INCOMPATIBLE_MODEL_INSTANCE"),
    ],
)
async def test_a_refused_wish_is_on_record_with_its_code(world: World, body: dict[str, Any], code: str) -> None:
    async with world.signed_in() as client:
        reply = await client.post("/deployments", json=body)
        assert refusal(reply) == (400, code)
        assert reply.json()["status"] == "failed"
        position = {"event-position": reply.headers["event-position"]}
        shown = (await client.get(f"/deployments/{reply.json()['deployment_id']}", headers=position)).json()
        assert (shown["status"], shown["error_code"]) == ("refused", code)


async def test_nonsense_is_no_wish(world: World) -> None:
    async with world.signed_in() as client:
        nonsense: list[Any] = [
            {"model": MODEL, "instances": 10**30},
            {"model": MODEL, "engine": "steam"},
            {"model": 7},
            [],
        ]
        for body in nonsense:
            assert refusal(await client.post("/deployments", json=body)) == (400, "invalid_request")


async def test_only_owners_and_admins_deploy_and_stop(world: World) -> None:
    async with world.team(ann="admin", max="manager", uma="user") as team:
        instance = await instance_in(world, team["ann"], (REQUEST,))
        for name in ("max", "uma"):
            assert refusal(await team[name].post("/deployments", json={"model": MODEL}))[0] == 403
            assert refusal(await team[name].delete(f"/instances/{instance}")) == (403, "insufficient_permissions")
            assert (await team[name].get(f"/instances/{instance}")).status_code == 200


async def test_a_deployment_is_stopped(world: World) -> None:
    async with world.team(ann="owner") as team:
        made = (await team["ann"].post("/deployments", json={"model": MODEL})).json()["deployment_id"]
        stopped = await team["ann"].delete(f"/deployments/{made}")
        assert stopped.status_code == 202
        position = {"event-position": stopped.headers["event-position"]}
        shown = (await team["ann"].get(f"/deployments/{made}", headers=position)).json()
        assert shown["stopped_at"]


async def test_an_instance_is_shown_with_its_history_and_metrics(world: World) -> None:
    async with world.team(ann="user") as team:
        instance = await instance_in(world, team["ann"], READY)
        shown = (await team["ann"].get(f"/instances/{instance}")).json()
        assert (shown["status"], shown["progress_percent"], shown["cost_per_hour"]) == ("ready", 100, 2.5)
        assert shown["model_id"] == model_id_of(MODEL)
        assert [one["type"] for one in shown["history"]][:2] == ["InstanceRequested", "ServerCreateIntended"]
        assert shown["history"][-1]["status_after"] == "ready"
        assert shown["storages"] == []
        assert [one["id"] for one in (await team["ann"].get("/instances")).json()] == [instance]
        page = (await team["ann"].get("/instances/search?limit=1&sort_by=status")).json()
        assert (page["filtered_count"], page["rows"][0]["id"]) == (1, instance)
        metrics = (await team["ann"].get(f"/instances/{instance}/metrics")).json()
        assert (metrics["total_requests"], metrics["total_tokens"], metrics["last_request_at"]) == (0, 0, None)


async def test_each_flag_is_set_by_its_own_people(world: World) -> None:
    async with world.team(ann="admin", max="manager", uma="user") as team:
        instance = await instance_in(world, team["ann"], (replace(REQUEST, activated=()),))
        path = f"/instances/{instance}/activation"
        answers = {
            (name, flag): (await team[name].put(path, json={"flag": flag, "value": True})).status_code
            for name in ("ann", "max", "uma")
            for flag in ("technical", "economic")
        }
        allowed = {("ann", "technical"), ("max", "economic")}
        assert answers == {cell: 200 if cell in allowed else 403 for cell in answers}
        shown = (await team["uma"].get(f"/instances/{instance}", headers=await newest(world))).json()
        assert shown["activation"] == {"technical": True, "economic": True, "operational": True, "missing": []}
        told = [(one["type"], one["actor"]) for one in shown["history"] if one["type"] == "InstanceActivated"]
        assert len({actor for _, actor in told}) == 2


async def test_an_admins_deployment_waits_for_the_economic_flag(world: World) -> None:
    async with world.team(ann="admin", olga="owner") as team:
        for name, missing in (("ann", ["economic"]), ("olga", [])):
            reply = await team[name].post("/deployments", json={"model": MODEL})
            (requested,) = [
                one.envelope for one in await world.log.read(subject_of(*await home(team[name], reply.json())))
            ]
            flags = msgspec.json.decode(requested.data)["activated"]
            assert [flag for flag in FLAGS if flag not in flags] == missing


async def test_nobody_begins_with_a_flag_that_is_not_theirs(world: World) -> None:
    async with world.team(ann="admin") as team:
        reply = await team["ann"].post("/deployments", json={"model": MODEL, "activate": ["economic"]})
        assert (reply.status_code, reply.json()["error"]) == (403, "activation_not_allowed")


async def home(client: Any, accepted: dict[str, Any]) -> tuple[str, str, str]:
    organization = (await client.get("/auth/me")).json()["current_organization_id"]
    return organization, "deployment", accepted["deployment_id"]


async def newest(world: World) -> dict[str, str]:
    return {"event-position": str(await world.log.head())}


async def test_stopping_drains_and_force_does_not(world: World) -> None:
    async with world.team(ann="admin") as team:
        gentle = await instance_in(world, team["ann"], READY)
        reply = await team["ann"].delete(f"/instances/{gentle}")
        assert (reply.status_code, reply.json()["instance_status"]) == (202, "draining")
        forced = await team["ann"].delete(f"/instances/{gentle}?force=true")
        assert (forced.status_code, forced.json()["instance_status"]) == (202, "terminating")


async def test_what_has_ended_is_archived_and_stays_ended(world: World) -> None:
    async with world.team(ann="admin") as team:
        ann = team["ann"]
        running = await instance_in(world, ann, READY)
        assert refusal(await ann.put(f"/instances/{running}/archive")) == (400, "instance_not_terminated")
        ended = await instance_in(world, ann, (REQUEST, RequestTermination(reason="test")))
        again = await ann.delete(f"/instances/{ended}")
        assert (again.status_code, again.json()["status"]) == (200, "unchanged")
        archived = await ann.put(f"/instances/{ended}/archive")
        assert archived.status_code == 200
        position = {"event-position": archived.headers["event-position"]}
        assert [i["id"] for i in (await ann.get("/instances?archived=true", headers=position)).json()] == [ended]
        assert [i["id"] for i in (await ann.get("/instances", headers=position)).json()] == [running]


async def test_reinstalling_begins_anew_where_it_can(world: World) -> None:
    async with world.team(ann="admin") as team:
        ann = team["ann"]
        ready = await instance_in(world, ann, READY)
        reply = await ann.post(f"/instances/{ready}/reinstall")
        assert (reply.status_code, reply.json()["instance_status"]) == (202, "booting")
        unreachable = await instance_in(world, ann, (REQUEST,))
        assert refusal(await ann.post(f"/instances/{unreachable}/reinstall")) == (400, "instance_unreachable")
        ending = await instance_in(world, ann, (*READY, RequestTermination(reason="test")))
        assert refusal(await ann.post(f"/instances/{ending}/reinstall")) == (409, "instance_terminating")
        ended = await instance_in(world, ann, (REQUEST, RequestTermination(reason="test")))
        assert refusal(await ann.post(f"/instances/{ended}/reinstall")) == (400, "instance_terminated")


async def test_a_neighbours_things_do_not_exist(world: World) -> None:
    """The same answer, word for word, as for an id that was never given."""
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs:
        instance = await instance_in(world, ours["ann"], READY)
        deployment = (await ours["ann"].post("/deployments", json={"model": MODEL})).json()["deployment_id"]
        await world.visible()
        for method, path, id_ in (
            ("GET", "/instances/{}", instance),
            ("GET", "/instances/{}/metrics", instance),
            ("DELETE", "/instances/{}", instance),
            ("PUT", "/instances/{}/archive", instance),
            ("POST", "/instances/{}/reinstall", instance),
            ("GET", "/deployments/{}", deployment),
            ("DELETE", "/deployments/{}", deployment),
            ("GET", "/events/instance/{}", instance),
        ):
            replies = [await theirs["eve"].request(method, path.format(one)) for one in (id_, uuid7(), "nonsense")]
            assert {reply.status_code for reply in replies} == {404}, path
            assert len({reply.text for reply in replies}) == 1, path
            assert (
                await ours["ann"].request("GET", path.format(id_).removesuffix("/archive").removesuffix("/reinstall"))
            ).status_code == 200
        assert (await theirs["eve"].get("/instances")).json() == []
        assert (await theirs["eve"].get("/deployments")).json() == []


async def test_the_catalogue_lists_models_and_what_can_be_rented(world: World) -> None:
    async with world.signed_in() as client:
        models = (await client.get("/models")).json()
        assert MODEL in [model["code"] for model in models]
        one = (await client.get(f"/models/{model_id_of(MODEL)}")).json()
        assert one in models
        assert refusal(await client.get(f"/models/{uuid7()}")) == (404, "model_not_found")
        assert [p["code"] for p in (await client.get("/providers")).json() if p["is_active"]] == [
            "local",
            "scaleway",
            "aws",
            "bare_metal",
        ]
        zones = (await client.get("/zones")).json()
        assert {zone["code"] for zone in zones} >= {"local", "fr-par-2"}
        assert [
            t["cost_per_hour"] for t in (await client.get("/instance_types")).json() if t["code"] == "L4-1-24G"
        ] == [0.75]
