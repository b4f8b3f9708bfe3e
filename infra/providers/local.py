"""The provider `local`: this machine. Each server is a record and a real agent process on an address of its own.

    create: a folder        start: an agent process        delete: the process ends, the folder moves away
    keep_running: what init does on a rented machine: an agent that died is started again, with growing pauses

It is a product, not a stub: `inventiv up` lives on it, and it passes the suite that every provider passes. What cannot
be read is answered as unknown. The surprising rule: the agents outlive the handlers, and are found again by pid and
start time, or by their command line; so killing the handlers at any line starts no second one.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec
import structlog
from msgspec.structs import replace

from agent.build import build_zipapp
from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    Existence,
    Offers,
    Ports,
    Present,
    Server,
    ServerRequest,
    Unknown,
    Volumes,
)
from infra.engine.locate import PreparedEngine, prepared_engine
from infra.environment import Environment
from infra.providers.local_files import LocalFiles, ProcessIdentity, ServerRecord, server_id_of
from infra.providers.local_processes import alive, end_agent, find_agent, reap, start_agent
from infra.providers.loopback import Place, choose_place

T = TypeVar("T")

STOP_GRACE_S = 5.0
"""Answers were finished while the instance drained; what still runs now was forced."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 30.0
"""An agent that ran this long begins again without a pause when it dies."""
KEEP_EVERY_S = 1.0
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
_KEEPER = "keeper"

_log = structlog.get_logger(__name__)


@dataclass
class _Life:
    """One agent as this process has seen it."""

    started_at: float
    failures: int = 0


class LocalCloud:
    """Implements handlers.ports.Cloud on this machine.

    Args:
        root: its folder; made when absent.
        agent_archive: the agent as a zip application; copied into each server.
        find_engine: the prepared real engine, or None; asked when a server wants it.
    """

    def __init__(
        self, root: Path, *, agent_archive: Path, find_engine: Callable[[], PreparedEngine | None] = lambda: None
    ) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = LocalFiles(root)
        self._agent_archive = agent_archive
        self._find_engine = find_engine
        self._lives: dict[str, _Life] = {}
        self._children: set[int] = set()
        self._keeper_lock: int | None = None

    traits = CloudTraits(creates_idempotently=True, reached_by_ssh=False, stops_billing_when_off=True)
    volumes: Volumes | None = None
    ports: Ports | None = None
    offers: Offers | None = None

    async def create_server(self, request: ServerRequest) -> Server:
        return await asyncio.to_thread(self._create, request)

    async def start_server(self, provider_instance_id: str) -> None:
        await asyncio.to_thread(self._start, provider_instance_id)

    async def stop_server(self, provider_instance_id: str) -> None:
        """Its agent ends, and is not started again until the server is."""
        await asyncio.to_thread(self._switch_off, provider_instance_id)

    async def reinstall_server(self, provider_instance_id: str) -> None:
        await asyncio.to_thread(self._reinstall, provider_instance_id)

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:  # noqa: ARG002 - one zone
        return await asyncio.to_thread(self._find, provider_instance_id or server_id_of(name))

    async def list_servers(self) -> Sequence[Server]:
        return [_shown(record) for record in await asyncio.to_thread(self._files.all)]

    async def delete_server(self, provider_instance_id: str) -> None:
        await asyncio.to_thread(self._delete, provider_instance_id)

    async def keep_running(self) -> None:
        """Starts every agent that should run and does not; call it every second. One process at a time does it."""
        await asyncio.to_thread(self._keep_running)

    async def stop_all(self) -> None:
        """Ends all agents; their servers stay switched on, so the next keep_running starts them again."""
        if not self._files.root.is_dir():
            return
        servers = await asyncio.to_thread(self._files.ids)
        await asyncio.gather(*(asyncio.to_thread(self._stop, server_id) for server_id in servers))

    def close(self) -> None:
        """Lets another process keep the agents running."""
        if self._keeper_lock is not None:
            os.close(self._keeper_lock)
            self._keeper_lock = None

    def _create(self, request: ServerRequest) -> Server:
        server_id = server_id_of(request.name)
        if request.agent_environment.get("WORKER_ENGINE") == "vllm":
            self._engine()
        with self._files.locked("create"):
            existing = self._files.find(server_id)
            if existing is not None:
                return _shown(existing)
            place = choose_place(server_id, {_place(record) for record in self._files.readable()})
            environment = dict(request.agent_environment)
            token = environment.pop("WORKER_AUTH_TOKEN", "")
            record = ServerRecord(
                provider_instance_id=server_id,
                name=request.name,
                tags=dict(request.tags),
                zone=request.zone,
                instance_type=request.instance_type,
                environment=environment,
                address=place.address,
                agent_port=place.agent_port,
                engine_port=place.engine_port,
            )
            self._files.create(record, token=token, archive=self._agent_archive)
        return _shown(record)

    def _start(self, server_id: str) -> None:
        with self._files.locked(server_id):
            record = self._files.find(server_id)
            if record is None:
                raise CloudRefusedError("PROVIDER_START_FAILED", f"There is no local server {server_id}.", "not_found")
            if record.power != "on":
                record = replace(record, power="on")
                self._files.write(record)
            self._run_agent(record)

    def _switch_off(self, server_id: str) -> None:
        with self._files.locked(server_id):
            record = self._files.find(server_id)
            if record is None:
                raise CloudRefusedError("PROVIDER_STOP_FAILED", f"There is no local server {server_id}.", "not_found")
            if record.power != "off":
                self._files.write(replace(record, power="off"))
            self._end(server_id)

    def _reinstall(self, server_id: str) -> None:
        with self._files.locked(server_id):
            record = self._files.find(server_id)
            if record is None:
                raise CloudRefusedError(
                    "PROVIDER_REINSTALL_FAILED", f"There is no local server {server_id}.", "not_found"
                )
            self._end(server_id)
            self._files.renew(server_id, archive=self._agent_archive)
            self._lives.pop(server_id, None)
            self._run_agent(record)

    def _find(self, server_id: str) -> Existence:
        try:
            record = self._files.find(server_id)
        except CloudUnavailableError as unreadable:
            return Unknown(str(unreadable))
        return Present(_shown(record)) if record else Absent()

    def _delete(self, server_id: str) -> None:
        """Also a server whose record is damaged: its folder alone tells which process is its."""
        with self._files.locked(server_id):
            if not self._files.folder(server_id).path.exists():
                return
            with contextlib.suppress(CloudUnavailableError):
                record = self._files.find(server_id)
                if record is not None and record.power != "off":
                    self._files.write(replace(record, power="off"))  # a crash from here on must not start it again
            self._end(server_id)
            self._files.remove(server_id)
            self._lives.pop(server_id, None)

    def _stop(self, server_id: str) -> None:
        with self._files.locked(server_id):
            self._end(server_id)

    def _end(self, server_id: str) -> None:
        process = alive(self._files.identity(server_id)) or find_agent(self._files.folder(server_id).archive)
        if process is not None and not end_agent(process, STOP_GRACE_S):
            raise CloudUnavailableError(f"process {process.pid} of {server_id} does not end")

    def _keep_running(self) -> None:
        self._children = {pid for pid in self._children if not reap(pid)}
        self._keeper_lock = self._keeper_lock or self._files.try_lock(_KEEPER)
        if self._keeper_lock is None:
            return
        for record in self._files.readable():
            if record.power == "on" and self._is_due(record):
                self._revive(record.provider_instance_id)

    def _is_due(self, record: ServerRecord) -> bool:
        """Whether its agent is dead, and has been given its pause."""
        if alive(self._files.identity(record.provider_instance_id)):
            return False
        life = self._lives.get(record.provider_instance_id)
        return life is None or time.monotonic() >= life.started_at + _pause_s(life.failures)

    def _revive(self, server_id: str) -> None:
        try:
            with self._files.locked(server_id, wait_s=0):
                record = self._files.find(server_id)
                if record is not None and record.power == "on":
                    self._run_agent(record)
        except (OSError, CloudRefusedError) as reason:
            _log.warning("agent_not_started", server=server_id, reason=str(reason))

    def _run_agent(self, record: ServerRecord) -> None:
        """Starts the agent unless it runs; an agent that nobody wrote down is found and written down now."""
        server_id = record.provider_instance_id
        if alive(self._files.identity(server_id)):
            return
        folder = self._files.folder(server_id)
        found = find_agent(folder.archive)
        if found is not None:
            self._files.remember(server_id, ProcessIdentity(found.pid, found.create_time()))
            return
        now = time.monotonic()
        before = self._lives.get(server_id)
        quickly = before is not None and now - before.started_at < LONG_LIFE_S
        self._lives[server_id] = _Life(now, before.failures + 1 if before and quickly else 0)
        try:
            identity = start_agent(folder.archive, self._environment(record), folder.log)
        except OSError as error:
            raise CloudUnavailableError(f"start the agent of {server_id}: {error}") from error
        self._children.add(identity.pid)
        self._files.remember(server_id, identity)
        _log.info("agent_started", server=server_id, pid=identity.pid, address=record.address)

    def _environment(self, record: ServerRecord) -> dict[str, str]:
        """All that the agent gets; ours may hold secrets, so nothing is inherited."""
        folder = self._files.folder(record.provider_instance_id)
        surroundings = {"PATH": PROGRAMS, "HOME": str(folder.home), "LANG": "C.UTF-8", "TZ": "UTC"}
        engine = self._engine_environment() if record.environment.get("WORKER_ENGINE") == "vllm" else {}
        return {
            **surroundings,
            **engine,
            **record.environment,
            "WORKER_AUTH_TOKEN_FILE": str(folder.token),
            "WORKER_STATE_DIR": str(folder.state),
            "WORKER_POWER_OFF_FILE": str(folder.powered_off),
            "WORKER_BIND_IP": record.address,
            "WORKER_ADVERTISE_IP": record.address,
            "WORKER_HEALTH_PORT": str(record.agent_port),
            "WORKER_VLLM_PORT": str(record.engine_port),
        }

    def _engine_environment(self) -> dict[str, str]:
        engine = self._engine()
        return {
            "WORKER_VLLM_COMMAND": str(engine.vllm_command),
            "WORKER_ENGINE_ARGS": msgspec.json.encode(engine.engine_args()).decode(),
        }

    def _engine(self) -> PreparedEngine:
        engine = self._find_engine()
        if engine is None:
            raise CloudRefusedError("ENGINE_NOT_PREPARED", "The real engine is not prepared here; run `just engine`.")
        return engine


async def keep_agents_running(cloud: LocalCloud) -> None:
    """What a rented machine's init does, for all local servers, until cancelled."""
    while True:
        try:
            await cloud.keep_running()
        except OSError as reason:
            _log.warning("agents_not_kept", reason=str(reason))
        await asyncio.sleep(KEEP_EVERY_S)


def local_cloud(environment: Environment) -> LocalCloud:
    """The local provider of this data folder, with the agent of today; `handlers` and `up` must mean the same one."""
    archive = environment.data_dir / "agent" / "agent.pyz"
    draft = archive.with_name(f".agent.{uuid4().hex}.pyz")
    build_zipapp(draft)
    draft.replace(archive)
    return LocalCloud(
        environment.data_dir / "servers",
        agent_archive=archive,
        find_engine=lambda: prepared_engine(environment.engine_dir),
    )


def _shown(record: ServerRecord) -> Server:
    running = record.power == "on"
    return Server(
        provider_instance_id=record.provider_instance_id,
        name=record.name,
        tags=record.tags,
        running=running,
        ip_address=record.address if running else "",
    )


def _place(record: ServerRecord) -> Place:
    return Place(record.address, record.agent_port, record.engine_port)


def _pause_s(failures: int) -> float:
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 16)))
