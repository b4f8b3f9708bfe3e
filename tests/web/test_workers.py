"""What worker agents are told: a token once, their own instance alone, and what is wanted of them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from uuid_utils import uuid7

from agent.protocol import (
    HEARTBEAT_PATH,
    REGISTER_PATH,
    AgentInfo,
    EngineLoad,
    GpuSample,
    Heartbeat,
    HeartbeatReply,
    Metadata,
    RegisterReply,
    RegisterRequest,
)
from domain.ids import OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import RecordServerGone, RequestReinstall, RequestTermination, StopInstance
from tests.web.test_deployments import READY
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORGANIZATION = OrganizationId("0192aaaa-0000-7000-8000-000000000001")
ADDRESSED = READY[:5]
NOT_ADDRESSED = READY[:4]
INFO = AgentInfo(version="1.0.0", build_date="2026-11-21", checksum="a" * 64)


@dataclass(frozen=True)
class Host:
    """A machine with an agent on it."""

    world: World
    client: httpx.AsyncClient
    instance_id: str

    @property
    def bootstrap_token(self) -> str:
        return self.world.worker_tokens.bootstrap_token(self.instance_id, 1)

    async def register(self, token: str | None = None, **other: Any) -> httpx.Response:
        report = RegisterRequest(
            **{
                "instance_id": self.instance_id,
                "worker_id": "w-1",
                "model_id": "mock-echo-model",
                "vllm_port": 8000,
                "health_port": 8080,
                "ip_address": "127.8.0.1",
                "base_url": "http://127.8.0.1:8000",
                "agent_url": "http://127.8.0.1:8080",
                "agent_info": INFO,
                **other,
            }
        )
        return await self._post(REGISTER_PATH, report, self.bootstrap_token if token is None else token)

    async def heartbeat(self, token: str, **other: Any) -> httpx.Response:
        report = Heartbeat(
            **{
                "instance_id": self.instance_id,
                "worker_id": "w-1",
                "status": "starting",
                "model_id": "mock-echo-model",
                "engine_up": False,
                "model_loaded": False,
                "warmed_up": False,
                "queue_depth": 0,
                "ip_address": "127.8.0.1",
                "agent_info": INFO,
                **other,
            }
        )
        return await self._post(HEARTBEAT_PATH, report, token)

    async def token(self) -> str:
        reply = await self.register()
        assert reply.status_code == 200, reply.text
        return msgspec.json.decode(reply.content, type=RegisterReply).worker_token

    async def tell(self, command: Any) -> None:
        await self.world.dispatch(INSTANCE, ORGANIZATION, self.instance_id, command)

    async def state(self) -> Any:
        return (await self.world.dispatcher.load(INSTANCE, ORGANIZATION, self.instance_id)).state

    async def _post(self, path: str, report: msgspec.Struct, token: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self.client.post(path, content=msgspec.json.encode(report), headers=headers)


async def a_host(world: World, commands: tuple[Any, ...] = ADDRESSED) -> Host:
    host = Host(world, world.client(), str(uuid7()))
    for command in commands:
        await host.tell(command)
    await world.visible()
    return host


READY_NOW = {"status": "ready", "engine_up": True, "model_loaded": True, "warmed_up": True}


async def test_a_worker_registers_and_becomes_ready(world: World) -> None:
    host = await a_host(world)
    registered = await host.register()
    reply = msgspec.json.decode(registered.content, type=RegisterReply)
    assert registered.status_code == 200
    assert reply.worker_token.startswith("wk_")
    assert reply.worker_token_prefix == reply.worker_token[:12]
    assert reply.heartbeat_interval_s == world.services.settings.heartbeat_interval_s
    beaten = await host.heartbeat(reply.worker_token, **READY_NOW)
    assert msgspec.json.decode(beaten.content, type=HeartbeatReply).desired == "run"
    state = await host.state()
    assert (state.status, state.engine_url, state.agent_sha256) == ("ready", "http://127.8.0.1:8000", "a" * 64)


async def test_what_an_engine_answers_is_kept_in_our_own_words(world: World) -> None:
    host = await a_host(world)
    paths = ("/v1/chat/completions", "/v1/responses", "/invocations", "/v1/audio/translations", "../x" * 1000)
    await host.heartbeat(await host.token(), **READY_NOW, engine_paths=paths, context_tokens=4096)
    state = await host.state()
    assert (state.endpoints, state.context_tokens) == (("chat", "responses", "audio"), 4096)


async def test_the_log_never_holds_a_workers_token(world: World) -> None:
    host = await a_host(world)
    token = await host.token()
    await host.heartbeat(token)
    written = world.everything_written()
    assert token.encode() not in written
    assert token[12:].encode() not in written
    assert host.bootstrap_token.encode() not in written


async def test_a_wrong_bootstrap_token_is_refused_for_known_and_unknown_instances_alike(world: World) -> None:
    host, neighbour = await a_host(world), await a_host(world)
    absent = Host(world, host.client, str(uuid7()))
    replies = [
        await host.register(""),
        await host.register("wb_1_" + "0" * 64),
        await host.register(neighbour.bootstrap_token),
        await host.register(world.worker_tokens.bootstrap_token(host.instance_id, 2)),
        await absent.register("wb_1_" + "0" * 64),
    ]
    assert {refusal(reply) for reply in replies} == {(401, "unauthorized")}
    assert len({reply.text for reply in replies}) == 1


async def test_an_instance_that_the_read_models_do_not_know_is_404_for_its_own_token(world: World) -> None:
    absent = Host(world, world.client(), str(uuid7()))
    assert refusal(await absent.register()) == (404, "instance_not_found")
    assert refusal(await absent.heartbeat("wk_x")) == (404, "instance_not_found")


async def test_registering_again_is_allowed_until_the_token_was_used(world: World) -> None:
    host = await a_host(world)
    lost, kept = await host.token(), await host.token()
    assert lost != kept
    assert refusal(await host.heartbeat(lost)) == (401, "unauthorized")
    assert (await host.heartbeat(kept)).status_code == 200
    assert refusal(await host.register()) == (409, "token_already_exists")


async def test_a_worker_speaks_for_its_own_instance_only(world: World) -> None:
    host, neighbour = await a_host(world), await a_host(world)
    token, other = await host.token(), await neighbour.token()
    assert refusal(await neighbour.heartbeat(token)) == (401, "unauthorized")
    assert (await neighbour.heartbeat(other)).status_code == 200
    assert refusal(await host.heartbeat(host.bootstrap_token)) == (401, "unauthorized")


async def test_the_gateway_is_never_sent_to_a_foreign_address(world: World) -> None:
    host = await a_host(world)
    for url in (
        "http://127.8.0.2:8000",
        "http://169.254.169.254:80",
        "file://127.8.0.1:1/etc/passwd",
        "http://127.8.0.1:8000@evil.example:80",
        "http://evil@127.8.0.1:8000",
        "http://127.8.0.1",
        "http://127.8.0.1:99999",
        "http://127.8.0.1:8000/path",
        "http://[::1",
        "",
    ):
        assert refusal(await host.register(base_url=url)) == (400, "foreign_address"), url
        assert refusal(await host.register(agent_url=url)) == (400, "foreign_address"), url
    assert (await host.state()).worker_id is None


async def test_a_worker_waits_until_the_provider_has_named_its_address(world: World) -> None:
    host = await a_host(world, NOT_ADDRESSED)
    assert refusal(await host.register()) == (409, "instance_not_addressed")
    await host.tell(READY[4])
    assert (await host.register()).status_code == 200


async def test_what_is_wanted_follows_the_instance(world: World) -> None:
    host = await a_host(world)
    token = await host.token()

    async def desired() -> str:
        reply = await host.heartbeat(token, **READY_NOW, queue_depth=1)
        return msgspec.json.decode(reply.content, type=HeartbeatReply).desired

    assert await desired() == "run"
    await host.tell(StopInstance(reason="test"))
    assert await desired() == "drain"
    await host.tell(RequestTermination(reason="test"))
    assert await desired() == "stop"
    await host.tell(RecordServerGone())
    world.clock.ahead += timedelta(seconds=3)
    await host.tell(RecordServerGone())
    assert refusal(await host.heartbeat(token)) == (410, "instance_gone")
    assert refusal(await host.register()) == (410, "instance_gone")


async def test_a_reinstalled_instance_needs_a_new_registration(world: World) -> None:
    host = await a_host(world)
    token = await host.token()
    await host.heartbeat(token, **READY_NOW)
    await host.tell(RequestReinstall())
    assert refusal(await host.heartbeat(token)) == (401, "unauthorized")
    assert (await host.register()).status_code == 200


async def test_a_heartbeats_figures_are_brought_into_range(world: World) -> None:
    host = await a_host(world)
    token = await host.token()
    gpu = GpuSample(index=0, gpu_utilization=250.0, gpu_mem_used_mb=900.0, gpu_mem_total_mb=800.0, gpu_temp_c=-400.0)
    full = EngineLoad(kv_cache_usage=1.7)
    metadata = Metadata(gpu_mem_total_mb=800.0, gpu_power_w=-5.0, gpus=(gpu,) * 100, vllm=full)
    reply = await host.heartbeat(token, gpu_utilization=-3.0, gpu_mem_used_mb=900.0, queue_depth=-7, metadata=metadata)
    assert reply.status_code == 200
    seen = world.telemetry.seen[-1]
    assert (seen.instance_id, seen.organization_id) == (host.instance_id, ORGANIZATION)
    assert (seen.gpu_utilization, seen.queue_depth, seen.kv_cache_usage) == (0.0, 0, 1.0)
    assert (seen.samples["gpu_mem_used_mb"], seen.samples["gpu_power_w"]) == (800.0, 0)
    assert len(seen.samples["gpus"]) == 64
    first = seen.samples["gpus"][0]
    assert (first["gpu_utilization"], first["gpu_mem_used_mb"], first["gpu_temp_c"]) == (100.0, 800.0, -50.0)


async def test_a_heartbeat_counts_although_telemetry_is_away(world: World) -> None:
    host = await a_host(world)
    token = await host.token()
    world.telemetry.away = True
    reply = await host.heartbeat(token, **READY_NOW)
    world.telemetry.away = False
    assert reply.status_code == 200
    assert (await host.state()).status == "ready"


async def test_a_heartbeat_without_news_writes_nothing(world: World) -> None:
    host = await a_host(world)
    token = await host.token()
    await host.heartbeat(token, **READY_NOW)
    head = await world.log.head()
    for _ in range(3):
        assert (await host.heartbeat(token, **READY_NOW)).status_code == 200
    assert await world.log.head() == head


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'{"instance_id": 7}', b"\xff" * 10])
async def test_what_is_no_report_is_a_400(world: World, body: bytes) -> None:
    async with world.client() as client:
        for path in (REGISTER_PATH, HEARTBEAT_PATH):
            assert refusal(await client.post(path, content=body)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "wrong", [{"worker_id": "a b"}, {"worker_id": ""}, {"instance_id": "x.>"}, {"agent_info": AgentInfo("1", "", "zz")}]
)
async def test_names_out_of_form_are_refused(world: World, wrong: dict[str, Any]) -> None:
    host = await a_host(world)
    assert refusal(await host.register(**wrong)) == (400, "invalid_request")


async def test_a_report_over_a_mebibyte_is_refused(world: World) -> None:
    async def endless() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    async with world.client() as client:
        declared = await client.post(HEARTBEAT_PATH, content=b" " * 1_100_000)
        undeclared = await client.post(HEARTBEAT_PATH, content=endless())
    assert refusal(declared) == refusal(undeclared) == (413, "body_too_large")
