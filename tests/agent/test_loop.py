"""The agent as a whole: a real process, its simulated engine, and a stand-in for the control plane."""

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from agent.protocol import Heartbeat
from tests.agent.stand_in import (
    BOOTSTRAP_TOKEN,
    INSTANCE,
    MODEL,
    WAIT_S,
    WORKER_TOKEN,
    AgentProcess,
    StandIn,
    eventually,
    get,
    stand_in,
)

SLOW_ENGINE = '{"startup_s": 0, "first_token_ms": 1, "tokens_per_s": 20}'


@pytest.fixture
async def plane() -> AsyncIterator[StandIn]:
    async with stand_in() as control_plane:
        yield control_plane


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def is_ready(beat: Heartbeat) -> bool:
    return beat.status == "ready"


def is_draining(beat: Heartbeat) -> bool:
    return beat.status == "draining"


def engine_pid(state: Path) -> int:
    return int(json.loads((state / "engine.pid").read_bytes())["pid"])


def gone(pid: int) -> bool:
    """A zombie is gone: only its parent has not looked yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def event_types(agent: AgentProcess) -> list[str]:
    _, page = await get(f"{agent.url}/logs")
    return [event["event_type"] for event in json.loads(page)["events"]]


async def stream(agent: AgentProcess, tokens: int) -> bytes:
    question = {"model": MODEL, "stream": True, "ignore_eos": True, "max_tokens": tokens}
    messages = [{"role": "user", "content": "go on"}]
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{agent.engine_url}/v1/chat/completions", json={**question, "messages": messages}) as reply,
    ):
        return await reply.read()


async def test_a_worker_registers_and_reports_each_milestone_until_it_is_ready(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state) as agent:
        ready = await plane.until_beat(is_ready)
        assert await agent.end() == 0
    [registration] = plane.registrations
    assert registration.instance_id == INSTANCE
    assert registration.base_url == agent.engine_url
    assert registration.agent_url == agent.url
    progress = [(beat.engine_up, beat.model_loaded, beat.warmed_up) for beat in plane.beats]
    assert progress == sorted(progress), "milestones only ever come, while the engine lives"
    assert ready.worker_id == registration.worker_id
    assert len(ready.metadata.gpus) == 2
    assert {"/v1/chat/completions", "/v1/messages"} <= set(ready.engine_paths)
    assert ready.context_tokens == 131_072
    assert plane.tokens[0] == f"Bearer {BOOTSTRAP_TOKEN}"
    assert set(plane.tokens[1:]) == {f"Bearer {WORKER_TOKEN}"}


async def test_the_token_is_on_disk_before_the_first_heartbeat_and_for_its_owner_alone(
    plane: StandIn, state: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def look() -> None:
        token_file = state / "worker-token.json"
        seen.append((json.loads(token_file.read_bytes())["worker_token"], stat.S_IMODE(token_file.stat().st_mode)))

    plane.on_beat = look
    async with AgentProcess(plane.url, state):
        await plane.until(lambda: bool(plane.beats))
    assert seen[0] == (WORKER_TOKEN, 0o600)


async def test_a_killed_agent_takes_its_engine_with_it_and_comes_back_without_registering_again(
    plane: StandIn, state: Path
) -> None:
    agent = AgentProcess(plane.url, state)
    async with agent:
        await plane.until_beat(is_ready)
        orphan = engine_pid(state)
        await agent.end(signal.SIGKILL)
        await eventually(lambda: gone(orphan))
        before = len(plane.beats)
        await agent.start()
        back = await plane.until_beat(is_ready, after=before)
        assert await agent.end() == 0
    assert len(plane.registrations) == 1
    assert back.worker_id == plane.registrations[0].worker_id, "the id that it chose is kept"


async def test_the_stored_token_is_enough_when_the_bootstrap_token_is_no_longer_given(
    plane: StandIn, state: Path
) -> None:
    async with AgentProcess(plane.url, state) as agent:
        await plane.until_beat(is_ready)
        await agent.end()
    before = len(plane.beats)
    async with AgentProcess(plane.url, state, WORKER_AUTH_TOKEN=""):
        await plane.until_beat(is_ready, after=before)
    assert len(plane.registrations) == 1


async def test_a_worker_whose_instance_is_gone_ends_itself(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state) as agent:
        await plane.until_beat(is_ready)
        engine = engine_pid(state)
        plane.refusals = [(410, "instance_gone")]
        assert await asyncio.wait_for(agent.process.wait(), WAIT_S) == 0
    assert gone(engine)


async def test_a_worker_told_to_drain_says_so_and_goes_on_serving(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state) as agent:
        await plane.until_beat(is_ready)
        plane.desired = "drain"
        draining = await plane.until_beat(is_draining)
        plane.desired = "run"
        before = len(plane.beats)
        await plane.until(lambda: len(plane.beats) > before + 1)
        assert b"[DONE]" in await stream(agent, 3)
    assert draining.warmed_up
    assert is_draining(plane.beats[-1]), "draining is one-way"


async def test_a_worker_told_to_stop_finishes_its_stream_first(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state, WORKER_ENGINE_ARGS=SLOW_ENGINE) as agent:
        await plane.until_beat(is_ready)
        running = asyncio.create_task(stream(agent, 15))
        await plane.until_beat(lambda beat: beat.queue_depth == 1)
        plane.desired = "stop"
        assert b"[DONE]" in await running
        assert await asyncio.wait_for(agent.process.wait(), WAIT_S) == 0
    assert is_draining(plane.beats[-1])


async def test_sigterm_waits_no_longer_than_its_bound(plane: StandIn, state: Path) -> None:
    variables = {"WORKER_ENGINE_ARGS": SLOW_ENGINE, "WORKER_DRAIN_TIMEOUT_S": "0.3"}
    async with AgentProcess(plane.url, state, **variables) as agent:
        await plane.until_beat(is_ready)
        running = asyncio.create_task(stream(agent, 10_000))
        await plane.until_beat(lambda beat: beat.queue_depth == 1)
        assert await agent.end() == 0
        with pytest.raises(aiohttp.ClientPayloadError):
            await running
    assert is_draining(plane.beats[-1])


async def test_a_second_sigterm_ends_everything_at_once(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state, WORKER_ENGINE_ARGS=SLOW_ENGINE) as agent:
        await plane.until_beat(is_ready)
        engine = engine_pid(state)
        running = asyncio.create_task(stream(agent, 10_000))
        await plane.until_beat(lambda beat: beat.queue_depth == 1)
        agent.process.send_signal(signal.SIGTERM)
        await plane.until_beat(is_draining)
        assert await agent.end() == 128 + signal.SIGTERM
        await asyncio.gather(running, return_exceptions=True)
    await eventually(lambda: gone(engine))


async def test_an_engine_that_dies_is_reported_and_started_again(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state) as agent:
        await plane.until_beat(is_ready)
        before = len(plane.beats)
        os.kill(engine_pid(state), signal.SIGKILL)
        lost = await plane.until_beat(lambda beat: beat.status == "starting", after=before)
        assert (await get(f"{agent.url}/readyz"))[0] == 503
        await plane.until_beat(is_ready, after=plane.beats.index(lost) + 1)
        assert "engine_exited" in await event_types(agent)
    assert (lost.engine_up, lost.warmed_up) == (False, False)


async def test_only_one_agent_runs_on_a_state_folder(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state) as first:
        await plane.until_beat(is_ready)
        async with AgentProcess(plane.url, state) as second:
            assert await asyncio.wait_for(second.process.wait(), WAIT_S) == 2
        assert (await get(f"{first.url}/readyz"))[0] == 200


async def test_a_worker_without_any_token_says_so_and_ends(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state, WORKER_AUTH_TOKEN="") as agent:
        assert await asyncio.wait_for(agent.process.wait(), WAIT_S) == 2
    assert not plane.tokens


async def test_without_a_warm_up_the_listed_model_is_enough(plane: StandIn, state: Path) -> None:
    async with AgentProcess(plane.url, state, WORKER_VLLM_WARMUP="off") as agent:
        await plane.until_beat(is_ready)
        _, page = await get(f"{agent.engine_url}/metrics")
    assert f'vllm:generation_tokens_total{{engine="0",model_name="{MODEL}"}} 0.0' in page
