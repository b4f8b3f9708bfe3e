"""The bootstrap is run for real, below a folder, with a simulated engine and an agent that only waits."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.providers.bootstrap.script import (
    PHASES,
    PhaseEnd,
    UnfitError,
    bootstrap_script,
    environment_lines,
    phases_of,
    removal_script,
)
from tests.infra.providers.bootstrap.host import CHECKSUM, ControlPlane, PrefixHost, control_plane, runs, until

ALL_OK = [(phase, True) for phase in PHASES]
HOSTILE = """$(touch "$INVENTIV_ROOT/hit") `touch hit` ' " ; \\ & <x> ${HOME} #"""


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrefixHost]:
    host = PrefixHost(tmp_path / "host")
    host.prepare()
    yield host
    host.end()


def script_for(plane: ControlPlane, *, agent_url: str = "", agent_sha256: str = CHECKSUM, **changes: str) -> str:
    environment = {
        "CONTROL_PLANE_URL": plane.url,
        "INSTANCE_ID": "i-1",
        "MODEL_ID": "mock-echo-model",
        "WORKER_AUTH_TOKEN": "wb_secret",
        "WORKER_ENGINE": "simulated",
        **changes,
    }
    url = agent_url or f"{plane.url}/internal/worker/agent.pyz"
    return bootstrap_script(environment, agent_url=url, agent_sha256=agent_sha256)


def test_the_agent_runs_and_each_phase_was_reported(plane: ControlPlane, host: PrefixHost) -> None:
    run = host.run(script_for(plane))
    assert run.returncode == 0, run.stdout + run.stderr
    assert plane.phases == ALL_OK
    assert {report.instance_id for report in plane.reports} == {"i-1"}
    assert plane.tokens == {"Bearer wb_secret"}
    assert phases_of(run.stdout)[-1] == PhaseEnd("done", ok=True)
    until(host.starts, "an agent")
    assert runs(host.starts()[0])


def test_the_agent_gets_the_environment_literally(plane: ControlPlane, host: PrefixHost) -> None:
    run = host.run(script_for(plane, HF_TOKEN=HOSTILE))
    assert run.returncode == 0, run.stdout
    until((host.base / "state/environment").exists, "the agent's own account")
    assert host.agent_environment()["HF_TOKEN"] == HOSTILE
    assert not list(host.root.rglob("hit"))


def test_running_it_again_starts_no_second_agent(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane))
    until(host.starts, "an agent")
    again = host.run(script_for(plane))
    assert again.returncode == 0, again.stdout
    assert plane.phases == ALL_OK * 2
    assert len(plane.downloads) == 1
    assert len(host.starts()) == 1


def test_two_at_once_wait_for_one_another(plane: ControlPlane, host: PrefixHost) -> None:
    command = ["/bin/sh", "-s"]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.variables) for _ in range(2)
    ]
    for one in both:
        assert one.stdin is not None
        one.stdin.write(script_for(plane).encode())
        one.stdin.close()
    for one in both:
        assert one.wait(timeout=30) == 0
        assert one.stdout is not None
        one.stdout.close()
    assert plane.phases == ALL_OK * 2
    until(host.starts, "an agent")
    assert len(host.starts()) == 1


def test_another_instance_gets_an_agent_with_a_state_of_its_own(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane))
    until(host.starts, "an agent")
    (first,) = host.starts()
    (host.base / "state/credentials").write_text("the first one's")
    run = host.run(script_for(plane, INSTANCE_ID="i-2", WORKER_AUTH_TOKEN="wb_other"))
    assert run.returncode == 0, run.stdout
    until(host.starts, "the second agent")
    assert not runs(first)
    assert not (host.base / "state/credentials").exists()
    until((host.base / "state/environment").exists, "the agent's own account")
    assert host.agent_environment()["INSTANCE_ID"] == "i-2"


def test_an_agent_that_dies_is_started_again(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane))
    until(host.starts, "an agent")
    os.kill(host.starts()[0], signal.SIGKILL)
    until(lambda: len(host.starts()) == 2, "a second start")


def test_another_agent_than_the_pinned_one_is_refused(plane: ControlPlane, host: PrefixHost) -> None:
    plane.archive = b"something else"
    run = host.run(script_for(plane))
    assert run.returncode == 1
    assert phases_of(run.stdout)[-1] == PhaseEnd("agent_download", ok=False)
    assert plane.phases[-1] == ("agent_download", False)
    assert f"not {CHECKSUM}" in plane.reports[-1].output
    assert not (host.base / "agent.pyz").exists()
    assert host.starts() == []


def test_a_run_that_failed_goes_on_where_it_stopped(plane: ControlPlane, host: PrefixHost) -> None:
    archive, plane.archive = plane.archive, b"cut off"
    host.run(script_for(plane))
    plane.archive = archive
    assert host.run(script_for(plane)).returncode == 0
    until(host.starts, "an agent")


def test_a_control_plane_that_does_not_listen_stops_nothing(host: PrefixHost, plane: ControlPlane) -> None:
    plane.status = 500
    assert host.run(script_for(plane)).returncode == 0
    host.run(removal_script())
    unreachable = "http://127.0.0.1:9"
    script = script_for(plane, CONTROL_PLANE_URL=unreachable, agent_url=f"{plane.url}/agent.pyz")
    assert host.run(script).returncode == 0


def test_the_token_goes_to_the_control_plane_alone(plane: ControlPlane, host: PrefixHost) -> None:
    with control_plane() as stranger:
        run = host.run(script_for(plane, agent_url=f"{stranger.url}/agent.pyz"))
        assert run.returncode == 0, run.stdout
        assert stranger.downloads == [""]
    host.run(removal_script())
    host.run(script_for(plane))
    assert plane.downloads == ["Bearer wb_secret"]


def test_a_script_that_was_cut_off_does_nothing(plane: ControlPlane, host: PrefixHost) -> None:
    script = script_for(plane)
    host.run(script[: script.rindex('main "$@"')])
    assert plane.reports == []
    assert not host.base.exists()


def test_what_the_host_s_owner_wrote_has_the_last_word(plane: ControlPlane, host: PrefixHost) -> None:
    host.prepare(WORKER_BIND_IP="127.9.9.9")
    host.run(script_for(plane, WORKER_BIND_IP="0.0.0.0"))
    until((host.base / "state/environment").exists, "the agent's own account")
    assert host.agent_environment()["WORKER_BIND_IP"] == "127.9.9.9"


def test_a_missing_variable_is_named(plane: ControlPlane, host: PrefixHost) -> None:
    run = host.run(script_for(plane, MODEL_ID=""))
    assert run.returncode == 1
    assert "lacks MODEL_ID" in plane.reports[-1].output


def test_what_is_reported_is_at_most_8000_characters_of_ascii(plane: ControlPlane, host: PrefixHost) -> None:
    plane.archive = b"x"
    run = host.run(script_for(plane, agent_url=f"{plane.url}/{'q' * 9000}"))
    assert run.returncode == 1
    output = plane.reports[-1].output
    assert 7_990 < len(output) <= 8_000
    assert output.isascii()
    assert output.endswith(CHECKSUM)


def test_removal_ends_the_agent_and_keeps_what_is_the_owner_s(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane))
    until(host.starts, "an agent")
    agent, keeper = host.starts()[0], host.keeper()
    (host.base / "hf/model").write_text("weights")
    for _ in range(2):
        run = host.run(removal_script())
        assert run.returncode == 0, run.stdout
        assert run.stdout.endswith("inventiv-removed\n")
    until(lambda: not runs(agent) and not runs(keeper), "their end")
    assert [path.name for path in host.base.iterdir()] == ["hf"]
    assert {path.name for path in host.etc.iterdir()} == {"host.env", "lock"}
    assert (host.base / "hf/model").exists()


def test_removal_of_nothing_is_fine(host: PrefixHost) -> None:
    assert host.run(removal_script()).returncode == 0


def test_an_agent_that_ignores_its_end_is_killed(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane, IGNORES_SIGTERM="1"))
    until(host.starts, "an agent")
    stop = host.base / "bin/stop-agent"
    stop.write_text(stop.read_text().replace("stop_wait_s=45", "stop_wait_s=1"))
    keeper = host.keeper()
    assert host.run(removal_script()).returncode == 0
    assert not runs(keeper)
    assert not list(host.base.glob("state"))


def test_an_agent_that_asks_for_the_machine_s_end_stays_down(plane: ControlPlane, host: PrefixHost) -> None:
    host.run(script_for(plane))
    until(host.starts, "an agent")
    keeper = host.keeper()
    (host.base / "power-off").touch()
    os.kill(host.starts()[0], signal.SIGKILL)
    until(lambda: not runs(keeper), "the keeper's end")
    assert len(host.starts()) == 1


@pytest.mark.parametrize("powers_off", [True, False])
def test_only_a_machine_that_may_powers_itself_off(powers_off: bool) -> None:
    script = bootstrap_script({}, agent_url="http://a/b", agent_sha256=CHECKSUM, powers_off=powers_off)
    head, _, _ = script.partition("main() {")
    head += "is_lent() { false; }\n"
    tail = "power_off() {" + script.partition("power_off() {")[2].partition("\n}\n")[0] + "\n}\npower_off\n"
    for root, expected in (("", "poweroff" if powers_off else "true"), ("/elsewhere", "true")):
        shown = subprocess.run(
            ["/bin/sh", "-s"],
            input=head + tail,
            env={"INVENTIV_ROOT": root},
            text=True,
            capture_output=True,
            check=True,
        )
        assert shown.stdout.split()[-1] == expected


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"A": "two\nlines"}, "A"),
        ({"A": "bell\x07"}, "A"),
        ({"A": "é"}, "A"),
        ({"A=B": "x"}, "variable's name"),
        ({"": "x"}, "variable's name"),
        ({"A": "x" * 20_000}, "A"),
    ],
)
def test_what_is_no_variable_is_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(UnfitError, match=named):
        environment_lines(environment)


@pytest.mark.parametrize(
    "changes",
    [
        {"agent_url": "file:///etc/passwd"},
        {"agent_url": "http://x/a b"},
        {"agent_sha256": ""},
        {"vllm_image": "-v /:/"},
    ],
)
def test_a_setting_that_is_not_what_it_should_be_is_refused(changes: dict[str, str]) -> None:
    settings = {"agent_url": "http://x/a", "agent_sha256": CHECKSUM, **changes}
    with pytest.raises(UnfitError, match=next(iter(changes))):
        bootstrap_script({}, **settings)  # type: ignore[arg-type]  # all of these are texts


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed here")
def test_the_scripts_pass_shellcheck(tmp_path: Path) -> None:
    for name, script in {
        "worker.sh": bootstrap_script({"A": HOSTILE}, agent_url="http://x/a", agent_sha256=CHECKSUM),
        "remove.sh": removal_script(),
    }.items():
        (tmp_path / name).write_text(script)
        checked = subprocess.run(["shellcheck", "-s", "sh", name], cwd=tmp_path, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stdout.decode()
