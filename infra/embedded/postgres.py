"""A real Postgres as a child of ours: the home of the read models when no POSTGRES_URL is configured.

    prepare: initdb once, clear what a crash left ──> postgres -D cluster ──> ready: it answers a login

Postgres refuses to run as root. When we are root (a container), it runs as an unprivileged account that must be able to
walk to its binary and its data; where it cannot (a data folder under a home with mode 700), both go to
/var/lib/inventiv-agents and the data folder keeps a note, `cluster.location`, of where they went.
"""

import asyncio
import signal
from pathlib import Path

import psutil
import psycopg
import structlog

from infra.embedded import child
from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, new_password, wait_until
from infra.embedded.owned import OwnedServer
from infra.embedded.postgres_place import Place, find_place
from infra.secret_files import secret_file

_log = structlog.get_logger(__name__)

SUPERUSER = "inventiv"
DATABASE = "postgres"
"""The one that initdb makes; a second one would only cost a start for its name."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP alone: a socket's path has a length limit that data folders exceed
    "max_connections": "100",
    "shared_buffers": "32MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "dynamic_shared_memory_type": "posix",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # a failing statement's text may hold personal data
}
INITDB_TIMEOUT_S = 120.0
LEFTOVER_TIMEOUT_S = 10.0
"""Backends notice a dead postmaster at once, unless they are deep in a statement."""


class EmbeddedPostgres(OwnedServer):
    """One Postgres on loopback.

    Args:
        data_dir: password and log, and (unless it cannot be reached, see above) the cluster.
        port: on 127.0.0.1.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions; SIGTERM would wait for every client to leave

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self.log_path = data_dir / "postgres.log"
        self._place: Place | None = None

    @property
    def url(self) -> str:
        """postgresql://... with the password: do not log it."""
        return f"postgresql://{SUPERUSER}:{self._password()}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def user(self) -> str | None:
        return self._found().user

    @property
    def cluster_dir(self) -> Path:
        """Where the database files are."""
        return self._found().cluster

    async def prepare(self) -> None:
        place = self._found()
        if place.moved:
            _log.warning("postgres_data_elsewhere", wanted=str(self.data_dir), used=str(place.cluster), user=place.user)
        if not (place.cluster / "PG_VERSION").exists():
            await self._initdb(place)
        await self._clear_crash_leftovers(place.cluster)

    def command(self) -> list[str]:
        place = self._found()
        settings = [argument for name, value in SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        return [str(place.binaries / "postgres"), "-D", str(place.cluster), "-p", str(self.port), *settings]

    def environment(self) -> dict[str, str]:
        return {"LC_ALL": "C", "TZ": "UTC"}

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        await wait_until(self._answers, f"postgres on port {self.port}", timeout_s)

    def _found(self) -> Place:
        if self._place is None:
            self._place = find_place(self.data_dir)
        return self._place

    def _password(self) -> str:
        self._found()  # makes the folder; the secret's own would be closed to Postgres's account
        return secret_file(self.data_dir / "postgres.password", new_password).decode()

    async def _answers(self) -> bool:
        """The pid file says when a login is worth trying (each one too early is a line of FATAL in the log)."""
        if not _says_ready(self._found().cluster / "postmaster.pid"):
            return False
        try:
            connection = await psycopg.AsyncConnection.connect(self.url, connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def _initdb(self, place: Place) -> None:
        """Into a draft folder, renamed when whole: a crash midway leaves nothing that looks like a cluster."""
        draft = place.new_draft()
        password_file = draft.with_name(draft.name + ".password")
        place.write_private(password_file, self._password())
        command = [str(place.binaries / "initdb"), "-D", str(draft), "-U", SUPERUSER, f"--pwfile={password_file}"]
        command += ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--locale=C"]
        try:
            process = await child.spawn(
                command, env=self.environment(), log_path=self.data_dir / "initdb.log", user=place.user
            )
            try:
                status = await asyncio.wait_for(process.wait(), INITDB_TIMEOUT_S)
            finally:
                await child.stop(process)
        except TimeoutError:
            raise EmbeddedServerError(f"initdb did not finish within {INITDB_TIMEOUT_S} s") from None
        finally:
            password_file.unlink(missing_ok=True)
        if status != 0:
            tail = child.log_tail(self.data_dir / "initdb.log")
            raise EmbeddedServerError(f"initdb failed with status {status}:\n{tail}")
        draft.replace(place.cluster)

    async def _clear_crash_leftovers(self, cluster: Path) -> None:
        """After a SIGKILL: waits for the orphans to go, then removes the stale pid file.

        Postgres believes a pid file whose number some other process of the same account has taken since, and would
        refuse to start for as long as that process lives.

        Raises:
            EmbeddedServerError: another Postgres serves this cluster, and goes on doing so.
        """
        pid_file = cluster / "postmaster.pid"
        if not pid_file.exists():
            return

        async def nobody_left() -> bool:
            return not _processes_on(cluster)

        try:
            await wait_until(nobody_left, "the end of the previous postgres", LEFTOVER_TIMEOUT_S)
        except EmbeddedServerError:
            pids = ", ".join(map(str, _processes_on(cluster)))
            raise EmbeddedServerError(
                f"another Postgres (pid {pids}) serves {cluster}; stop it, or use another data folder"
            ) from None
        pid_file.unlink(missing_ok=True)


def _says_ready(pid_file: Path) -> bool:
    try:
        return pid_file.read_text().rstrip().endswith("ready")
    except FileNotFoundError:
        return False


def _processes_on(cluster: Path) -> list[int]:
    """Pids of Postgres processes whose working directory is the cluster, as that of every one of them is."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(cluster.resolve())
    ]
