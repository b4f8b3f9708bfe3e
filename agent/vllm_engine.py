"""Starts a real vLLM: `vllm serve <model> --served-model-name <MODEL_ID> --host ... --port ...` and more.

WORKER_ENGINE_ARGS holds `{"model": path or id, "args": [...], "env": {...}}`; without a model, MODEL_ID is served.
"""

import os
import shutil

import msgspec

from agent.child import own_command
from agent.engine import EngineCommand
from agent.settings import Settings, SettingsError, engine_args

KEEP_ALIVE_S = 75
"""How long vLLM keeps a quiet connection, instead of uvicorn's 5 s: longer than the gateway reuses one (its
OWN_KEEPALIVE_S, 60 s), so that a request meets no connection that is just being closed."""


class VllmArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """WORKER_ENGINE_ARGS of vLLM.

    Attributes:
        model: what to load: a folder, or a model id that vLLM fetches itself; empty means MODEL_ID.
        args: further arguments of `vllm serve`.
        env: further variables of its process.
    """

    model: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}


def vllm_command(settings: Settings) -> EngineCommand:
    """Raises SettingsError when WORKER_VLLM_COMMAND is not there, or WORKER_ENGINE_ARGS is not VllmArgs."""
    program = shutil.which(settings.vllm_command)
    if program is None:
        raise SettingsError(f"WORKER_VLLM_COMMAND: no program {settings.vllm_command!r}")
    given = engine_args(settings, VllmArgs)
    serve = (program, "serve", given.model or settings.model_id, "--served-model-name", settings.model_id)
    listen = ("--host", settings.bind_ip, "--port", str(settings.vllm_port))
    argv = own_command("exec", str(os.getpid()), *serve, *listen, *given.args)
    ours = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S)}
    return EngineCommand(tuple(argv), {**ours, **settings.engine_environment, **given.env})
