"""A stand-in for the control plane, and a worker's agent as a real process, for the specs of this room.

The stand-in keeps every request it got, answers by the rules that a spec sets on it, and lets a spec wait for a state.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import web

from agent.protocol import (
    AUTHORIZE_PATH,
    HEARTBEAT_PATH,
    REGISTER_PATH,
    ROTATE_PATH,
    Accepted,
    Desired,
    Heartbeat,
    HeartbeatReply,
    Refusal,
    RegisterReply,
    RegisterRequest,
    RotateReply,
)

MODEL = "mock-echo-model"
INSTANCE = "0198-instance"
BOOTSTRAP_TOKEN = "bootstrap-token"
WORKER_TOKEN = "wk_first_second"
WAIT_S = 60.0
ROOT = Path(__file__).parents[2]


class StandIn:
    """Accepts one registration and any number of heartbeats, and gives out the next token when a spec wants it."""

    def __init__(self) -> None:
        self.url = ""
        self.registrations: list[RegisterRequest] = []
        self.beats: list[Heartbeat] = []
        self.tokens: list[str] = []
        self.token, self.next_token = WORKER_TOKEN, ""
        self.rotations = 0
        self.wants_rotation = False
        self.desired: Desired = "run"
        self.refusals: list[tuple[int, str]] = []
        """Answers to the next requests, instead of 200."""
        self.on_register: Callable[[], None] = lambda: None
        self.on_beat: Callable[[], None] = lambda: None
        self.on_rotate: Callable[[], None] = lambda: None
        self._news = asyncio.Condition()

    async def register(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=RegisterRequest)
        if refusal := await self._refusal(request, {BOOTSTRAP_TOKEN}):
            return refusal
        self.on_register()
        await self._note(self.registrations, body)
        return _reply(RegisterReply(worker_token=WORKER_TOKEN, worker_token_prefix=WORKER_TOKEN[:12]))

    async def heartbeat(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=Heartbeat)
        if refusal := await self._refusal(request, {self.token, self.next_token} - {""}):
            return refusal
        self.on_beat()
        if self.next_token and _bearer(request) == self.next_token:
            self.token, self.next_token = self.next_token, ""
        await self._note(self.beats, body)
        return _reply(HeartbeatReply(desired=self.desired, rotate_token=self.wants_rotation))

    async def rotate(self, request: web.Request) -> web.Response:
        """As the control plane does: the present token stays good until the next one is used."""
        if refusal := await self._refusal(request, {self.token}):
            return refusal
        self.rotations += 1
        self.next_token = f"wk_rotated_{self.rotations}"
        self.on_rotate()
        return _reply(RotateReply(worker_token=self.next_token, worker_token_prefix=self.next_token[:12]))

    async def authorize(self, request: web.Request) -> web.Response:
        return await self._refusal(request, {self.token, self.next_token} - {""}) or _reply(Accepted())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(holds)

    async def until_beat(self, fits: Callable[[Heartbeat], bool], *, after: int = 0) -> Heartbeat:
        """The first heartbeat that fits, not counting the first `after`."""
        await self.until(lambda: any(fits(beat) for beat in self.beats[after:]))
        return next(beat for beat in self.beats[after:] if fits(beat))

    async def _refusal(self, request: web.Request, good: AbstractSet[str]) -> web.Response | None:
        await self._note(self.tokens, request.headers.get("Authorization", ""))
        if self.refusals:
            status, code = self.refusals.pop(0)
            return _reply(Refusal(code, ""), status)
        return None if _bearer(request) in good else _reply(Refusal("unauthorized", ""), 401)

    async def _note(self, where: list[Any], what: Any) -> None:
        async with self._news:
            where.append(what)
            self._news.notify_all()


@asynccontextmanager
async def stand_in(port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[StandIn]:
    """Args: where it shall listen, for one that comes back."""
    plane = StandIn()
    app = web.Application()
    app.router.add_post(REGISTER_PATH, plane.register)
    app.router.add_post(HEARTBEAT_PATH, plane.heartbeat)
    app.router.add_post(ROTATE_PATH, plane.rotate)
    app.router.add_post(AUTHORIZE_PATH, plane.authorize)
    port = port or free_port()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    plane.url = f"http://{host}:{port}"
    try:
        yield plane
    finally:
        await runner.cleanup()


class AgentProcess:
    """One agent; several in turn may run on one state folder."""

    def __init__(self, control_plane_url: str, state_dir: Path, **variables: str) -> None:
        self.state_dir = state_dir
        self.health_port, self.vllm_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.health_port}"
        self.engine_url = f"http://127.0.0.1:{self.vllm_port}"
        self.command: Sequence[str] = (sys.executable, "-m", "agent")
        self.folder = ROOT
        self.environment = {
            "PATH": os.environ["PATH"],
            "CONTROL_PLANE_URL": control_plane_url,
            "WORKER_AUTH_TOKEN": BOOTSTRAP_TOKEN,
            "INSTANCE_ID": INSTANCE,
            "MODEL_ID": MODEL,
            "WORKER_BIND_IP": "127.0.0.1",
            "WORKER_HEALTH_PORT": str(self.health_port),
            "WORKER_VLLM_PORT": str(self.vllm_port),
            "WORKER_HEARTBEAT_INTERVAL_S": "0.2",
            "WORKER_STATE_DIR": str(state_dir),
            "WORKER_ENGINE": "simulated",
            "WORKER_ENGINE_ARGS": '{"startup_s": 0, "first_token_ms": 1, "tokens_per_s": 1000}',
            "WORKER_SIMULATE_GPU_COUNT": "2",
            **variables,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self.command, cwd=self.folder, env=self.environment, stderr=asyncio.subprocess.DEVNULL
        )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal; returns the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), WAIT_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self.process.returncode is None:
            await self.end(signal.SIGKILL)


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as reply:
        return reply.status, await reply.text()


async def eventually(holds: Callable[[], bool]) -> None:
    """For a state that nobody announces, such as the end of somebody else's process."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - nobody tells us of another process
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _reply(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
