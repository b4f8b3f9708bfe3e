"""What stands behind the simulated servers: real agent processes with a simulated engine, each on its own address.

    power on ──> cloud-init read: the worker's environment ──> phases reported ──> agent.pyz runs ──> power off: it ends
    <folder>/<server id>/    agent.pyz  agent.log  process.json  bootstrap_token  state/  home/     gone with the server

Nothing that a caller sent is executed: of the user data only the environment is read, and the agent is our own. Each
agent is tied to this process by the kernel, and what a killed one left is found by its archive at the next start.
The surprising rule: nobody starts an agent that died again, as a machine whose worker crashed for good.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec
import structlog

from agent.build import build_zipapp
from agent.protocol import BOOTSTRAP_PATH, BootstrapReport
from infra.providers.bootstrap.cloud_init import worker_environment_of
from infra.providers.bootstrap.script import PHASES
from infra.providers.local_files import PRIVATE_FOLDER, ProcessIdentity, write_private
from infra.providers.local_processes import alive, end_agent, find_agent, reap, start_program
from infra.providers.loopback import Place
from infra.simulated_clouds.scaleway.offers import Offer
from infra.simulated_clouds.scaleway.resources import Server

HANDS = 8
"""Machines that may be switched at the same time; one machine's orders stay in order."""
GRACE_S = 3.0
REPORT_TIMEOUT_S = 5.0
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
MIB_PER_GIB = 1024
POWER_OFF_FILE = "power-off"

_log = structlog.get_logger(__name__)


class AgentMachines:
    """Implements cloud.Machines with processes.

    Args:
        folder: its own; what an earlier one left running in it is ended.
        environment: goes on top of what cloud-init says, e.g. quicker heartbeats.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._archive = folder / "agent.pyz"
        build_zipapp(self._archive)
        self._hands = [ThreadPoolExecutor(1, thread_name_prefix=f"machine-{n}") for n in range(HANDS)]
        self._pids: dict[str, int] = {}
        self._end_all()

    def switch_on(self, server: Server, place: Place, offer: Offer) -> None:
        user_data = server.user_data.get("cloud-init", b"")
        self._order(server.server_id, partial(self._start, server.server_id, user_data, place, offer))

    def switch_off(self, server_id: str) -> None:
        self._order(server_id, partial(self._end, server_id))

    def discard(self, server_id: str) -> None:
        self._order(server_id, partial(self._discard, server_id))

    def powered_off(self) -> Sequence[str]:
        """Those whose agent asked for the power to go, as its dead man's switch does."""
        return [server_id for server_id in list(self._pids) if self._power_off_file(server_id).exists()]

    def close(self) -> None:
        """Every agent has ended when this returns."""
        for hand in self._hands:
            hand.shutdown(wait=True)
        self._end_all()

    def _order(self, server_id: str, deed: Callable[[], None]) -> None:
        hand = self._hands[UUID(server_id).int % HANDS]
        hand.submit(deed).add_done_callback(partial(_told, server_id))

    def _start(self, server_id: str, user_data: bytes, place: Place, offer: Offer) -> None:
        told = worker_environment_of(user_data.decode(errors="replace"))
        if not told:
            _log.info("plain_machine", server=server_id)
            return
        self._end(server_id)
        home = self._home(server_id)
        for folder in (home / "state", home / "home"):
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        shutil.copyfile(self._archive, home / "agent.pyz")
        self._power_off_file(server_id).unlink(missing_ok=True)
        write_private(home / "bootstrap_token", told.get("WORKER_AUTH_TOKEN", "").encode())
        _report_phases(told)
        # The detour over `exec` ties it to this process; see agent/child.py.
        archive = str(home / "agent.pyz")
        command = [sys.executable, archive, "exec", str(os.getpid()), sys.executable, archive]
        identity = start_program(command, self._agent_environment(home, told, place, offer), home / "agent.log")
        self._pids[server_id] = identity.pid
        write_private(home / "process.json", msgspec.json.encode(identity))

    def _agent_environment(self, home: Path, told: Mapping[str, str], place: Place, offer: Offer) -> dict[str, str]:
        """All that the agent gets: a GPU of the server's type, simulated; the engine's arguments only if they are."""
        foreign = {"WORKER_AUTH_TOKEN"} | (
            {"WORKER_ENGINE_ARGS"} if told.get("WORKER_ENGINE") != "simulated" else set()
        )
        return {
            "PATH": PROGRAMS,
            "HOME": str(home / "home"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            **{name: value for name, value in told.items() if name not in foreign},
            **self._environment,
            "WORKER_ENGINE": "simulated",
            "WORKER_SIMULATE_GPU_COUNT": str(offer.gpu_count),
            "WORKER_SIMULATE_GPU_VRAM_MB": str(max(1, offer.vram_gib * MIB_PER_GIB)),
            "WORKER_AUTH_TOKEN_FILE": str(home / "bootstrap_token"),
            "WORKER_STATE_DIR": str(home / "state"),
            "WORKER_POWER_OFF_FILE": str(home / POWER_OFF_FILE),
            "WORKER_BIND_IP": place.address,
            "WORKER_ADVERTISE_IP": place.address,
            "WORKER_HEALTH_PORT": str(place.agent_port),
            "WORKER_VLLM_PORT": str(place.engine_port),
        }

    def _end(self, server_id: str) -> None:
        process = alive(self._identity(server_id)) or find_agent(self._home(server_id) / "agent.pyz")
        if process is not None and not end_agent(process, GRACE_S):
            _log.warning("agent_does_not_end", server=server_id, pid=process.pid)
        pid = self._pids.pop(server_id, None)
        if pid is not None:
            reap(pid)

    def _discard(self, server_id: str) -> None:
        self._end(server_id)
        shutil.rmtree(self._home(server_id), ignore_errors=True)

    def _end_all(self) -> None:
        for home in self._folder.iterdir():
            if home.is_dir():
                self._end(home.name)

    def _power_off_file(self, server_id: str) -> Path:
        return self._home(server_id) / POWER_OFF_FILE

    def _home(self, server_id: str) -> Path:
        return self._folder / server_id

    def _identity(self, server_id: str) -> ProcessIdentity | None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self._home(server_id) / "process.json").read_bytes(), type=ProcessIdentity)
        return None


def _told(server_id: str, done: "Future[None]") -> None:
    trouble = None if done.cancelled() else done.exception()
    if trouble is not None:
        _log.error("machine_failed", server=server_id, reason=repr(trouble))


def _report_phases(told: Mapping[str, str]) -> None:
    """Tells the control plane what the bootstrap would, from "start" to "done"; that it is not heard stops nothing."""
    control_plane = told.get("CONTROL_PLANE_URL", "")
    if urlsplit(control_plane).scheme not in ("http", "https"):
        return
    headers = {"Authorization": f"Bearer {told.get('WORKER_AUTH_TOKEN', '')}", "Content-Type": "application/json"}
    with httpx.Client(timeout=REPORT_TIMEOUT_S, trust_env=False, headers=headers, verify=False) as client:  # noqa: S501 - a simulated machine has no certificates
        for phase in PHASES:
            output = f"{phase}: nothing to do on a simulated machine"
            report = BootstrapReport(instance_id=told.get("INSTANCE_ID", ""), phase=phase, ok=True, output=output)
            try:
                client.post(f"{control_plane}{BOOTSTRAP_PATH}", content=msgspec.json.encode(report))
            except httpx.TransportError as trouble:
                _log.info("phase_not_reported", phase=phase, reason=repr(trouble))
                return
