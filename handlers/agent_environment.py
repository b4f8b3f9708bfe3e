"""What a worker's agent is told at its birth: SPEC 3.1, from the wish and the organisation's settings.

The surprising rule: the same instance and attempt get the same text for as long as no setting changes, its one-time
token included, because a create that is repeated must be the same create.
"""

from collections.abc import Mapping

import msgspec

from domain.catalogue import HUGGING_FACE
from domain.planning import LOCAL
from domain.setting import SETTING, Value, resolved, settings_id_of
from handlers.instance_look import Look

MEGABYTES_PER_GB = 1024
SSH_PORT = 22
LEAST_DEAD_MAN_S = 60
"""A restart of the API takes a few seconds; a bound below it would switch healthy machines off."""


class WorkerSettings:
    """An organisation's settings for one provider; what it did not set is the definition's default."""

    def __init__(self, own: Mapping[str, Value]) -> None:
        self._own = own

    def number(self, key: str) -> int:
        return int(resolved(key, self._own, environment={}))

    def chosen(self, key: str) -> str:
        """Empty when nobody chose a value."""
        return str(self._own.get(key, ""))

    def is_on(self, key: str) -> bool:
        return bool(resolved(key, self._own, environment={}))

    @property
    def exposed_ports(self) -> tuple[int, ...]:
        """What the provider's firewall lets in; none where workers are reached in another way."""
        if not self.is_on("WORKER_EXPOSE_PORTS"):
            return ()
        return tuple(dict.fromkeys((SSH_PORT, self.number("WORKER_HEALTH_PORT"), self.number("WORKER_VLLM_PORT"))))


async def worker_settings(look: Look) -> WorkerSettings:
    settings_id = settings_id_of(look.organization, look.request.provider)
    return WorkerSettings((await look.doors.load(SETTING, look.organization, settings_id)).state.values)


async def agent_environment(look: Look) -> dict[str, str]:
    settings, doors = await worker_settings(look), look.doors
    request, place, owner = look.request, look.place, look.owner
    simulated = request.engine == "simulated"
    image = settings.chosen("WORKER_VLLM_IMAGE")
    return {
        "CONTROL_PLANE_URL": doors.settings.control_plane_url,
        "INSTANCE_ID": owner.instance_id,
        "MODEL_ID": request.model_code,
        "WORKER_AUTH_TOKEN": doors.secrets.bootstrap_token(owner.instance_id, owner.attempt),
        "WORKER_DEAD_MAN_S": str(_dead_man_s(settings.number("WORKER_DEAD_MAN_S"))),
        "WORKER_ENGINE": request.engine,
        "WORKER_HEALTH_PORT": str(settings.number("WORKER_HEALTH_PORT")),
        "WORKER_HEARTBEAT_INTERVAL_S": str(doors.settings.heartbeat_interval_s),
        "WORKER_SIMULATE_GPU_COUNT": str(place.gpu_count if simulated else 0),
        "WORKER_SIMULATE_GPU_VRAM_MB": str(max(1, place.vram_per_gpu_gb) * MEGABYTES_PER_GB),
        **(_tunnel(doors.settings.tunnel_url) if settings.is_on("WORKER_TUNNEL") else {}),
        **(
            {"WORKER_ENGINE_ARGS": engine_args(place.gpu_count, request.context_tokens)}
            if request.context_tokens
            else {}
        ),
        **({"WORKER_VLLM_IMAGE": image} if image else {}),
        **(await _model_access(look)),
        "WORKER_VLLM_PORT": str(settings.number("WORKER_VLLM_PORT")),
    }


async def _model_access(look: Look) -> dict[str, str]:
    """The token for gated models, for an engine that fetches its model itself; `local` serves what lies there.

    Raises:
        OSError: the vault is away.
    """
    if look.request.engine != "vllm" or look.request.provider == LOCAL:
        return {}
    token = (await look.doors.credentials(look.organization, HUGGING_FACE.code)).get("token", "")
    return {"HF_TOKEN": token} if token else {}


def engine_args(gpu_count: int, context_tokens: int) -> str:
    """As the deployment was planned: all GPUs serve one model, with the context that was found to fit."""
    args = ["--tensor-parallel-size", str(max(1, gpu_count)), "--max-model-len", str(context_tokens)]
    return msgspec.json.encode({"args": args}).decode()


def _dead_man_s(chosen: int) -> int:
    """Off unless somebody chose a bound: by default an outage of ours would switch whole fleets off."""
    return max(LEAST_DEAD_MAN_S, chosen) if chosen else 0


def _tunnel(url: str) -> dict[str, str]:
    """Where agents reach the relay; empty: at the API's own address, whose edge knows the way."""
    return {"WORKER_TUNNEL": "1", **({"WORKER_TUNNEL_URL": url} if url else {})}
