"""What the agent is told by its environment, and what it says when it is told nonsense."""

from pathlib import Path

import pytest

from agent.settings import SettingsError, settings_from

LEAST = {
    "CONTROL_PLANE_URL": "http://127.0.0.1:9/",
    "INSTANCE_ID": "i",
    "MODEL_ID": "m",
    "WORKER_AUTH_TOKEN": "secret",
}


def test_the_least_that_is_needed_gives_the_defaults_of_the_specification() -> None:
    settings = settings_from(LEAST)
    assert (settings.health_port, settings.vllm_port, settings.heartbeat_interval_s) == (8080, 8000, 5.0)
    assert (settings.engine, settings.vllm_command, settings.warmup) == ("vllm", "vllm", True)
    assert settings.engine_url == "http://127.0.0.1:8000"
    assert settings.engine_metrics_url == "http://127.0.0.1:8000/metrics"
    assert settings.control_plane_url == "http://127.0.0.1:9"


def test_the_address_it_listens_on_is_the_one_it_advertises() -> None:
    settings = settings_from({**LEAST, "WORKER_BIND_IP": "127.8.1.2"})
    assert settings.base_url == "http://127.8.1.2:8000"
    assert settings.agent_url == "http://127.8.1.2:8080"
    assert settings.engine_url == "http://127.8.1.2:8000"


def test_listening_everywhere_advertises_the_address_that_routes_to_the_control_plane() -> None:
    assert settings_from(LEAST).advertise_ip == "127.0.0.1"


def test_an_ipv6_address_is_bracketed() -> None:
    assert settings_from({**LEAST, "WORKER_ADVERTISE_IP": "fd00::7"}).base_url == "http://[fd00::7]:8000"


def test_the_bootstrap_token_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file\n")
    assert (
        settings_from({**LEAST, "WORKER_AUTH_TOKEN_FILE": str(tmp_path / "token")}).bootstrap_token == "from the file"
    )


def test_the_engine_inherits_everything_but_the_agents_secrets() -> None:
    inherited = settings_from({**LEAST, "HF_TOKEN": "for the engine"}).engine_environment
    assert inherited["HF_TOKEN"] == "for the engine"
    assert "WORKER_AUTH_TOKEN" not in inherited


@pytest.mark.parametrize("name", ["CONTROL_PLANE_URL", "INSTANCE_ID", "MODEL_ID"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not set"):
        settings_from({key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_VLLM_PORT", "0"),
        ("WORKER_HEALTH_PORT", "70000"),
        ("WORKER_HEALTH_PORT", "eight"),
        ("WORKER_HEARTBEAT_INTERVAL_S", "-1"),
        ("WORKER_HEARTBEAT_INTERVAL_S", "inf"),
        ("WORKER_SIMULATE_GPU_COUNT", "-1"),
        ("WORKER_ENGINE", "abacus"),
        ("WORKER_VLLM_WARMUP", "maybe"),
        ("WORKER_AUTH_TOKEN_FILE", "/nowhere/token"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        settings_from({**LEAST, name: value})
