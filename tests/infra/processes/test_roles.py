"""A role as a child: it reads the same settings as we do, and is ready when it says so or answers."""

from pathlib import Path

import msgspec
import pytest

from infra.environment import read_environment
from infra.processes.roles import ROLES, Role, answers, ready_file, say_ready, variables_of
from tests.infra.cli.stub_api import Answer, running_stub


def test_a_role_reads_back_exactly_the_settings_it_was_given(tmp_path: Path) -> None:
    given = read_environment(
        {
            "INVENTIV_DATA_DIR": str(tmp_path),
            "INVENTIV_COOKIE_SECURE": "1",
            "INVENTIV_HEARTBEAT_INTERVAL_S": "0.5",
            "INVENTIV_ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
            "INVENTIV_ENGINE_DIR": str(tmp_path / "engine"),
        }
    )
    assert read_environment(variables_of(given)) == given


def test_a_child_gets_no_stray_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODYS_TOKEN", "secret")
    role = Role("web", read_environment({"INVENTIV_DATA_DIR": str(tmp_path)}))
    assert "secret" not in role.environment().values()


async def test_a_role_without_a_port_is_ready_when_it_says_so(tmp_path: Path) -> None:
    environment = read_environment({"INVENTIV_DATA_DIR": str(tmp_path)})
    role = Role("handlers", environment)
    await role.prepare()
    with pytest.raises(Exception, match="handlers did not answer"):
        await role.wait_ready(0.05)
    say_ready(environment, "handlers")
    await role.wait_ready(0.05)


async def test_what_an_earlier_process_said_does_not_count(tmp_path: Path) -> None:
    environment = read_environment({"INVENTIV_DATA_DIR": str(tmp_path)})
    role = Role("handlers", environment)
    await role.prepare()
    say_ready(environment, "handlers")
    await role.prepare()
    assert not ready_file(tmp_path, "handlers").exists()


def test_a_role_that_runs_alone_writes_no_files(tmp_path: Path) -> None:
    say_ready(read_environment({"INVENTIV_DATA_DIR": str(tmp_path)}), "handlers")
    assert list(tmp_path.iterdir()) == []


async def test_a_role_with_a_port_is_ready_when_it_answers(tmp_path: Path) -> None:
    with running_stub() as stub:
        stub.answer("GET", "/healthz", Answer(503), Answer(200))
        port = int(stub.url.rpartition(":")[2])
        environment = read_environment({"INVENTIV_DATA_DIR": str(tmp_path)})
        environment = msgspec.structs.replace(environment, api_port=port)
        await Role("web", environment).wait_ready(5)
        assert len(stub.asked_of("GET", "/healthz")) == 2
    assert not await answers("127.0.0.1", port, "/healthz")


def test_every_role_is_started_by_the_public_command(tmp_path: Path) -> None:
    environment = read_environment({"INVENTIV_DATA_DIR": str(tmp_path)})
    assert [Role(name, environment).command()[-2:] for name in ROLES] == [["serve", name] for name in ROLES]
