"""Behind simulated servers run real agents: started by cloud-init's words, ended with their server, never left over."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from infra.providers.bootstrap.cloud_init import cloud_init
from infra.simulated_clouds.scaleway.resources import Account
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway
from tests.conftest import some_port
from tests.infra.simulated_clouds.processes import agents_below
from tests.infra.simulated_clouds.sdk import Sdk

WAIT_S = 30.0
POLL_S = 0.02
ROOT = Path(__file__).parent.parent.parent.parent


class _ControlPlane(BaseHTTPRequestHandler):
    """Answers 401 to whoever registers, and keeps what was asked."""

    seen: list[tuple[str, str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Authorization"], msgspec.json.decode(body)))
        self.send_response(200 if self.path.endswith("bootstrap") else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def control_plane() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    seen: list[tuple[str, str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (_ControlPlane,), {"seen": seen}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def user_data(control_plane_url: str, **more: str) -> bytes:
    environment = {
        "CONTROL_PLANE_URL": control_plane_url,
        "INSTANCE_ID": "i-1",
        "MODEL_ID": "mock-echo-model",
        "WORKER_AUTH_TOKEN": "wb_secret",
        "WORKER_ENGINE": "vllm",
        **more,
    }
    return cloud_init(environment, agent_url=f"{control_plane_url}/agent.pyz", agent_sha256="0" * 64).encode()


async def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if value := await asyncio.to_thread(found):
            return value
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"not within {WAIT_S} s: {what}")


@pytest.fixture
async def manned(tmp_path: Path) -> AsyncIterator[SimulatedScaleway]:
    async with simulated_scaleway(agents=tmp_path / "machines") as running:
        yield running
    assert agents_below(tmp_path) == []


async def switched_on(manned: SimulatedScaleway, content: bytes) -> Any:
    """A running server with this cloud-init."""
    sdk = Sdk(manned)
    server = await sdk.create()
    await sdk.instance("set_server_user_data", server_id=server.id, key="cloud-init", content=content)
    await sdk.act(server.id, "poweron")
    manned.clock.advance(20)
    return await sdk.server(server.id)


def engine_answers(address: str) -> bool:
    try:
        reply = httpx.get(f"http://{address}:8000/v1/models", trust_env=False, verify=False)
    except httpx.TransportError:
        return False
    return reply.status_code == 200 and "mock-echo-model" in reply.text


async def test_a_started_server_runs_our_agent_on_its_own_address(manned: SimulatedScaleway) -> None:
    with control_plane() as (url, seen):
        server = await switched_on(manned, user_data(url))
        await until(lambda: engine_answers(server.public_ip.address), "the engine answers")
        await until(lambda: any(path.endswith("register") for path, _, _ in seen), "the agent registers")
    told = [body["phase"] for path, _, body in seen if path.endswith("bootstrap")]
    assert (told[0], told[-1]) == ("start", "done")
    assert {authorization for _, authorization, _ in seen} == {"Bearer wb_secret"}
    registered = next(body for path, _, body in seen if path.endswith("register"))
    assert registered["ip_address"] == server.public_ip.address
    assert registered["instance_id"] == "i-1"


@pytest.mark.parametrize("action", ["poweroff", "terminate"])
async def test_the_agent_ends_with_the_power(manned: SimulatedScaleway, tmp_path: Path, action: str) -> None:
    server = await switched_on(manned, user_data("http://127.0.0.1:1"))
    await until(lambda: engine_answers(server.public_ip.address), "the engine answers")
    await Sdk(manned).act(server.id, action)
    await until(lambda: not agents_below(tmp_path / "machines" / server.id), "agent and engine have ended")
    manned.clock.advance(10)
    gone = action == "terminate"
    await until(lambda: (tmp_path / "machines" / server.id).exists() != gone, "its disk goes only with the server")


async def test_a_machine_without_our_cloud_init_stays_plain(manned: SimulatedScaleway, tmp_path: Path) -> None:
    server = await switched_on(manned, b"#!/bin/sh\ntouch /tmp/never\n")
    assert server.state == "running"
    await Sdk(manned).act(server.id, "poweroff")
    assert not (tmp_path / "machines" / server.id).exists()


async def test_a_machine_that_switches_itself_off_keeps_its_address_and_its_price(
    manned: SimulatedScaleway, tmp_path: Path
) -> None:
    server = await switched_on(manned, user_data("http://127.0.0.1:1"))
    home = tmp_path / "machines" / server.id
    await until(lambda: agents_below(home), "its agent runs")
    (home / "power-off").touch()
    await until(lambda: manned.cloud.servers[server.id].state == "stopped in place", "it is off")
    await until(lambda: not agents_below(home), "its agent has ended")
    assert (await Sdk(manned).server(server.id)).public_ip.address == server.public_ip.address


async def test_what_a_killed_one_left_is_ended_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    async with simulated_scaleway(agents=folder) as first:
        server = await switched_on(first, user_data("http://127.0.0.1:1"))
        await until(lambda: engine_answers(server.public_ip.address), "the engine answers")
        left = await until(lambda: agents_below(folder / server.id), "it runs")
        assert first.machines is not None
        again = await asyncio.to_thread(type(first.machines), folder)
        assert not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        again.close()


async def test_agents_die_with_a_killed_simulated_cloud(tmp_path: Path) -> None:
    """kill -9, so that nothing of ours can tidy up: the kernel does."""
    folder, port = tmp_path / "scaleway", some_port()
    command = [sys.executable, "-m", "infra.simulated_clouds.scaleway", "--json"]
    options = ["--port", str(port), "--speed", "1000", "--folder", str(folder)]
    process = await asyncio.to_thread(
        subprocess.Popen, [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        card = msgspec.json.decode(await asyncio.to_thread(process.stdout.readline))
        sdk = Sdk(_Reached(card))  # type: ignore[arg-type]  # url and account are all that it wants
        server = await sdk.create()
        content = user_data("http://127.0.0.1:1")
        await sdk.instance("set_server_user_data", server_id=server.id, key="cloud-init", content=content)
        await sdk.act(server.id, "poweron")
        await until(lambda: agents_below(folder / "machines" / server.id), "its agent runs")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        assert process.stdout is not None
        process.stdout.close()
    await until(lambda: not agents_below(folder), "its agents have ended")


class _Reached:
    """A simulated Scaleway of another process, as its card describes it."""

    def __init__(self, card: dict[str, str]) -> None:
        self.url = card["api_url"]
        self.account = Account(card["organization_id"], card["project_id"], card["access_key"], card["secret_key"])
