"""What the agent is told, read once from its environment: the only place in this room that knows a variable's name."""

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

T = TypeVar("T")

EngineKind = Literal["simulated", "vllm"]

DEFAULT_STATE_DIR = "/opt/inventiv-worker"
DEFAULT_HEALTH_PORT = 8080
DEFAULT_VLLM_PORT = 8000
DEFAULT_HEARTBEAT_INTERVAL_S = 5.0
DEFAULT_GPU_VRAM_MB = 24576
DEFAULT_DRAIN_TIMEOUT_S = 30.0
MAX_PORT = 65535
MAX_SIMULATED_GPUS = 64

_SECRETS = ("WORKER_AUTH_TOKEN", "WORKER_AUTH_TOKEN_FILE")
_SWITCH = {"1": True, "on": True, "true": True, "yes": True, "0": False, "off": False, "false": False, "no": False}
_ENGINES: dict[str, EngineKind] = {"simulated": "simulated", "vllm": "vllm"}


class SettingsError(Exception):
    """A variable is missing or wrong; the message names it and what it wants."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs from one worker to the next.

    Attributes:
        bootstrap_token: for the one registration; empty when a stored token makes it needless.
        worker_id: empty when the agent is to choose one, which it then keeps.
        state_dir: holds the worker token, the logs and the engine's pid; must survive a restart of the agent.
        bind_ip: where the agent and its engine listen.
        advertise_ip: where the gateway and the control plane reach them.
        engine_args: JSON object, read by the engine's own driver.
        engine_environment: what the engine's process inherits: everything but the agent's own secrets.
        drain_timeout_s: the longest wait for running requests after SIGTERM.
        dead_man_s: without an answer of the control plane for this long the machine is switched off; 0: never.
        power_off_file, power_off_command: how; see power_off.py.
        tunnel_url: where connections are parked for a machine that nobody can reach; empty: it can be reached.
    """

    control_plane_url: str
    bootstrap_token: str
    instance_id: str
    worker_id: str
    model_id: str
    state_dir: Path
    log_file: Path
    disk_path: Path
    bind_ip: str
    advertise_ip: str
    health_port: int = DEFAULT_HEALTH_PORT
    vllm_port: int = DEFAULT_VLLM_PORT
    engine_url: str
    engine_metrics_url: str
    heartbeat_interval_s: float = DEFAULT_HEARTBEAT_INTERVAL_S
    drain_timeout_s: float = DEFAULT_DRAIN_TIMEOUT_S
    engine: EngineKind = "vllm"
    engine_args: bytes = b"{}"
    engine_environment: dict[str, str] = {}
    vllm_command: str = "vllm"
    warmup: bool = True
    simulated_gpu_count: int = 0
    simulated_gpu_vram_mb: int = DEFAULT_GPU_VRAM_MB
    dead_man_s: float = 0.0
    power_off_file: Path | None = None
    power_off_command: str = ""
    tunnel_url: str = ""

    @property
    def base_url(self) -> str:
        return _http_url(self.advertise_ip, self.vllm_port)

    @property
    def agent_url(self) -> str:
        return _http_url(self.advertise_ip, self.health_port)

    @property
    def local_ip(self) -> str:
        """Where the agent's own processes reach what listens here."""
        return _probe_ip(self.bind_ip)


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Reads and checks all variables (SPEC 3.1).

    Raises:
        SettingsError: the first variable that is missing or wrong.
    """
    control_plane_url = _required(environ, "CONTROL_PLANE_URL").rstrip("/")
    state_dir = Path(environ.get("WORKER_STATE_DIR") or DEFAULT_STATE_DIR)
    bind_ip = environ.get("WORKER_BIND_IP") or "0.0.0.0"
    vllm_port = _number(environ, "WORKER_VLLM_PORT", DEFAULT_VLLM_PORT, most=MAX_PORT)
    engine_url = (environ.get("VLLM_BASE_URL") or _http_url(_probe_ip(bind_ip), vllm_port)).rstrip("/")
    return Settings(
        control_plane_url=control_plane_url,
        bootstrap_token=_bootstrap_token(environ),
        instance_id=_required(environ, "INSTANCE_ID"),
        worker_id=environ.get("WORKER_ID", ""),
        model_id=_required(environ, "MODEL_ID"),
        state_dir=state_dir,
        log_file=Path(environ.get("WORKER_LOG_FILE") or state_dir / "worker-events.log"),
        disk_path=Path(environ.get("WORKER_DISK_PATH") or state_dir),
        bind_ip=bind_ip,
        advertise_ip=environ.get("WORKER_ADVERTISE_IP") or _own_ip(bind_ip, control_plane_url),
        health_port=_number(environ, "WORKER_HEALTH_PORT", DEFAULT_HEALTH_PORT, most=MAX_PORT),
        vllm_port=vllm_port,
        engine_url=engine_url,
        engine_metrics_url=environ.get("VLLM_METRICS_URL") or f"{engine_url}/metrics",
        heartbeat_interval_s=_seconds(environ, "WORKER_HEARTBEAT_INTERVAL_S", DEFAULT_HEARTBEAT_INTERVAL_S),
        drain_timeout_s=_seconds(environ, "WORKER_DRAIN_TIMEOUT_S", DEFAULT_DRAIN_TIMEOUT_S),
        engine=_engine(environ),
        engine_args=(environ.get("WORKER_ENGINE_ARGS") or "{}").encode(),
        engine_environment={name: value for name, value in environ.items() if name not in _SECRETS},
        vllm_command=environ.get("WORKER_VLLM_COMMAND") or "vllm",
        warmup=_switch(environ, "WORKER_VLLM_WARMUP"),
        simulated_gpu_count=_number(environ, "WORKER_SIMULATE_GPU_COUNT", 0, most=MAX_SIMULATED_GPUS, least=0),
        simulated_gpu_vram_mb=_number(environ, "WORKER_SIMULATE_GPU_VRAM_MB", DEFAULT_GPU_VRAM_MB, most=1 << 24),
        dead_man_s=_seconds(environ, "WORKER_DEAD_MAN_S", 0.0, or_zero=True),
        power_off_file=_path(environ, "WORKER_POWER_OFF_FILE"),
        power_off_command=environ.get("WORKER_POWER_OFF_COMMAND", ""),
        tunnel_url=_tunnel_url(environ, control_plane_url),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _bootstrap_token(environ: Mapping[str, str]) -> str:
    path = environ.get("WORKER_AUTH_TOKEN_FILE")
    if not path:
        return environ.get("WORKER_AUTH_TOKEN", "")
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"WORKER_AUTH_TOKEN_FILE cannot be read: {error.strerror}") from error


def _number(environ: Mapping[str, str], name: str, default: int, *, most: int, least: int = 1) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, *, or_zero: bool = False) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value < float("inf") or (or_zero and value == 0)):
        raise SettingsError(f"{name} must be a positive number of seconds{' or 0' * or_zero}, not {text!r}")
    return value


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _tunnel_url(environ: Mapping[str, str], control_plane_url: str) -> str:
    if not _switch(environ, "WORKER_TUNNEL", default="off"):
        return ""
    url = (environ.get("WORKER_TUNNEL_URL") or control_plane_url).rstrip("/")
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise SettingsError(f"WORKER_TUNNEL_URL must be an http or https address, not {url!r}")
    return url


def _switch(environ: Mapping[str, str], name: str, *, default: str = "on") -> bool:
    text = environ.get(name) or default
    if text.lower() not in _SWITCH:
        raise SettingsError(f"{name} must be on or off, not {text!r}")
    return _SWITCH[text.lower()]


def _engine(environ: Mapping[str, str]) -> EngineKind:
    name = environ.get("WORKER_ENGINE") or "vllm"
    if name not in _ENGINES:
        raise SettingsError(f"WORKER_ENGINE must be one of {', '.join(_ENGINES)}, not {name!r}")
    return _ENGINES[name]


def _http_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _probe_ip(bind_ip: str) -> str:
    """Where a process on this host reaches what listens on `bind_ip`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_ip, bind_ip)


def _own_ip(bind_ip: str, control_plane_url: str) -> str:
    """The address that this host shows to the control plane: the one it listens on, else the one it routes from."""
    if not ipaddress.ip_address(bind_ip).is_unspecified:
        return bind_ip
    target = urlsplit(control_plane_url)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            target.hostname, target.port or 443, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # a datagram socket sends nothing here: it only chooses its route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise SettingsError("WORKER_ADVERTISE_IP is not set, and no route to CONTROL_PLANE_URL tells it") from error


def engine_args(settings: Settings, shape: type[T]) -> T:
    """WORKER_ENGINE_ARGS as its engine's own struct.

    Raises:
        SettingsError: it is not JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(settings.engine_args, type=shape)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"WORKER_ENGINE_ARGS: {error}") from error
