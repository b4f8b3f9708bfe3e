"""One role of the platform (web, gateway, handlers, projections, tunnel) as a child that the supervisor can keep.

    inventiv serve <role>, all settings in its INVENTIV_* variables ──> ready

The API is ready when it answers at its port; any other role says so itself, in a file that names its process. A
gateway's port would not tell: while one takes over from another, the old one still answers there.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from infra.embedded.child import READY_TIMEOUT_S, wait_until
from infra.environment import Environment, surroundings

ROLES = ("projections", "web", "handlers", "gateway", "tunnel")
"""In the order in which they are started; they do not wait for one another."""
WITHOUT_STORES = frozenset({"tunnel"})
"""Roles that are told neither where NATS nor where Postgres is."""
ANSWER_TIMEOUT_S = 2.0
ANSWER_BYTES = 256


class Role:
    """`inventiv serve <name>` as a child process.

    Args:
        name: one of ROLES.
        environment: what it shall read; every field is handed on.
    """

    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self, name: str, environment: Environment) -> None:
        self.name = name
        self.log_path = environment.data_dir / "logs" / f"{name}.log"
        self._environment = environment
        self._ready_file = ready_file(environment.data_dir, name)
        self._port = environment.api_port if name == "web" else None

    async def prepare(self) -> None:
        self._ready_file.parent.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "infra.cli.main", "serve", self.name]

    def environment(self) -> dict[str, str]:
        return {**surroundings(), "PYTHONUNBUFFERED": "1", **variables_of(self._environment)}

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        await wait_until(self._is_ready, self.name, timeout_s)

    async def _is_ready(self) -> bool:
        if self._port is None:
            return self._ready_file.exists()
        return await answers(self._environment.host, self._port, "/healthz")


def ready_file(data_dir: Path, role: str) -> Path:
    return data_dir / "run" / f"{role}.ready"


def say_ready(environment: Environment, role: str) -> None:
    """For every role but the API: call it once everything is connected and work has begun.

    Only where someone waits for it: nobody made the folder when the role runs alone.
    """
    path = ready_file(environment.data_dir, role)
    if path.parent.is_dir():
        path.write_text(f"{os.getpid()}\n")


def variables_of(environment: Environment) -> dict[str, str]:
    """The INVENTIV_* variables from which `read_environment` makes the same Environment again."""
    fields = {name: getattr(environment, name) for name in Environment.__struct_fields__}
    return {f"INVENTIV_{name.upper()}": _text(value) for name, value in fields.items() if value is not None}


async def answers(host: str, port: int, path: str) -> bool:
    """Whether an HTTP server there says 200; bounded by ANSWER_TIMEOUT_S, never raises."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in (await reader.read(ANSWER_BYTES)).split(b"\r\n", 1)[0]
    return False


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
