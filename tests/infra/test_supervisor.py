"""The supervisor keeps real processes: small Python children that live until told, or die as the test asks."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, wait_until
from infra.processes.running import is_alive
from infra.processes.supervisor import Supervisor

WAIT_S = 60.0
LIVES = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
DIES = "import sys; print('no luck'); sys.exit(3)"


class Sleeper:
    """A child that is ready once it has touched a file; `program` may be changed between starts."""

    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, name: str = "sleeper", program: str = LIVES) -> None:
        self.name = name
        self.program = program
        self.log_path = folder / f"{name}.log"
        self._ready = folder / f"{name}.ready"

    async def prepare(self) -> None:
        self._ready.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self._ready)]

    def environment(self) -> dict[str, str]:
        return {}

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        async def ready() -> bool:
            return self._ready.exists()

        await wait_until(ready, self.name, timeout_s)


class Told(list[str]):
    """What the supervisor said."""


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def supervisor(told: Told) -> AsyncIterator[Supervisor]:
    made = Supervisor(told.append, first_pause_s=0.01, longest_pause_s=0.04, healthy_after_s=0.5)
    yield made
    for name in made.views():
        await made.stop(name, WAIT_S)


async def until(holds: Callable[[], bool]) -> None:
    async def check() -> bool:
        return holds()

    await wait_until(check, "the expected state", WAIT_S)


def pid_of(supervisor: Supervisor, name: str = "sleeper") -> int:
    pid = supervisor.views()[name].pid
    assert pid is not None
    return pid


async def test_a_killed_child_is_started_again_and_said_so_in_one_line(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    await supervisor.start(Sleeper(tmp_path))
    first = pid_of(supervisor)
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.views()["sleeper"].restarts == 1)
    assert pid_of(supervisor) != first
    assert supervisor.views()["sleeper"].state == "running"
    assert len(told) == 1
    assert "sleeper was ended by SIGKILL; running again" in told[0]


async def test_a_child_that_ends_politely_is_started_again_too(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    await supervisor.start(Sleeper(tmp_path, program=LIVES.replace("sleep(60)", "sleep(0.1)")))
    await until(lambda: supervisor.views()["sleeper"].restarts >= 2)
    assert "sleeper ended with status 0" in told[0]


async def test_a_stopped_child_stays_stopped(supervisor: Supervisor, told: Told, tmp_path: Path) -> None:
    await supervisor.start(Sleeper(tmp_path))
    view = supervisor.views()["sleeper"]
    await supervisor.stop("sleeper", WAIT_S)
    assert not is_alive(view.pid, view.created_at)
    assert supervisor.views()["sleeper"].state == "stopped"
    assert told == []


async def test_a_child_that_ignores_the_polite_signal_is_killed_after_its_grace(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LIVES
    await supervisor.start(Sleeper(tmp_path, program=deaf))
    view = supervisor.views()["sleeper"]
    await supervisor.stop("sleeper", 0.1)
    assert not is_alive(view.pid, view.created_at)


async def test_a_child_that_never_starts_is_an_error_with_its_own_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(EmbeddedServerError, match="status 3:\nno luck"):
        await supervisor.start(Sleeper(tmp_path, program=DIES))
    assert supervisor.views() == {}


async def test_a_restart_that_fails_is_tried_again_after_longer_pauses(told: Told, tmp_path: Path) -> None:
    supervisor = Supervisor(told.append, first_pause_s=0.01, longest_pause_s=0.04)
    sleeper = Sleeper(tmp_path)
    await supervisor.start(sleeper)
    sleeper.program = DIES
    os.kill(pid_of(supervisor), signal.SIGKILL)
    await until(lambda: len(told) >= 3)
    assert all("sleeper does not start: no luck" in line for line in told)
    sleeper.program = LIVES
    await until(lambda: supervisor.views()["sleeper"].restarts == 1)
    assert "after" in told[-1]
    assert "attempts" in told[-1]
    await supervisor.stop("sleeper", WAIT_S)


def test_pauses_double_up_to_their_limit() -> None:
    pauses = Supervisor(print)._pauses()
    assert [next(pauses) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


async def test_one_child_dying_leaves_its_neighbours_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Sleeper(tmp_path, "left"))
    await supervisor.start(Sleeper(tmp_path, "right"))
    neighbour = pid_of(supervisor, "right")
    os.kill(pid_of(supervisor, "left"), signal.SIGKILL)
    await until(lambda: supervisor.views()["left"].restarts == 1)
    assert pid_of(supervisor, "right") == neighbour
    assert supervisor.views()["right"].restarts == 0


async def test_every_change_of_a_child_is_announced(told: Told, tmp_path: Path) -> None:
    states: list[str] = []
    kept = Supervisor(told.append, lambda: states.append(kept.views()["sleeper"].state), first_pause_s=0.01)
    await kept.start(Sleeper(tmp_path))
    os.kill(pid_of(kept), signal.SIGKILL)
    await until(lambda: kept.views()["sleeper"].restarts == 1)
    await kept.stop("sleeper", WAIT_S)
    assert states == ["running", "restarting", "running", "stopped"]


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """In a process of its own, which is then ended with SIGKILL: it gets no chance to tidy up."""
    program = f"""
import asyncio, pathlib
from tests.infra.test_supervisor import Sleeper
from infra.processes.supervisor import Supervisor
async def main():
    supervisor = Supervisor(print)
    await supervisor.start(Sleeper(pathlib.Path({str(tmp_path)!r})))
    view = supervisor.views()["sleeper"]
    print(view.pid, view.created_at, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    root = str(Path(__file__).parents[2])
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=root, env={"PYTHONPATH": root}
    )
    assert parent.stdout is not None
    pid, created_at = (await asyncio.wait_for(parent.stdout.readline(), WAIT_S)).split()
    assert is_alive(int(pid), float(created_at))
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(int(pid), float(created_at)))


async def test_a_replaced_child_finishes_in_peace_and_is_not_started_again(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    await supervisor.start(Sleeper(tmp_path))
    old = supervisor.views()["sleeper"]
    await supervisor.replace(Sleeper(tmp_path))
    new = supervisor.views()["sleeper"]
    assert (new.state, new.pid != old.pid, is_alive(old.pid, old.created_at)) == ("running", True, True)
    assert [(view.pid, view.state) for view in supervisor.finishing().values()] == [(old.pid, "finishing")]
    assert old.pid is not None
    os.kill(old.pid, signal.SIGTERM)
    await until(lambda: supervisor.finishing() == {})
    assert supervisor.views()["sleeper"] == new
    assert told == ["the sleeper that was replaced was ended by SIGTERM"]


async def test_the_replacing_child_is_kept_alive_like_any_other(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Sleeper(tmp_path))
    await supervisor.replace(Sleeper(tmp_path))
    second = pid_of(supervisor)
    os.kill(second, signal.SIGKILL)
    await until(lambda: supervisor.views()["sleeper"].restarts == 1)
    assert pid_of(supervisor) != second


async def test_a_replacement_that_does_not_start_leaves_the_old_child_kept(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    await supervisor.start(Sleeper(tmp_path))
    first = pid_of(supervisor)
    with pytest.raises(EmbeddedServerError, match="no luck"):
        await supervisor.replace(Sleeper(tmp_path, program=DIES))
    assert (pid_of(supervisor), supervisor.finishing()) == (first, {})
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.views()["sleeper"].restarts == 1)


async def test_what_does_not_run_cannot_be_replaced(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="does not run"):
        await supervisor.replace(Sleeper(tmp_path))
    assert supervisor.views() == {}


async def test_the_end_of_all_ends_replaced_children_too(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Sleeper(tmp_path))
    await supervisor.replace(Sleeper(tmp_path))
    old, new = *supervisor.finishing().values(), supervisor.views()["sleeper"]
    await supervisor.stop("sleeper", WAIT_S)
    assert not is_alive(old.pid, old.created_at)
    assert not is_alive(new.pid, new.created_at)
    assert supervisor.finishing() == {}
