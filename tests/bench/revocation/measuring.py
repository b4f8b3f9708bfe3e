"""How long a revoked API key goes on working: from the REST API's 204 to the first 401 of the gateway, under load.

    for each key:   asked again and again ──> 200 200 200 ...  DELETE /api_keys/{id} ──> 204 ... 200 200 ──> 401
                                                                                          └── measured ──┘

One key after the other, on real processes, while other clients stream answers through the same gateway. The surprising
part is the control: a second gateway, whose line to the log is silent, must keep the revoked key alive for longer than
the goal, or the measurement could not fail; and it must refuse everybody once its table is older than its bound.
"""

import asyncio
import os
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from infra.processes.running import read_platform
from tests.conftest import some_port
from tests.faults import FaultProxy, fault_proxy
from tests.journeys.platform import HTTP, INVENTIV, MODEL, ROOT, Platform, running, until

GOAL_S = 1.0
"""Issue 4: revocation p99, measured with the gateway under load."""
KEYS, KEYS_QUICK = 200, 25
STREAMS = 16
"""Clients that stream answers meanwhile; with two cores, enough to keep the gateway's loop busy."""
POLL_PAUSE_S = 0.002
DEAD_WITHIN_S = 30.0
"""A key that lives longer ends the measurement as failed."""
CONTROL_TRUST_S = 5
CONTROL_BOUND_S = 30.0
CHAT = "/v1/chat/completions"
_ASK = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "one two three four five six"}]}


@dataclass(frozen=True)
class Life:
    """How long a key was let in after its revocation was answered (0: no longer), and after it was asked for."""

    after_reply_s: float
    after_request_s: float


@dataclass
class Load:
    """What the clients beside the measurement got."""

    answered: int = 0
    failed: int = 0


async def measure(quick: bool) -> dict[str, float]:
    """The figures; see `figures`, and `control` for the second gateway's.

    Raises:
        AssertionError: a key outlived DEAD_WITHIN_S, the load was not answered, or the control did not bite.
    """
    with tempfile.TemporaryDirectory(prefix="inventiv-revocation-") as folder, running(Path(folder)) as platform:
        platform.json("deploy", MODEL)
        until(lambda: MODEL in platform.gateway("GET", "/v1/models", key=platform.key).text, "the model is live")
        async with aiohttp.ClientSession() as client, under_load(platform, client) as load:
            began_s = time.perf_counter()
            lives = [await revoked(platform, client) for _ in range(KEYS_QUICK if quick else KEYS)]
            measured_s = time.perf_counter() - began_s
        assert load.answered, "nothing was streamed while keys were revoked"
        assert not load.failed, f"{load.failed} streams failed while keys were revoked"
        return {**figures(lives), "load_requests_per_s": load.answered / measured_s, **await control(platform)}


def figures(lives: Sequence[Life]) -> dict[str, float]:
    """Nearest-rank percentiles."""
    replied, asked = sorted(life.after_reply_s for life in lives), sorted(life.after_request_s for life in lives)
    last_of_99 = -(-99 * len(lives) // 100) - 1
    return {
        "keys": len(lives),
        "revocation_p50_s": replied[(len(lives) - 1) // 2],
        "revocation_p99_s": replied[last_of_99],
        "revocation_max_s": replied[-1],
        "revocation_from_request_p50_s": asked[(len(lives) - 1) // 2],
        "revocation_from_request_p99_s": asked[last_of_99],
    }


@asynccontextmanager
async def under_load(platform: Platform, client: aiohttp.ClientSession) -> AsyncIterator[Load]:
    """STREAMS clients that ask again as soon as they are answered, with the platform's own key."""
    load, ends = Load(), asyncio.Event()
    clients = [asyncio.create_task(_stream(platform, client, load, ends)) for _ in range(STREAMS)]
    try:
        yield load
    finally:
        ends.set()
        await asyncio.gather(*clients)


async def _stream(platform: Platform, client: aiohttp.ClientSession, load: Load, ends: asyncio.Event) -> None:
    url, headers = f"{platform.card['gateway_url']}{CHAT}", {"Authorization": f"Bearer {platform.key}"}
    while not ends.is_set():
        async with client.post(url, json=_ASK, headers=headers) as reply:
            whole = (await reply.read()).endswith(b"data: [DONE]\n\n")
        load.answered += whole
        load.failed += not whole


async def revoked(platform: Platform, client: aiohttp.ClientSession) -> Life:
    """Makes a key, revokes it, and watches when the gateway lets it in no more."""
    key_id, secret = await asyncio.to_thread(_new_key, platform)
    gateway_url = str(platform.card["gateway_url"])
    await _answers(client, gateway_url, secret, 200)
    dying = asyncio.create_task(_answers(client, gateway_url, secret, 401))
    asked_s = time.perf_counter()
    replied_s = await asyncio.to_thread(_revoke, platform, key_id)
    dead_s = await dying
    return Life(max(0.0, dead_s - replied_s), dead_s - asked_s)


async def _answers(client: aiohttp.ClientSession, gateway_url: str, secret: str, status: int) -> float:
    """When (time.perf_counter) the gateway first answered this key with `status`."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with asyncio.timeout(DEAD_WITHIN_S):
        while True:
            async with client.get(f"{gateway_url}/v1/models", headers=headers) as reply:
                if reply.status == status:
                    return time.perf_counter()
            await asyncio.sleep(POLL_PAUSE_S)


def _new_key(platform: Platform) -> tuple[str, str]:
    reply = platform.rest("POST", "/api_keys", json={"name": "to be revoked"})
    assert reply.status_code == 201, reply.text
    return reply.json()["key"]["id"], reply.json()["api_key"]


def _revoke(platform: Platform, key_id: str) -> float:
    """When (time.perf_counter) the 204 was there."""
    reply = platform.rest("DELETE", f"/api_keys/{key_id}")
    assert reply.status_code == 204, reply.text
    return time.perf_counter()


async def control(platform: Platform) -> dict[str, float]:
    """The same on a gateway whose line to the log has gone silent.

    Returns:
        control_alive_s: how long it still let the revoked key in; more than GOAL_S, or nothing here measures anything.
        cut_off_refused_s: after how long it refused everybody, its bound being CONTROL_TRUST_S.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        url, line = await stack.enter_async_context(_second_gateway(platform))
        key_id, secret = await asyncio.to_thread(_new_key, platform)
        await _answers(client, url, secret, 200)
        line.swallowing = True
        silent_s = time.perf_counter()
        revoked_s = await asyncio.to_thread(_revoke, platform, key_id)
        await _answers(client, str(platform.card["gateway_url"]), secret, 401)
        last_alive_s = refused_s = revoked_s
        headers = {"Authorization": f"Bearer {secret}"}
        async with asyncio.timeout(CONTROL_BOUND_S):
            while refused_s == revoked_s:
                async with client.get(f"{url}/v1/models", headers=headers) as reply:
                    now_s = time.perf_counter()
                    assert reply.status in {200, 503}, await reply.text()
                    last_alive_s, refused_s = (now_s, refused_s) if reply.status == 200 else (last_alive_s, now_s)
                await asyncio.sleep(POLL_PAUSE_S)
        found = {"control_alive_s": last_alive_s - revoked_s, "cut_off_refused_s": refused_s - silent_s}
        assert found["control_alive_s"] > GOAL_S, f"the control did not bite: {found}"
        line.swallowing = False
        line.cut()
        await _answers(client, url, secret, 401)
        return found


@asynccontextmanager
async def _second_gateway(platform: Platform) -> AsyncIterator[tuple[str, FaultProxy]]:
    """Its address, and its line to NATS; on a data folder of its own."""
    up = read_platform(platform.data_dir)
    assert up is not None, "`inventiv up` does not run"
    nats, port = urlsplit(up.nats_url), some_port()
    with tempfile.TemporaryDirectory(prefix="inventiv-second-") as folder:
        async with fault_proxy(int(nats.port or 0)) as line:
            variables = {
                "INVENTIV_DATA_DIR": folder,
                "INVENTIV_NATS_URL": nats._replace(netloc=f"{nats.netloc.rpartition(':')[0]}:{line.port}").geturl(),
                "INVENTIV_NATS_MONITOR_URL": up.nats_monitor_url,
                "INVENTIV_GATEWAY_PORT": str(port),
                "INVENTIV_KEY_TRUST_S": str(CONTROL_TRUST_S),
            }
            environment = {k: v for k, v in os.environ.items() if not k.startswith("INVENTIV_")} | variables
            process = await asyncio.create_subprocess_exec(
                *INVENTIV, "serve", "gateway", env=environment, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL
            )
            url = f"http://127.0.0.1:{port}"
            try:
                await asyncio.to_thread(until, lambda: HTTP.get(f"{url}/readyz").status_code == 200, "a second gateway")
                yield url, line
            finally:
                process.terminate()
                async with asyncio.timeout(CONTROL_BOUND_S):
                    await process.wait()


def as_json(found: dict[str, Any]) -> str:
    return msgspec.json.encode({name: round(value, 4) for name, value in found.items()}).decode()
