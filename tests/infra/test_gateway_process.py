"""The role `gateway` as a real process, with a real nats-server and the simulated engine, while things die."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.embedded.nats import EmbeddedNats
from tests.infra.gateway_process import BOUND_S, Process, gateway_process, simulated_engine, stored_usage


@pytest.fixture
async def gateway(nats_server: EmbeddedNats, tmp_path: Path) -> AsyncIterator[Process]:
    async with simulated_engine() as engine_url, gateway_process(nats_server, engine_url, tmp_path) as process:
        yield process


async def test_a_stream_of_the_simulated_engine_is_answered_and_counted(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    async with gateway.ask(stream=True) as reply:
        events = [line[6:] async for line in reply.content if line.startswith(b"data: ")]
        request_id = reply.headers["x-request-id"]
    chunks = [json.loads(event) for event in events[:-1]]
    assert events[-1].strip() == b"[DONE]"
    assert all(chunk["choices"] for chunk in chunks)
    assert "one two three" in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    record = (await stored_usage(nats_server, request_id))[0]
    assert (record.outcome, record.counted_by, record.instance_id) == ("completed", "engine", "i1")
    assert min(record.prompt_tokens, record.completion_tokens) > 0


async def test_it_goes_on_without_nats_and_delivers_usage_afterwards(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    await nats_server.kill()
    without = [await gateway.completed() for _ in range(3)]
    await gateway.until_ready(log_connected=False)
    await nats_server.start()
    records = await stored_usage(nats_server, *without)
    assert sorted(record.request_id for record in records) == sorted(without)


async def test_behind_a_server_that_hangs_it_lets_nobody_in_beyond_its_bound(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    await gateway.end(signal.SIGTERM)
    await gateway.start(INVENTIV_KEY_TRUST_S="5")
    await gateway.until_ready(log_connected=True)
    assert nats_server.pid is not None
    os.kill(nats_server.pid, signal.SIGSTOP)  # its connections stay open, and nobody answers on them
    try:
        await gateway.completed()
        told = await gateway.until_ready(status=503, trusted=False)
        assert told["age_s"] >= 5
        async with gateway.ask() as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (503, "key_table_too_old")
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    await gateway.until_ready(trusted=True)
    await gateway.completed()


async def test_killed_without_nats_it_starts_from_its_snapshot_and_loses_no_usage(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    async with asyncio.timeout(BOUND_S):
        while not (tmp_path / "gateway" / "routing.json").exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    await nats_server.kill()
    before = await gateway.completed()
    await gateway.end(signal.SIGKILL)
    await gateway.start()
    assert (await gateway.until_ready())["source"] == "disk"
    after = await gateway.completed()
    await nats_server.start()
    records = await stored_usage(nats_server, before, after)
    assert sorted(record.request_id for record in records) == sorted([before, after])


async def test_it_ends_cleanly_and_finishes_a_running_stream_first(gateway: Process) -> None:
    async with gateway.ask(stream=True) as reply:
        first = await reply.content.readany()
        ending = asyncio.ensure_future(gateway.end(signal.SIGTERM))
        rest = await reply.content.read()
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    assert await ending == 0


async def test_it_refuses_a_server_without_the_streams(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    process = Process(tmp_path, bare_nats)
    await process.start()
    assert process.child is not None
    async with asyncio.timeout(BOUND_S):
        assert await process.child.wait() == os.EX_CONFIG


async def test_two_gateways_on_one_folder_serve_side_by_side_at_their_own_addresses(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    second = Process(tmp_path, nats_server)
    await second.start()
    await second.until_ready()
    both = [await gateway.completed(), await second.completed()]
    assert await second.end(signal.SIGTERM) == 0
    both.append(await gateway.completed())
    assert sorted(record.request_id for record in await stored_usage(nats_server, *both)) == sorted(both)


LONG = " ".join(f"word{n}" for n in range(200))


async def test_a_stream_that_runs_when_the_gateway_is_killed_is_booked_with_what_had_come(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    async with gateway.ask(stream=True, messages=[{"role": "user", "content": LONG}]) as reply:
        request_id, seen = reply.headers["x-request-id"], 0
        while seen < 20:
            seen += (await reply.content.readuntil(b"\n\n")).count(b'"content"')
        await gateway.end(signal.SIGKILL)
    await gateway.start()
    (record,) = await stored_usage(nats_server, request_id)
    assert (record.outcome, record.request_id, record.instance_id) == ("gateway_died", request_id, "i1")
    assert seen - 1 <= record.completion_tokens < seen + 64


async def test_what_a_killed_gateway_left_is_booked_by_another_that_lives(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    other = Process(tmp_path, nats_server)
    await other.start()
    await other.until_ready()
    async with other.ask(stream=True, messages=[{"role": "user", "content": LONG}]) as reply:
        await reply.content.readany()
        request_id = reply.headers["x-request-id"]
        await other.end(signal.SIGKILL)
    (record,) = await stored_usage(nats_server, request_id)
    assert (record.outcome, record.request_id) == ("gateway_died", request_id)
    await gateway.completed()
