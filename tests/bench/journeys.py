"""What a newcomer waits for, in seconds on this machine: from a clone to the card, from data on disk to the card, and
from the wish for a model to its first token. The platform is started as a person starts it, as a process of its own.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from tests.bench import visible

ROOT = Path(__file__).parent.parent.parent
UP_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
MODEL = "mock-echo-model"
OWN = "UV_CACHE_DIR", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"


def cold_clone(folder: Path) -> float:
    """Seconds from `git clone` to the card: uv itself, its cache, the venv and the data folder all start empty."""
    clean = {name: value for name, value in os.environ.items() if name not in OWN}
    environment = {**clean, "UV_CACHE_DIR": str(folder / "cache"), "INVENTIV_DATA_DIR": str(folder / "data")}
    began = time.perf_counter()
    _run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], environment)
    _run([sys.executable, "-m", "venv", str(folder / "uv")], environment)
    pip = str(folder / "uv" / "bin" / "pip")
    _run([pip, "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "uv"], environment)
    uv = str(folder / "uv" / "bin" / "uv")
    with _platform([uv, "run", "inventiv", "up", "--json"], environment, cwd=folder / "clone"):
        return time.perf_counter() - began


def warm(folder: Path) -> dict[str, float]:
    """warm_up_s: `up` on data that exist, to the card. deploy_to_first_token_s: from the command to the first token;
    and the figures of visible.py, taken on the same running platform."""
    environment = {**os.environ, "INVENTIV_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "infra.cli.main", "up", "--json"]
    with _platform(command, environment):
        pass
    began = time.perf_counter()
    with _platform(command, environment) as card:
        warm_up_s = time.perf_counter() - began
        began = time.perf_counter()
        _run([sys.executable, "-m", "infra.cli.main", "deploy", MODEL, "--json"], environment)
        _first_token(card["gateway_url"], Path(card["api_key_file"]).read_text(encoding="utf-8").strip())
        deployed_s = time.perf_counter() - began
        running = json.loads((folder / "run" / "platform.json").read_text(encoding="utf-8"))
        seen = asyncio.run(visible.measure(running["nats_url"], running["postgres_url"]))
        return {"warm_up_s": warm_up_s, "deploy_to_first_token_s": deployed_s, **seen}


def _first_token(gateway_url: str, key: str) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{gateway_url}/v1/chat/completions", json=body, headers=headers, timeout=30) as reply:
        reply.raise_for_status()
        assert any("content" in line for line in reply.iter_lines()), "the stream held no token"


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=UP_TIMEOUT_S)


@contextmanager
def _platform(command: list[str], environment: Mapping[str, str], cwd: Path = ROOT) -> Iterator[dict[str, Any]]:
    """Runs `up` until its card is out, lends the card, then stops it as Ctrl-C would."""
    process = subprocess.Popen(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield _card(process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        process.wait(STOP_TIMEOUT_S)


def _card(output: IO[str]) -> dict[str, Any]:
    text = ""
    for line in output:
        text += line
        try:
            card: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            continue
        return card
    raise RuntimeError("`inventiv up` ended without its card")
