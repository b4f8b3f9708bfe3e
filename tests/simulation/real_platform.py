"""Real servers and real processes for real kills: a lane is one platform, in which one case after another is played.

    lane:  nats-server ── Postgres ── `inventiv serve projections`        kept: handlers ──killed──> handlers again

Lanes share the simulated Scaleway. The surprising rule: they share nothing else. Two handlers at one log share their
work, so that the kill of one would only be felt by chance; and four platforms are too many for one Postgres.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.credentials import CredentialStore
from infra.dispatch import Dispatcher
from infra.doors import new_dispatcher
from infra.embedded import child
from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.environment import Environment, surroundings
from infra.events.connection import connect_writer, disconnect
from infra.events.streams import ensure_streams
from infra.master_key import read_master_key
from infra.processes.roles import Role, variables_of
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing
from tests.conftest import some_port, started
from tests.simulation.real_worker import Kill

ROOT = Path(__file__).parents[2]
WORKER = "tests.simulation.real_worker"
DOWN_S = 0.2
"""A supervisor's pause before it starts again what died."""


@dataclass(frozen=True)
class Lane:
    """A platform without its handlers."""

    environment: Environment
    dispatcher: Dispatcher
    credentials: CredentialStore


@asynccontextmanager
async def running_lane(folder: Path, scaleway_url: str) -> AsyncIterator[Lane]:
    """`folder` is this lane's own, where Postgres's account may walk through; there is nothing in it yet."""
    async with AsyncExitStack() as stack:
        nats = await started(lambda: EmbeddedNats(folder / "nats", some_port()))
        stack.push_async_callback(nats.stop)
        postgres = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
        stack.push_async_callback(postgres.stop)
        admin = await connect_writer(nats.admin_url, "admin")
        await ensure_streams(admin)
        await disconnect(admin)
        environment = Environment(
            data_dir=folder,
            secrets_dir=folder / "secrets",
            make_secrets=True,
            nats_url=nats.url,
            nats_monitor_url=nats.monitor_url,
            postgres_url=postgres.url,
            scaleway_url=scaleway_url,
        )
        projections = await child.start(Role("projections", environment))
        stack.push_async_callback(child.stop, projections, signal.SIGKILL)
        writer = await connect_writer(nats.url, "people")
        stack.push_async_callback(disconnect, writer)
        pool = await stack.enter_async_context(vault_pool(environment.postgres_url))
        key = read_master_key(environment.secrets_dir, make=True)
        await create_vault(pool, key)
        credentials = CredentialStore(pool, KeyRing(key, environment.secrets_dir))
        yield Lane(environment, new_dispatcher(writer), credentials)


@dataclass
class Kept:
    """Handlers under a supervisor.

    Attributes:
        killed: whether the first process died of SIGKILL.
        faults: ends of a process that nobody asked for.
    """

    calls_file: Path
    killed: bool = False
    faults: list[str] = field(default_factory=list)

    @property
    def calls(self) -> list[str]:
        """Names of the first process's calls so far."""
        return self.calls_file.read_text().split() if self.calls_file.exists() else []


@asynccontextmanager
async def kept_handlers(lane: Lane, case: str, kill: Kill | None, *, restarts: bool = True) -> AsyncIterator[Kept]:
    """Handlers that die at `kill` and are started again, once; whatever runs at the end is ended."""
    folder = lane.environment.data_dir / case
    folder.mkdir()
    kept = Kept(folder / "calls")
    keeping = asyncio.create_task(_keep(lane, kept, kill, restarts=restarts))
    try:
        yield kept
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def _keep(lane: Lane, kept: Kept, kill: Kill | None, *, restarts: bool) -> None:
    status = await _one_life(lane, kept.calls_file, kill)
    kept.killed = kill is not None and status == -signal.SIGKILL
    if not kept.killed:
        kept.faults.append(f"the handlers ended by themselves with {status}: see {kept.calls_file}.log")
    elif restarts:
        await asyncio.sleep(DOWN_S)
        again = kept.calls_file.with_name("calls_again")
        status = await _one_life(lane, again, None)
        kept.faults.append(f"the handlers, started again, ended by themselves with {status}: see {again}.log")


async def _one_life(lane: Lane, calls: Path, kill: Kill | None) -> int:
    """The exit status; cancelled, it ends the process."""
    words = [kill.name, str(kill.nth), kill.when] if kill else []
    variables = {**surroundings(), "PYTHONPATH": str(ROOT), **variables_of(lane.environment)}
    command = [sys.executable, "-m", WORKER, str(calls), *words]
    process = await child.spawn(command, env=variables, log_path=calls.with_suffix(".log"))
    try:
        return await process.wait()
    finally:
        await child.stop(process)
