"""A whole control plane on one core: NATS, Postgres, web, handlers, projections, each a process of its own.

Children inherit the core they may run on; the agents that load them run on the others.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.environment import Environment
from infra.events.connection import connect_writer, disconnect
from infra.events.streams import ensure_streams
from infra.processes.roles import answers, variables_of
from tests.conftest import some_port, started

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.1
CORE = 0


@contextmanager
def on_core(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile runs on these processors; where there is only one, on that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (cores & before) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def other_cores() -> set[int]:
    return os.sched_getaffinity(0) - {CORE}


class ControlPlane:
    """Its environment and its processes."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.children: list[asyncio.subprocess.Process] = []
        self.servers: list[psutil.Process] = []

    async def start(self, role: str) -> None:
        """One role, pinned; its log goes to the data folder."""
        variables = {"PATH": os.environ["PATH"], **variables_of(self.environment)}
        with on_core({CORE}), (self.environment.data_dir / f"{role}.log").open("wb") as log:
            command = [sys.executable, "-m", "infra.cli.main", "serve", role]
            child = await asyncio.create_subprocess_exec(*command, env=variables, stderr=log)
        self.children.append(child)
        self.servers.append(psutil.Process(child.pid))

    async def stop(self) -> None:
        for child in self.children:
            if child.returncode is None:
                child.terminate()
        for child in self.children:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far, by program; children included."""
        spent: dict[str, float] = {}
        for server in self.servers:
            name = _name(server)
            for process in (server, *server.children(recursive=True)):
                times = process.cpu_times()
                spent[name] = spent.get(name, 0.0) + times.user + times.system
        return spent


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[-1] if "serve" in words else Path(words[0]).name.split(":")[0]


@asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[ControlPlane]:
    """With web and projections running; start `handlers` when the fleet is on record."""
    with on_core({CORE}):
        nats = await started(lambda: EmbeddedNats(folder / "nats", some_port()))
        postgres = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
    admin = await connect_writer(nats.admin_url, "admin")
    await ensure_streams(admin)
    await disconnect(admin)
    port = some_port()
    environment = Environment(
        data_dir=folder,
        secrets_dir=folder / "secrets",
        make_secrets=True,
        nats_url=nats.url,
        nats_monitor_url=nats.monitor_url,
        postgres_url=postgres.url,
        api_port=port,
        api_url=f"http://127.0.0.1:{port}",
    )
    plane = ControlPlane(environment)
    plane.servers += [_server("nats-server"), _server("postgres")]
    try:
        for role in ("projections", "web"):
            await plane.start(role)
        await until_ready(port)
        yield plane
    finally:
        await plane.stop()
        await postgres.stop()
        await nats.stop()


def _server(program: str) -> psutil.Process:
    """Our child of that name."""
    return next(child for child in psutil.Process().children() if program in child.name())


async def until_ready(port: int) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not await answers("127.0.0.1", port, "/readyz"):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(LOOK_EVERY_S)
