"""The only reader of environment variables. Every setting has a default, a unit and a meaning here.

Secrets come as files, never as variables: each lives in `<data folder>/secrets`, mode 0600, and is made by chance when
absent (embedded mode only).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from platformdirs import user_data_path

DEFAULT_API_PORT = 8003
DEFAULT_GATEWAY_PORT = 8002
DEFAULT_NATS_PORT = 42220
DEFAULT_POSTGRES_PORT = 54320
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What a child process gets of our own surroundings: enough to find programs and libraries, no stray secrets."""


class NatsLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection proves itself with, besides what its address says.

    Attributes:
        nkey_file: holds the seed of this service's own key.
        ca_file: PEM; who signed the servers' certificates. The machine's own authorities when absent.
    """

    nkey_file: Path | None = None
    ca_file: Path | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one process.

    Attributes:
        data_dir: INVENTIV_DATA_DIR; streams, tables, secrets, logs and local servers of the embedded mode.
        nats_url: INVENTIV_NATS_URL.
        nats_monitor_url: INVENTIV_NATS_MONITOR_URL; the server's monitoring address, to check its sync_interval; of a
            cluster every node's, separated by commas.
        nats_nkey_file: INVENTIV_NATS_NKEY_FILE; this service's own key (its seed) for a cluster that wants one.
        nats_ca_file: INVENTIV_NATS_CA_FILE; PEM of who signed the servers' certificates.
        nats_nodes: INVENTIV_NATS_NODES; nats-servers of `inventiv up`: 1, 3 or 5; 0 leaves it to the data folder.
        nats_replicas: INVENTIV_NATS_REPLICAS; fewest copies of each stream; services refuse to start with fewer.
        postgres_url: INVENTIV_POSTGRES_URL.
        host: INVENTIV_HOST; address that the API and the gateway listen on.
        api_port, gateway_port: INVENTIV_API_PORT, INVENTIV_GATEWAY_PORT.
        api_url: INVENTIV_API_URL; where agents and the CLI reach the API.
        gateway_url: INVENTIV_GATEWAY_URL.
        api_key: INVENTIV_API_KEY; the key that `inventiv chat` uses, when given.
        secrets_dir: INVENTIV_SECRETS_DIR; default `<data_dir>/secrets`.
        admin_password_file: INVENTIV_ADMIN_PASSWORD_FILE; the first admin's password is read from it.
        admin_email: INVENTIV_ADMIN_EMAIL.
        admin_username: INVENTIV_ADMIN_USERNAME.
        organization_name: INVENTIV_ORGANIZATION_NAME; the organisation that a fresh platform starts with.
        session_ttl_s: INVENTIV_SESSION_TTL_S, seconds a login lasts.
        cookie_secure: INVENTIV_COOKIE_SECURE=1 marks the cookie for https only.
        heartbeat_interval_s: INVENTIV_HEARTBEAT_INTERVAL_S, seconds between an agent's heartbeats.
        startup_timeout_s: INVENTIV_STARTUP_TIMEOUT_S, seconds a worker may take to become ready.
        worker_stale_s: INVENTIV_WORKER_STALE_S, seconds without heartbeat after which the gateway passes a worker over.
        drain_deadline_s: INVENTIV_DRAIN_DEADLINE_S, seconds that running answers get when their instance stops.
        engine_dir: INVENTIV_ENGINE_DIR; where `just engine` prepared the real engine.
        log_format: INVENTIV_LOG_FORMAT, "text" or "json".
    """

    data_dir: Path
    nats_url: str = f"nats://127.0.0.1:{DEFAULT_NATS_PORT}"
    nats_monitor_url: str = ""
    nats_nkey_file: Path | None = None
    nats_ca_file: Path | None = None
    nats_nodes: int = 0
    nats_replicas: int = 1
    postgres_url: str = ""
    host: str = "127.0.0.1"
    api_port: int = DEFAULT_API_PORT
    gateway_port: int = DEFAULT_GATEWAY_PORT
    api_url: str = f"http://127.0.0.1:{DEFAULT_API_PORT}"
    gateway_url: str = f"http://127.0.0.1:{DEFAULT_GATEWAY_PORT}"
    api_key: str = ""
    secrets_dir: Path
    admin_password_file: Path | None = None
    admin_email: str = "admin@inventiv.local"
    admin_username: str = "admin"
    organization_name: str = "Inventiv IT"
    session_ttl_s: int = 43_200
    cookie_secure: bool = False
    heartbeat_interval_s: float = 5.0
    startup_timeout_s: int = 3600
    worker_stale_s: int = 120
    drain_deadline_s: int = 300
    engine_dir: Path = Path(".engine")
    log_format: str = "text"

    @property
    def nats_login(self) -> NatsLogin:
        return NatsLogin(nkey_file=self.nats_nkey_file, ca_file=self.nats_ca_file)


def read_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """Reads every INVENTIV_* variable.

    Raises:
        ValueError: a value does not fit its type; the message names the variable.
    """
    data_dir = Path(variables.get("INVENTIV_DATA_DIR") or user_data_path("inventiv")).expanduser().resolve()
    given: dict[str, object] = {
        name: value
        for name in Environment.__struct_fields__
        if (value := variables.get(f"INVENTIV_{name.upper()}")) not in {None, ""}
    }
    given["data_dir"] = data_dir
    given.setdefault("secrets_dir", data_dir / "secrets")
    try:
        return msgspec.convert(given, Environment, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(f"An INVENTIV_* variable does not fit: {error}") from error


def surroundings(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of PASSED_ON that are set, for a child process."""
    return {name: value for name in PASSED_ON if (value := variables.get(name))}


def wants_colour(variables: Mapping[str, str] = os.environ) -> bool:
    """False when the person asked for none (NO_COLOR, see no-color.org) or the terminal has none (TERM=dumb)."""
    return not variables.get("NO_COLOR") and variables.get("TERM") != "dumb"


def _path(wanted: type, value: object) -> object:
    if wanted is Path:
        return Path(str(value))
    raise NotImplementedError(wanted)
