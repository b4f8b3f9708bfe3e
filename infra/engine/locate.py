"""Finds the prepared real engine, for whoever starts instances on this machine."""

from dataclasses import dataclass, field
from pathlib import Path

from infra.engine.recipe import Layout, is_prepared

KV_CACHE_GB = 1
MAX_MODEL_LENGTH_TOKENS = 1024


@dataclass(frozen=True)
class PreparedEngine:
    """A vLLM that starts here without GPU and without network.

    Attributes:
        vllm_command: the executable; the agent's WORKER_VLLM_COMMAND.
        model_path: folder of the model to serve, under whatever name.
        environment: variables that its process needs besides the usual ones.
        args: extra arguments of `vllm serve`.
    """

    vllm_command: Path
    model_path: Path
    environment: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()

    def engine_args(self) -> dict[str, object]:
        """The agent's WORKER_ENGINE_ARGS for this engine, ready for JSON."""
        return {"model": str(self.model_path), "args": list(self.args), "env": self.environment}


def prepared_engine(folder: Path) -> PreparedEngine | None:
    """The engine that `python -m infra.engine.prepare` made in `folder`; None when it is missing or stale."""
    layout = Layout(folder.absolute())
    if not is_prepared(layout):
        return None
    return PreparedEngine(
        vllm_command=layout.vllm_command,
        model_path=layout.model,
        environment={
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GB),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        },
        args=("--max-model-len", str(MAX_MODEL_LENGTH_TOKENS), "--enforce-eager"),
    )
