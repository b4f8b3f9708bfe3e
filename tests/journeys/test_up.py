"""`inventiv up` itself: what it prints, what a second one does, what stays, and what it leaves behind."""

import signal
import socket
from pathlib import Path

import psutil
import pytest

from infra.cli.output import ExitCode
from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey


def test_a_second_up_shows_the_card_without_secrets_and_ends(platform: Platform) -> None:
    again = platform.json("up")
    assert again["pid"] == platform.card["pid"]
    assert again["api_url"] == platform.card["api_url"]
    assert again["api_key"] is None
    assert again["admin_password"] is None


def test_the_card_is_made_for_people_too(platform: Platform) -> None:
    said = platform.inventiv("up")
    assert said.code == ExitCode.OK
    for words in (platform.card["api_url"], f"{platform.card['gateway_url']}/v1", str(platform.data_dir), "Ctrl-C"):
        assert words in said.out
    assert "Already running" in said.err


def test_the_first_card_shows_each_secret_and_they_work(platform: Platform) -> None:
    assert platform.card["admin_password"] == Path(platform.card["admin_password_file"]).read_text().strip()
    assert platform.gateway("GET", "/v1/models", key=platform.card["api_key"]).status_code == 200
    assert platform.card["api_key"] in platform.card["curl"]


def test_each_step_is_told_with_its_time(platform: Platform) -> None:
    for step in ("NATS 2.", "Postgres 18 ready", "web ready", "gateway ready", "Everything is ready"):
        assert any(f"✓ {step}" in line and line.endswith(" s") for line in platform.log.splitlines()), step


def test_secrets_are_for_their_owner_alone(platform: Platform) -> None:
    files = [*(platform.data_dir / "secrets").iterdir(), platform.data_dir / "run" / "platform.json"]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_no_secret_reaches_the_log_of_events_or_a_file_of_words(platform: Platform) -> None:
    secrets = [platform.card["admin_password"], platform.card["api_key"], platform.key]
    words = platform.log + platform.role_logs() + str(platform.events())
    assert not any(secret in words for secret in secrets)


def test_fresh_refuses_while_it_runs(platform: Platform) -> None:
    assert platform.inventiv("up", "--fresh").code == ExitCode.CONFLICT


def test_data_survive_a_restart_and_fresh_forgets_them(own_platform: Platform) -> None:
    first = own_platform.start()
    instance_id = own_platform.json("deploy", MODEL)["instances"][0]["id"]
    family = _family(own_platform)
    assert own_platform.stop(signal.SIGTERM) == 0
    assert [process for process in family if process.is_running() and process.status() != "zombie"] == []
    assert own_platform.inventiv("status").code == ExitCode.UNREACHABLE

    second = own_platform.start()
    assert (second["api_url"], second["gateway_url"]) == (first["api_url"], first["gateway_url"])
    assert second["api_key"] is None
    answer = until(
        lambda: own_platform.inventiv("chat", MODEL, "still there?").out or None, "the same instance answers again"
    )
    assert "still there?" in answer
    views = own_platform.json("instance", "ls")["instances"]
    assert [view["id"] for view in views] == [instance_id]
    assert own_platform.gateway("GET", "/v1/models", key=first["api_key"]).status_code == 200
    assert own_platform.stop() == 0

    third = own_platform.start("--fresh")
    assert own_platform.json("instance", "ls") == {"instances": []}
    assert third["api_key"] not in {None, first["api_key"]}
    assert own_platform.gateway("GET", "/v1/models", key=first["api_key"]).status_code == 401


def _family(platform: Platform) -> list[psutil.Process]:
    return [*psutil.Process(platform.card["pid"]).children(recursive=True), *platform.agents()]


def test_a_taken_port_moves_and_says_so(own_platform: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as neighbour:
        taken = neighbour.getsockname()[1]
        own_platform.variables["INVENTIV_API_PORT"] = str(taken)
        card = own_platform.start()
        assert f"Port {taken} is taken" in own_platform.log
        assert card["api_url"] != f"http://127.0.0.1:{taken}"
        assert own_platform.rest("GET", "/healthz", signed=False).status_code == 200


def test_everything_dies_with_a_killed_up_and_the_next_one_takes_over(own_platform: Platform) -> None:
    own_platform.start()
    own_platform.json("deploy", MODEL)
    agents = own_platform.agents()
    children = psutil.Process(own_platform.card["pid"]).children()
    own_platform.kill()
    until(lambda: not [c for c in children if c.is_running() and c.status() != "zombie"], "the children end")
    own_platform.start()
    assert until(lambda: own_platform.inventiv("chat", MODEL, "hello again").out, "the instance answers again")
    assert own_platform.agents() == agents  # servers outlive whoever watches them
