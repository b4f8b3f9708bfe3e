"""Starting a real vLLM: the command line, and a whole worker whose `vllm` is a stand-in program."""

import json
import sys
from pathlib import Path

import pytest

from agent.settings import Settings, SettingsError, settings_from
from agent.vllm_engine import vllm_command
from gateway.origin import OWN_KEEPALIVE_S
from tests.agent.stand_in import MODEL, ROOT, AgentProcess, stand_in

PROGRAM = f"""\
#!{sys.executable}
import argparse, os, sys
sys.path.insert(0, {str(ROOT)!r})
parser = argparse.ArgumentParser()
for name in ("serve", "model"):
    parser.add_argument(name)
for name in ("--served-model-name", "--host", "--port", "--max-model-len"):
    parser.add_argument(name, required=True)
given = parser.parse_args()
print("loading", given.model, "offline", os.environ["HF_HUB_OFFLINE"], "secret" in os.environ.values(), flush=True)
from agent.simulated_engine import main
main(["--model", given.served_model_name, "--host", given.host, "--port", given.port])
"""
ARGS = {"model": "weights", "args": ["--max-model-len", "1024"], "env": {"HF_HUB_OFFLINE": "1"}}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "vllm"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def settings(command: Path | str, args: object = None) -> Settings:
    return settings_from(
        {
            "CONTROL_PLANE_URL": "http://127.0.0.1:9",
            "INSTANCE_ID": "i",
            "MODEL_ID": MODEL,
            "WORKER_BIND_IP": "127.8.1.2",
            "WORKER_VLLM_COMMAND": str(command),
            "WORKER_ENGINE_ARGS": json.dumps(args or {}),
        }
    )


def test_the_model_is_served_under_the_workers_name(program: Path) -> None:
    command = vllm_command(settings(program, ARGS))
    serve = command.argv[command.argv.index(str(program)) :]
    assert serve[1:3] == ("serve", "weights")
    assert serve[3:] == (
        *("--served-model-name", MODEL),
        *("--host", "127.8.1.2"),
        *("--port", "8000"),
        *("--max-model-len", "1024"),
    )
    assert command.environment["HF_HUB_OFFLINE"] == "1"


def test_quiet_connections_are_kept_longer_than_the_gateway_keeps_them(program: Path) -> None:
    assert float(vllm_command(settings(program)).environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > OWN_KEEPALIVE_S


def test_who_sets_that_time_otherwise_has_the_last_word(program: Path) -> None:
    given = {"env": {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "9"}}
    assert vllm_command(settings(program, given)).environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "9"


def test_without_a_model_of_its_own_the_workers_model_is_loaded(program: Path) -> None:
    argv = vllm_command(settings(program)).argv
    assert argv[argv.index("serve") + 1] == MODEL


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WORKER_VLLM_COMMAND: no program"):
        vllm_command(settings(tmp_path / "missing"))


@pytest.mark.parametrize("args", [{"modle": "typo"}, {"args": "--one-string"}, []])
def test_arguments_of_another_shape_are_refused(program: Path, args: object) -> None:
    with pytest.raises(SettingsError, match="WORKER_ENGINE_ARGS"):
        vllm_command(settings(program, args or [1]))


async def test_a_worker_runs_it_to_ready_and_ends_it(program: Path, tmp_path: Path) -> None:
    variables = {
        "WORKER_ENGINE": "vllm",
        "WORKER_VLLM_COMMAND": str(program),
        "WORKER_ENGINE_ARGS": json.dumps(ARGS),
        "WORKER_AUTH_TOKEN": "bootstrap-token",
    }
    async with stand_in() as plane, AgentProcess(plane.url, tmp_path / "state", **variables) as agent:
        await plane.until_beat(lambda beat: beat.status == "ready")
        assert await agent.end() == 0
    assert "loading weights offline 1 False" in (tmp_path / "state" / "engine.log").read_text()
