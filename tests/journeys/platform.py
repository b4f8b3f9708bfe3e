"""A whole platform as real processes, driven as people drive it: `inventiv ...`, REST, and the gateway.

Each one has a data folder and ports of its own, and hurries where a person would not mind waiting (heartbeats).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import psutil

from infra.processes.data_folder import PORT_NAMES, Ports
from infra.processes.running import ChildView, is_alive, read_platform
from tests.conftest import some_port

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
MODEL = "mock-echo-model"
CARD_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
COMMAND_TIMEOUT_S = 60.0
WAIT_S = 40.0
POLL_S = 0.05
HTTP = httpx.Client(timeout=30, trust_env=False, verify=False)
"""Loading certificates that nobody here has takes 130 ms a client."""
INVENTIV = [sys.executable, "-m", "infra.cli.main"]


def until(found: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    """Polls until `found` returns something true; network trouble on the way counts as not yet."""
    deadline = time.monotonic() + timeout_s
    trouble: object = None
    while time.monotonic() < deadline:
        try:
            if value := found():
                return value
        except httpx.TransportError as error:
            trouble = error
        time.sleep(POLL_S)
    raise AssertionError(f"not within {timeout_s} s: {what} ({trouble})")


@dataclass
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Platform:
    """A data folder and, after `start`, the `inventiv up` that runs on it."""

    data_dir: Path
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    card: dict[str, Any] = field(default_factory=dict)
    _token: str = ""

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INVENTIV_")}
        return {**kept, "INVENTIV_DATA_DIR": str(self.data_dir), **self.variables}

    @property
    def log(self) -> str:
        """What `up` said; nothing when it was never started."""
        path = self.data_dir.parent / "up.log"
        return path.read_text() if path.exists() else ""

    def inventiv(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S, **variables: str) -> Ran:
        """Runs one command to its end."""
        done = subprocess.run(
            [*INVENTIV, *arguments],
            env={**self.environment, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """The document of a command that must succeed."""
        ran = self.inventiv(*arguments, "--json", timeout_s=timeout_s)
        assert ran.code == 0, ran
        return ran.document

    def events(self) -> list[dict[str, Any]]:
        """Every envelope from the beginning."""
        ran = self.inventiv("events", "tail", "--from", "1", "--json")
        assert ran.code == 0, ran
        return [json.loads(line) for line in ran.out.splitlines()]

    def start(self, *options: str) -> dict[str, Any]:
        """Starts `inventiv up` and waits for its card."""
        with (self.data_dir.parent / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                [*INVENTIV, "up", "--json", *options],
                env=self.environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                self.card = json.loads(text)
                return self.card
        raise AssertionError(f"`inventiv up` ended without a card:\n{self.log}\n{self.role_logs()}")

    def role_logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.data_dir.glob("logs/*.log"))

    def refusals(self) -> list[str]:
        """What NATS did not permit to a role: each one has exactly the permissions of its own identity."""
        logs = [path.read_text() for path in self.data_dir.glob("logs/*.log*")]
        return [line for text in logs for line in text.splitlines() if "nats_permission_refused" in line]

    def stop(self, wanted: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(wanted)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.process = None

    def kill(self) -> None:
        """SIGKILL to `inventiv up` itself, which gets no chance to tidy up."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def children(self) -> dict[str, ChildView]:
        """Roles and servers as `up` has written them down (what `inventiv status` reads)."""
        written = read_platform(self.data_dir)
        assert written is not None, "`inventiv up` does not run"
        return {**written.roles, **written.servers}

    def pid_of(self, name: str) -> int:
        """Of a role, of nats or of postgres, once it runs."""

        def running() -> int | None:
            view = self.children()[name]
            return view.pid if view.state == "running" and is_alive(view.pid, view.created_at) else None

        return until(running, f"{name} runs")

    def settled(self) -> None:
        """Waits until every process runs and both front doors are ready."""

        def all_running() -> bool:
            views = self.children().values()
            ready = [self.rest("GET", "/readyz", signed=False), self.gateway("GET", "/readyz")]
            return all(view.state == "running" for view in views) and all(r.status_code == 200 for r in ready)

        until(all_running, "everything runs")

    def end_instances(self) -> None:
        """Ends every instance, so that what a test asks next is answered by its own or not at all."""

        def living() -> list[str]:
            views = self.rest("GET", "/instances").json()
            return [view["id"] for view in views if view["status"] != "terminated"]

        for instance_id in living():
            self.rest("DELETE", f"/instances/{instance_id}?force=true")
        until(lambda: not living(), "every instance has ended")

    def rest(self, method: str, path: str, *, signed: bool = True, **request: Any) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        if signed:
            headers.setdefault("Authorization", f"Bearer {self._token or self._login()}")
        return HTTP.request(method, f"{self.card['api_url']}{path}", headers=headers, **request)

    def gateway(self, method: str, path: str, *, key: str = "", **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return HTTP.request(method, f"{self.card['gateway_url']}{path}", headers=headers, **request)

    def _login(self) -> str:
        password = Path(self.card["admin_password_file"]).read_text().strip()
        login = {"email": self.card["admin_username"], "password": password}
        reply = HTTP.post(f"{self.card['api_url']}/auth/login", json=login)
        reply.raise_for_status()
        self._token = reply.cookies["inventiv_session"]
        HTTP.cookies.clear()
        return self._token

    @property
    def key(self) -> str:
        """The command line's own API key."""
        return Path(self.card["api_key_file"]).read_text().strip()

    def agents(self) -> list[psutil.Process]:
        """The agent processes of this platform's local servers."""
        servers = str(self.data_dir / "servers")
        return [
            process
            for process in psutil.process_iter(["cmdline", "status"])
            if len(command := process.info["cmdline"] or []) == 2
            and command[1].startswith(servers)
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def server_names(self, *, deleted: bool = True) -> list[str]:
        """Of the local servers, those that were deleted included unless told otherwise."""
        places = ["local-*", "deleted/*"] if deleted else ["local-*"]
        records = [path for place in places for path in self.data_dir.glob(f"servers/{place}/server.json")]
        return [json.loads(path.read_bytes())["name"] for path in records]


def made(folder: Path, **variables: str) -> Platform:
    """A platform that has never run, with ports that nobody else is likely to take."""
    folder.chmod(0o711)
    data_dir = folder / "data"
    (data_dir / "run").mkdir(parents=True)
    data_dir.chmod(0o711)
    ports = msgspec.convert({name: some_port() for name in PORT_NAMES}, Ports)
    (data_dir / "run" / "ports.json").write_bytes(msgspec.json.encode(ports))
    return Platform(data_dir, {"INVENTIV_HEARTBEAT_INTERVAL_S": "0.5", **variables})


@contextmanager
def running(folder: Path, **variables: str) -> Iterator[Platform]:
    platform = made(folder, **variables)
    try:
        platform.start()
        yield platform
    finally:
        if platform.process is not None:
            assert platform.stop() == 0, platform.log
        assert platform.agents() == []
        assert platform.refusals() == []
