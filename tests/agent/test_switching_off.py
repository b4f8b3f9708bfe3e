"""The dead-man switch with a real agent and a control plane that goes away: when the machine goes off, and how."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import pytest

from agent.event_log import EventLog, RotatingFile
from agent.power_off import SYSTEM_COMMANDS, power_off
from agent.settings import Settings, settings_from
from tests.agent.stand_in import WAIT_S, AgentProcess, StandIn, get, stand_in
from tests.agent.test_loop import engine_pid, gone, is_ready, stream

BOUND_S = 1.5
MOST_LIVES = 12


class Machine:
    """Its host looks for a file, as a real one does."""

    def __init__(self, folder: Path, plane: StandIn, bound_s: float = BOUND_S) -> None:
        self.off = folder / "power-off"
        self.state = folder / "state"
        self.agent = AgentProcess(
            plane.url, self.state, WORKER_DEAD_MAN_S=str(bound_s), WORKER_POWER_OFF_FILE=str(self.off)
        )

    async def ended(self) -> int:
        return await asyncio.wait_for(self.agent.process.wait(), WAIT_S)

    async def events(self) -> list[str]:
        return [line for line in (self.state / "worker-events.log").read_text().splitlines() if line]


async def test_a_control_plane_that_goes_away_for_good_switches_the_machine_off(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        await machine.agent.start()
        await plane.until_beat(is_ready)
        engine = engine_pid(machine.state)
        assert not machine.off.exists()
    assert await machine.ended() == 0
    assert machine.off.exists()
    assert gone(engine)
    told = "\n".join(await machine.events())
    assert told.index('"dead_man"') < told.index('"agent_draining"') < told.index('"power_off"')


async def test_without_the_switch_it_goes_on_serving(tmp_path: Path) -> None:
    """The control: the same silence, several times as long."""
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane, bound_s=0)
        await machine.agent.start()
        await plane.until_beat(is_ready)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(machine.agent.process.wait(), 3 * BOUND_S)
    assert await stream(machine.agent, 3)
    assert not machine.off.exists()
    await machine.agent.end()
    assert not machine.off.exists()


async def test_a_shorter_pause_of_the_control_plane_does_nothing(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane, bound_s=4 * BOUND_S)
        await machine.agent.start()
        await plane.until_beat(is_ready)
        port = int(plane.url.rpartition(":")[2])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.agent.process.wait(), 2 * BOUND_S)
        async with stand_in(port) as back:
            await back.until_beat(is_ready)
    assert machine.agent.process.returncode is None
    assert not machine.off.exists()
    await machine.agent.end()


@pytest.mark.parametrize("refusal", [(401, "unauthorized"), (500, ""), (404, "instance_not_found")])
async def test_a_control_plane_that_does_not_know_the_machine_is_silence_too(
    tmp_path: Path, refusal: tuple[int, str]
) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        await machine.agent.start()
        await plane.until_beat(is_ready)
        plane.refusals = [refusal] * 10_000
        assert await machine.ended() == 0
    assert machine.off.exists()


async def test_a_machine_that_is_told_to_wait_for_its_address_is_known_and_waits(tmp_path: Path) -> None:
    async with stand_in() as plane:
        plane.refusals = [(409, "instance_not_addressed")] * 10_000
        machine = Machine(tmp_path, plane)
        machine.agent.environment["WORKER_HEARTBEAT_INTERVAL_S"] = "0.1"
        await machine.agent.start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.agent.process.wait(), 3 * BOUND_S)
        plane.refusals = [(409, "token_already_exists")] * 10_000
        assert await machine.ended() == 0, "but one that has lost its token is known no more"
    assert machine.off.exists()


async def test_running_answers_are_finished_first(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        machine.agent.environment["WORKER_ENGINE_ARGS"] = '{"startup_s": 0, "first_token_ms": 1, "tokens_per_s": 20}'
        await machine.agent.start()
        await plane.until_beat(is_ready)
    answer = asyncio.create_task(stream(machine.agent, 60))  # three seconds, twice the bound
    assert (await answer).endswith(b"data: [DONE]\n\n")
    assert await machine.ended() == 0
    assert machine.off.exists()


async def test_an_agent_that_is_killed_again_and_again_goes_on_counting(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane, bound_s=4 * BOUND_S)
        await machine.agent.start()
        await plane.until_beat(is_ready)
    for _ in range(MOST_LIVES):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(machine.agent.process.wait(), 2 * BOUND_S)  # no life is as long as the bound
            break
        await machine.agent.end(signal.SIGKILL)
        await machine.agent.start()
    assert machine.agent.process.returncode == 0
    assert machine.off.exists()


async def test_a_machine_that_was_switched_on_again_begins_a_new_silence(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        await machine.agent.start()
        await plane.until_beat(is_ready)
        port = int(plane.url.rpartition(":")[2])
    assert await machine.ended() == 0
    machine.off.unlink()
    async with stand_in(port) as back:
        await machine.agent.start()
        await back.until_beat(is_ready)
        status, _ = await get(f"{machine.agent.url}/healthz")
        assert status == 200
        assert not machine.off.exists()
        await machine.agent.end()


async def test_a_machine_that_cannot_be_switched_off_tries_again_with_the_next_start(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        machine.agent.environment["WORKER_POWER_OFF_FILE"] = str(tmp_path / "nowhere" / "power-off")
        await machine.agent.start()
        await plane.until_beat(is_ready)
    assert await machine.ended() == 1
    machine.agent.environment["WORKER_POWER_OFF_FILE"] = str(machine.off)
    await machine.agent.start()
    assert await machine.ended() == 0
    assert machine.off.exists()


class Off:
    """One power_off, without an agent around it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        least = {"CONTROL_PLANE_URL": "http://127.0.0.1:9", "INSTANCE_ID": "i", "MODEL_ID": "m"}
        self.settings: Settings = settings_from({**least, "WORKER_STATE_DIR": str(folder), **variables})
        self._log_file = folder / f"{len(list(folder.iterdir()))}.log"

    async def __call__(self) -> tuple[bool, list[str]]:
        log = EventLog(RotatingFile(self._log_file), worker_id="w", instance_id="i")
        with contextlib.closing(log):
            done = await power_off(self.settings, log)
            return done, [f"{event.event_type}: {event.message}" for event in log.read()[1]]


async def test_the_owners_command_is_run_without_a_shell(tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = f"import sys; open({str(said)!r}, 'w').write(sys.argv[1])"
    done, _ = await Off(tmp_path, WORKER_POWER_OFF_COMMAND=f'{sys.executable} -c "{code}" "$HOME; off"')()
    assert done
    assert said.read_text() == "$HOME; off"


@pytest.mark.parametrize("command", ["false", "/nowhere/at/all"])
async def test_a_command_that_fails_is_said(tmp_path: Path, command: str) -> None:
    done, told = await Off(tmp_path, WORKER_POWER_OFF_COMMAND=command)()
    assert not done
    assert told[0].startswith(f"power_off_failed: {command}")


async def test_without_a_command_the_system_is_asked_by_root_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def ask(command: tuple[str, ...]) -> str:
        asked.append(command)
        return "" if len(asked) == len(SYSTEM_COMMANDS) else "no such program"

    monkeypatch.setattr("agent.power_off._failure", ask)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert await Off(tmp_path)() == (False, [f"power_off_failed: {NOT_ROOT}"])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    done, _ = await Off(tmp_path)()
    assert done
    assert asked == list(SYSTEM_COMMANDS)


NOT_ROOT = "not root, and WORKER_POWER_OFF_COMMAND is not set"


async def test_an_agent_that_is_told_to_stop_leaves_the_machine_on(tmp_path: Path) -> None:
    async with stand_in() as plane:
        machine = Machine(tmp_path, plane)
        await machine.agent.start()
        await plane.until_beat(is_ready)
        plane.desired = "stop"
        assert await machine.ended() == 0
    assert not machine.off.exists()
