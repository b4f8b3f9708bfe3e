"""Chats through a tunnel: a real agent with its simulated engine, the relay, and the gateway's own calls."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from agent.measure import engine_load
from agent.protocol import TUNNEL_PATH, TUNNEL_PROTOCOL
from agent.tunnel import PARKED
from tests.agent.stand_in import INSTANCE, MODEL, WORKER_TOKEN, AgentProcess, StandIn, get, stand_in
from tests.gateway.told import Told, over
from tests.infra.smtp_server import own_certificate
from tests.infra.tunnel.tunnelled import (
    Relayed,
    RelayProcess,
    ask,
    calling,
    content_of,
    edge,
    relayed,
    tunnelled,
    until,
)

LONG = {"stream": True, "ignore_eos": True, "max_tokens": 4000}


@pytest.fixture
async def plane() -> AsyncIterator[StandIn]:
    async with stand_in() as control_plane:
        yield control_plane


@pytest.fixture
async def relay(plane: StandIn) -> AsyncIterator[Relayed]:
    async with relayed(plane) as listening:
        yield listening


@pytest.fixture
async def agent(plane: StandIn, relay: Relayed, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    async with tunnelled(plane, relay.url, tmp_path / "state") as started:
        await plane.until_beat(lambda beat: beat.status == "ready")
        await until(lambda: relay.lot.count >= PARKED, "tunnels are parked")
        yield started


async def running(agent: AgentProcess) -> int:
    """Requests in the engine, as it says itself."""
    _, page = await get(f"{agent.engine_url}/metrics")
    return engine_load(page).requests_running


async def until_idle(agent: AgentProcess) -> None:
    async with asyncio.timeout(10):
        while await running(agent):  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.02)


async def test_an_agent_that_uses_tunnels_says_so_when_it_registers(plane: StandIn, agent: AgentProcess) -> None:
    assert plane.registrations[0].tunnel


async def test_a_streamed_chat_goes_through(relay: Relayed, agent: AgentProcess) -> None:
    async with calling(relay.engine_url) as begin:
        told = await ask(begin, stream=True)
    assert (told.statuses, told.ended) == ([200], True)
    assert content_of(told.data) == "one two three four"


async def test_a_stream_arrives_piece_by_piece_and_not_at_its_end(relay: Relayed, agent: AgentProcess) -> None:
    async with calling(relay.engine_url) as begin:
        told = await ask(begin, stream=True, ignore_eos=True, max_tokens=200)
    assert len(told.pieces) > 20


async def test_many_requests_at_once_and_after_one_another_keep_apart(relay: Relayed, agent: AgentProcess) -> None:
    async with calling(relay.engine_url) as begin:
        for _ in range(3):
            words = [f"word {number} of many" for number in range(40)]
            asked = [begin(stream=True, messages=[{"role": "user", "content": said}]) for said in words]
            assert [content_of((await over(told)).data) for told in asked] == words
    await until(lambda: relay.lot.count <= 40 + PARKED, "what is not needed is closed")


async def test_a_tunnel_is_parked_again_after_a_request(relay: Relayed, agent: AgentProcess) -> None:
    tunnels = set(relay.lot._all[INSTANCE])
    async with calling(relay.engine_url) as begin:
        for _ in range(20):
            await ask(begin)
    assert tunnels & relay.lot._all[INSTANCE], "no connection per request over the long way"


async def test_a_long_prompt_and_a_long_answer_come_whole(relay: Relayed, agent: AgentProcess) -> None:
    words = " ".join(f"{number:06d}" for number in range(60_000))
    async with aiohttp.ClientSession() as http:
        body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 60_000}
        answers = []
        for url in (relay.engine_url, agent.engine_url):
            async with http.post(f"{url}/tokenize", json={"model": MODEL, "prompt": words}) as reply:
                assert reply.status == 200, body
                answers.append(await reply.read())
    assert len(answers[0]) > 200_000
    assert answers[0] == answers[1]


async def test_the_agents_own_pages_are_reached_too(relay: Relayed, agent: AgentProcess) -> None:
    assert await get(f"{relay.agent_url}/healthz") == (200, "ok\n")
    status, page = await get(f"{relay.agent_url}/logs?tail=1000")
    assert status == 200
    assert json.loads(page)["total_events"] > 0
    assert (await get(f"{relay.agent_url}/readyz"))[0] == 200


async def test_a_kept_alive_connection_cannot_reach_another_target(relay: Relayed, agent: AgentProcess) -> None:
    """Two requests in one breath: the second is answered by nobody, whatever it names."""
    host, port = relay.inner_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    first = f"GET /t/{INSTANCE}/agent/healthz HTTP/1.1\r\nhost: r\r\nconnection: keep-alive\r\n\r\n"
    second = "GET /t/another/engine/v1/models HTTP/1.1\r\nhost: r\r\n\r\n"
    writer.write((first + second).encode())
    said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in said.lower()


async def test_a_client_who_leaves_stops_the_engine(relay: Relayed, agent: AgentProcess) -> None:
    async with calling(relay.engine_url) as begin:
        told = begin(**LONG)
        await until(lambda: len(told.pieces) > 3, "it streams")
        assert await running(agent) == 1
        told.call.leave()  # type: ignore[attr-defined]
        await until_idle(agent)


async def test_a_client_who_reads_slowly_holds_the_tunnel_back_and_loses_nothing(
    relay: Relayed, agent: AgentProcess
) -> None:
    async with calling(relay.engine_url) as begin:
        paused = asyncio.Event()

        def pause(told: Told) -> None:
            if len(told.pieces) == 3 and not paused.is_set():
                paused.set()
                told.call.pause()  # type: ignore[attr-defined]

        told = begin(pause, stream=True, ignore_eos=True, max_tokens=500)
        await asyncio.wait_for(paused.wait(), 10)
        seen = len(told.pieces)
        assert (await ask(begin)).statuses == [200], "others are served meanwhile"
        assert len(told.pieces) == seen
        told.call.resume()  # type: ignore[attr-defined]
        assert (await over(told)).ended
    assert told.data.count(b"data: {") >= 500


async def test_an_engine_that_does_not_listen_is_a_503(relay: Relayed, plane: StandIn, tmp_path: Path) -> None:
    async with tunnelled(plane, relay.url, tmp_path / "state", VLLM_BASE_URL="http://127.0.0.1:9"):
        await until(lambda: relay.lot.count >= PARKED, "tunnels are parked")
        status, said = await get(f"{relay.engine_url}/v1/models")
        assert status == 503
        assert "does not answer its agent" in said
        assert (await get(f"{relay.agent_url}/healthz"))[0] == 200


async def test_an_instance_without_a_tunnel_is_a_503_at_once(relay: Relayed) -> None:
    async with calling(relay.engine_url) as begin:
        told = await asyncio.wait_for(ask(begin), 1.0)
    assert told.statuses == [503]
    assert b"no tunnel is parked" in told.data


async def test_an_engine_that_dies_in_mid_stream_breaks_it_off(relay: Relayed, agent: AgentProcess) -> None:
    async with calling(relay.engine_url) as begin:
        told = begin(**LONG)
        await until(lambda: len(told.pieces) > 3, "it streams")
        await agent.end(signal.SIGKILL)
        await over(told)
    assert told.kind == "dropped"
    assert not told.ended
    await until(lambda: relay.lot.count == 0, "its tunnels are gone")


async def test_through_an_edge_with_tls_a_chat_and_its_leaving_work_as_well(
    plane: StandIn, relay: Relayed, tmp_path: Path
) -> None:
    """TLS has no half-close and the edge passes none on: the tunnel's own frames do."""
    tls, certificate = own_certificate(tmp_path)
    async with edge(relay.url, tls) as url:
        folder = tmp_path / "state"
        async with tunnelled(plane, url, folder, SSL_CERT_FILE=str(certificate)) as agent:
            await plane.until_beat(lambda beat: beat.status == "ready")
            await until(lambda: relay.lot.count >= PARKED, "tunnels are parked")
            async with calling(relay.engine_url) as begin:
                assert content_of((await ask(begin, stream=True)).data) == "one two three four"
                told = begin(**LONG)
                await until(lambda: len(told.pieces) > 3, "it streams")
                told.call.count_out()  # type: ignore[attr-defined]
                await until_idle(agent)
                assert content_of((await ask(begin, stream=True)).data) == "one two three four"


async def test_a_relay_whose_certificate_is_not_trusted_gets_no_token(
    plane: StandIn, relay: Relayed, tmp_path: Path
) -> None:
    """The control of the above."""
    tls, _ = own_certificate(tmp_path)
    async with edge(relay.url, tls) as url, tunnelled(plane, url, tmp_path / "state") as agent:
        await plane.until_beat(lambda beat: beat.status == "ready")
        async with asyncio.timeout(10):
            while "tunnel_failed" not in (await get(f"{agent.url}/logs"))[1]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert relay.lot.count == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 426),
        ({"Upgrade": TUNNEL_PROTOCOL}, 401),
        ({"Upgrade": TUNNEL_PROTOCOL, "x-inventiv-instance": INSTANCE, "Authorization": "Bearer wk_wrong"}, 401),
        ({"Upgrade": TUNNEL_PROTOCOL, "x-inventiv-instance": INSTANCE, "Authorization": f"Bearer {WORKER_TOKEN}"}, 101),
    ],
)
async def test_only_the_instances_own_token_parks_a_tunnel(relay: Relayed, fields: dict[str, str], status: int) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"GET {TUNNEL_PATH} HTTP/1.1\r\nhost: r\r\n{lines}\r\n".encode())
    said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert int(said.split()[1]) == status
    assert relay.lot.count == (status == 101)
    writer.close()
    await until(lambda: relay.lot.count == 0, "it is forgotten when it closes")


async def test_a_relay_that_was_killed_and_comes_back_is_found_again(plane: StandIn, tmp_path: Path) -> None:
    async with RelayProcess(plane) as relay, tunnelled(plane, relay.url, tmp_path / "state"):
        await plane.until_beat(lambda beat: beat.status == "ready")
        async with calling(relay.engine_url) as begin:
            assert content_of((await _served(begin)).data) == "one two three four"
            streaming = begin(**LONG)
            await until(lambda: len(streaming.pieces) > 3, "it streams")
            await relay.end(signal.SIGKILL)
            assert (await over(streaming)).kind == "dropped"
            assert (await ask(begin)).kind == "unreachable"
            await relay.start()
            assert content_of((await _served(begin)).data) == "one two three four"
        assert await relay.end(signal.SIGTERM) == 0


async def _served(begin: Callable[..., Told]) -> Told:
    """The first answer with 200, once the agent has parked its tunnels."""
    async with asyncio.timeout(20):
        while True:
            told = await ask(begin, stream=True)
            if told.statuses == [200]:
                return told
            await asyncio.sleep(0.02)
