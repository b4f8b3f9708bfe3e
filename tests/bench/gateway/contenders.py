"""Other people's gateways, set up the way a careful operator would: two workers, keep-alive, no access log.

    nginx: a bare proxy          vllm-router: power_of_two          LiteLLM: one worker, no database, tuned

"Tuned" for LiteLLM is httptools and prices: without prices it spends a seventh of its time on finding that out. None of
them counts usage, and only LiteLLM checks a key: what they leave out is to their advantage.
"""

import os
import secrets
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.embedded.child import EmbeddedServerError, log_tail, stop, wait_until
from infra.embedded.ports import free_port
from infra.environment import surroundings
from tests.bench.gateway.processes import Command, start
from tests.bench.gateway.toolbox import MissingError, nginx_program, wheel_program

MODEL = "bench-model"
KEY = "sk-bench-0123456789"
FIRST_PORT = 26_000 + secrets.randbelow(1_500)
"""Another one in each run: two at a time must not meet on a port between its choice and its bind."""
READY_S = 90.0
"""LiteLLM imports for 15 s."""
GRACE_S = 4.0

_NGINX = """
daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engines {{ {servers} keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 1000000000; keepalive_timeout 3600s; client_body_buffer_size 1m;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 3600s;
    }}
  }}
}}
"""
_LITELLM = """
model_list:
{deployments}
general_settings:
  master_key: {key}
litellm_settings:
  set_verbose: false
"""
_LITELLM_DEPLOYMENT = """
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{port}/v1
      api_key: none
      input_cost_per_token: 0.000001
      output_cost_per_token: 0.000002
"""
_LITELLM_VARIABLES = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "*",
}

Launch = Callable[[Path, int, Sequence[int]], Awaitable[tuple[Command, Mapping[str, str]]]]
"""(folder, port, ports of the engines) -> command and variables; raises MissingError."""


@dataclass(frozen=True)
class Running:
    """Somebody who answers on `port`; a gateway is measured with all its children, and pid 0 not at all."""

    port: int
    pid: int = 0
    key: str = KEY


@asynccontextmanager
async def running(contender: str, folder: Path, core: int, engines: Sequence[int]) -> AsyncIterator[Running]:
    """One of LAUNCHES, fresh, on that core.

    Raises:
        MissingError: it cannot be had here, or does not come up.
    """
    make_place(folder)
    port, log = free_port(FIRST_PORT), folder / "log"
    command, variables = await LAUNCHES[contender](folder, port, engines)
    process = await start(command, core=core, log=log, variables={**surroundings(), **variables})
    try:
        await wait_until(lambda: _answers(process, port), contender, READY_S)
        yield Running(port, process.pid)
    except EmbeddedServerError as error:
        raise MissingError(f"{error}; its log ends:\n{log_tail(log)}") from error
    finally:
        await stop(process, grace_s=GRACE_S)


def make_place(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


async def _answers(process: Process, port: int) -> bool:
    """Whether it relays; its own health page may answer long before.

    Raises:
        EmbeddedServerError: it ended.
    """
    if process.returncode is not None:
        raise EmbeddedServerError(f"it ended with status {process.returncode}")
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
            return (await client.post(url, json=body, headers=headers)).status_code == 200
    except httpx.TransportError:
        return False


async def _nginx(folder: Path, port: int, engines: Sequence[int]) -> tuple[Command, Mapping[str, str]]:
    program = await nginx_program()
    config = folder / "nginx.conf"
    servers = " ".join(f"server 127.0.0.1:{engine};" for engine in engines)
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(user=user, folder=folder, servers=servers, port=port))
    return [program, "-p", folder, "-e", folder / "error.log", "-c", config], {}


async def _vllm_router(folder: Path, port: int, engines: Sequence[int]) -> tuple[Command, Mapping[str, str]]:
    program = await wheel_program("vllm-router")
    urls = [f"http://127.0.0.1:{engine}" for engine in engines]
    return [
        *(program, "--host", "127.0.0.1", "--port", str(port), "--policy", "power_of_two", "--worker-urls", *urls),
        *("--worker-startup-check-interval", "1", "--log-level", "error", "--log-dir", folder / "logs"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port(FIRST_PORT + 500))),
    ], {}


async def _litellm(folder: Path, port: int, engines: Sequence[int]) -> tuple[Command, Mapping[str, str]]:
    program = await wheel_program("litellm")
    config = folder / "litellm.yaml"
    deployments = "".join(_LITELLM_DEPLOYMENT.format(model=MODEL, port=engine) for engine in engines)
    config.write_text(_LITELLM.format(deployments=deployments, key=KEY))
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return [*command, "--telemetry", "False"], _LITELLM_VARIABLES


LAUNCHES: Mapping[str, Launch] = {
    "nginx": _nginx,
    "nginx-again": _nginx,
    "vllm-router": _vllm_router,
    "litellm": _litellm,
}
"""`nginx-again` is the control: the same thing twice, so its ratio tells how far two equal costs come out apart."""
