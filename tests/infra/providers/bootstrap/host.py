"""A host below a folder, and a control plane that keeps what bootstraps tell it; the script runs for real."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from tests.infra.providers.local_clouds import IDLE_AGENT

PATIENCE_S = 30.0
ARCHIVE = IDLE_AGENT.encode()
CHECKSUM = sha256(ARCHIVE).hexdigest()


class PhaseReport(msgspec.Struct, forbid_unknown_fields=True):
    """What a bootstrap POSTs; F's route takes the same."""

    instance_id: str
    phase: str
    ok: bool
    output: str


@dataclass
class ControlPlane:
    """Serves the agent's archive, and notes reports with the token that each came with."""

    url: str = ""
    archive: bytes = ARCHIVE
    status: int = 200
    reports: list[PhaseReport] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    downloads: list[str] = field(default_factory=list)

    @property
    def phases(self) -> list[tuple[str, bool]]:
        return [(report.phase, report.ok) for report in self.reports]


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plane.downloads.append(self.headers.get("Authorization", ""))
            self._answer(200, plane.archive)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            plane.tokens.add(self.headers["Authorization"])
            plane.reports.append(msgspec.json.decode(body, type=PhaseReport))
            self._answer(plane.status, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    plane.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class PrefixHost:
    """A host whose paths all lie below `root`."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "opt/inventiv-worker"

    @property
    def etc(self) -> Path:
        return self.root / "etc/inventiv-worker"

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "INVENTIV_ROOT": str(self.root)}

    def prepare(self, **owner_variables: str) -> None:
        """Writes what the host's owner would: here, which python runs a simulated engine's agent."""
        self.etc.mkdir(parents=True, exist_ok=True)
        lines = {"INVENTIV_PYTHON": sys.executable, **owner_variables}
        (self.etc / "host.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-s"],
            input=script,
            env=self.variables,
            text=True,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def starts(self) -> list[int]:
        """The pids of the agents that were started since the state was last wiped."""
        try:
            return [int(line) for line in (self.base / "state/starts").read_text().split()]
        except FileNotFoundError:
            return []

    def agent_environment(self) -> dict[str, str]:
        text = (self.base / "state/environment").read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def keeper(self) -> int:
        try:
            return int((self.base / "keeper.pid").read_text())
        except FileNotFoundError:
            return 0

    def end(self) -> None:
        """Whatever a test left running."""
        for pid in (self.keeper(), *self.starts()):
            if pid and _is_below(pid, self.root):
                os.kill(pid, signal.SIGKILL)


def _is_below(pid: int, root: Path) -> bool:
    try:
        return str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)
