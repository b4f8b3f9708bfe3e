"""The wire between a worker's machine and the control plane: POST requests with JSON bodies, and one download.

    machine ── BootstrapReport, bootstrap token ──> BOOTSTRAP_PATH ──> Accepted          for each phase of its set-up
    machine ──────────────────────────────────────> AGENT_PATH     ──> agent.pyz         its ETag is its SHA-256
    agent ──── RegisterRequest, bootstrap token ──> REGISTER_PATH  ──> RegisterReply     once, until it succeeds
    agent ──── Heartbeat, worker token ───────────> HEARTBEAT_PATH ──> HeartbeatReply    on each change, else 5 s
    agent ──── RotateRequest, worker token ───────> ROTATE_PATH    ──> RotateReply       when a heartbeat's reply asks
    agent ──── Upgrade, worker token ─────────────> TUNNEL_PATH    ──> frames            a machine behind NAT
    relay ──── AuthorizeRequest, worker token ────> AUTHORIZE_PATH ──> Accepted          is that token good?

Refusals carry `{"error": code, "message": text}`. The surprising rule: fields are only ever added, with a default, and
unknown ones are ignored, because last month's agent still reports to today's control plane.
"""

from typing import Literal

import msgspec

REGISTER_PATH = "/internal/worker/register"
HEARTBEAT_PATH = "/internal/worker/heartbeat"
ROTATE_PATH = "/internal/worker/rotate"
BOOTSTRAP_PATH = "/internal/worker/bootstrap"
AGENT_PATH = "/internal/worker/agent.pyz"
AUTHORIZE_PATH = "/internal/worker/authorize"
TUNNEL_PATH = "/internal/worker/tunnel"
TUNNEL_PROTOCOL = "inventiv-tunnel"
TUNNEL_INSTANCE_HEADER = "x-inventiv-instance"

INSTANCE_GONE = "instance_gone"
"""Refusal code, with 404 or 410: the instance is over, the agent drains and ends."""

INSTANCE_NOT_ADDRESSED = "instance_not_addressed"
"""Refusal code, with 409: the instance is known, and its provider has not said its address yet; ask again."""

MAX_OUTPUT_LENGTH = 8000
"""Of a bootstrap phase's output, characters; its end is what tells."""
MAX_PATHS = 100
"""vLLM has about 40 paths with POST."""

WorkerStatus = Literal["starting", "ready", "draining"]
Desired = Literal["run", "drain", "stop"]


class AgentInfo(msgspec.Struct, frozen=True):
    """Which program reports; checksum is the SHA-256 (hex) of its archive."""

    version: str
    build_date: str
    checksum: str


class GpuSample(msgspec.Struct, frozen=True):
    """One GPU; null where the driver does not say. Utilisation in percent."""

    index: int
    gpu_utilization: float | None = None
    gpu_mem_used_mb: float | None = None
    gpu_mem_total_mb: float | None = None
    gpu_temp_c: float | None = None
    gpu_power_w: float | None = None
    gpu_power_limit_w: float | None = None


class SystemSample(msgspec.Struct, frozen=True):
    """The host. Rates are bits per second since the previous sample; totals count since the host started."""

    load1: float = 0.0
    load5: float = 0.0
    load15: float = 0.0
    cpu_usage_pct: float = 0.0
    mem_total_bytes: int = 0
    mem_used_bytes: int = 0
    disk_total_bytes: int = 0
    disk_used_bytes: int = 0
    net_rx_bps: float = 0.0
    net_tx_bps: float = 0.0
    net_rx_total_bytes: int = 0
    net_tx_total_bytes: int = 0


class EngineLoad(msgspec.Struct, frozen=True):
    """Requests in the engine; queue_depth is running + waiting.

    Attributes:
        kv_cache_usage: share (0..1) of the KV cache that is in use; null when the engine does not say.
    """

    requests_waiting: int = 0
    requests_running: int = 0
    queue_depth: int = 0
    kv_cache_usage: float | None = None


class Metadata(msgspec.Struct, frozen=True):
    """The sample behind a report; memory and power are sums over the GPUs, temperature is the hottest one's."""

    gpu_mem_total_mb: float | None = None
    gpu_temp_c: float | None = None
    gpu_power_w: float | None = None
    gpu_power_limit_w: float | None = None
    gpus: tuple[GpuSample, ...] = ()
    system: SystemSample = SystemSample()
    vllm: EngineLoad = EngineLoad()


class BootstrapReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one phase of a machine's set-up (SPEC 4.4) ended; `output` is the end of what it printed, both streams."""

    instance_id: str
    phase: str
    ok: bool
    output: str = ""


class RegisterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The first report. The gateway reaches the engine at `base_url`, probes reach the agent at `agent_url`.

    `tunnel`: nobody can reach the machine, whatever those two say; the agent parks connections at TUNNEL_PATH.
    """

    instance_id: str
    worker_id: str
    model_id: str
    vllm_port: int
    health_port: int
    ip_address: str
    base_url: str
    agent_url: str
    agent_info: AgentInfo
    metadata: Metadata = Metadata()
    tunnel: bool = False


class RegisterReply(msgspec.Struct, frozen=True, kw_only=True):
    """The worker's own token, shown this once; heartbeat_interval_s of 0 leaves the agent its own setting."""

    worker_token: str
    status: Literal["ok"] = "ok"
    worker_token_prefix: str = ""
    heartbeat_interval_s: float = 0.0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's state now.

    Attributes:
        status: ready exactly when warmed_up holds and the worker is not draining.
        engine_up: the engine answers GET /v1/models with 200.
        model_loaded: and lists model_id.
        warmed_up: and has answered one short chat since it started.
        queue_depth: requests running and waiting in the engine.
        engine_paths: that the engine answers POST at, as far as it says; at most MAX_PATHS.
        context_tokens: the longest prompt and answer together; 0 when the engine does not say.
        gpu_utilization: mean over the GPUs, percent; null without a GPU.
        gpu_mem_used_mb: sum over the GPUs; null without a GPU.
    """

    instance_id: str
    worker_id: str
    status: WorkerStatus
    model_id: str
    engine_up: bool
    model_loaded: bool
    warmed_up: bool
    queue_depth: int
    ip_address: str
    agent_info: AgentInfo
    engine_paths: tuple[str, ...] = ()
    context_tokens: int = 0
    gpu_utilization: float | None = None
    gpu_mem_used_mb: float | None = None
    metadata: Metadata = Metadata()


class HeartbeatReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane wants: run on, drain (finish, but keep serving), or stop (drain, then end).

    `rotate_token`: the worker's token is old; the agent fetches its next one at ROTATE_PATH.
    """

    status: Literal["ok"] = "ok"
    desired: Desired = "run"
    rotate_token: bool = False


class RotateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Wants the next token, with the present one as bearer."""

    instance_id: str
    worker_id: str


class RotateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The next token, shown this once. The present one stays good until the next one is first used."""

    worker_token: str
    worker_token_prefix: str = ""


class AuthorizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the bearer is a good token of this instance's worker, asked by a relay on the worker's behalf."""

    instance_id: str


class Accepted(msgspec.Struct, frozen=True):
    """Heard, and nothing more to say."""

    status: Literal["ok"] = "ok"


class Refusal(msgspec.Struct, frozen=True):
    """Body of any reply but 200."""

    error: str = ""
    message: str = ""
