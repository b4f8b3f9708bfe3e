"""The simulation itself: it repeats, it finds nothing in some worlds, and it finds what is planted. The long runs are
`just simulate` and `just kill-matrix`.
"""

import asyncio

import pytest

from tests.simulation.boundaries import Boundaries, ProcessKilled
from tests.simulation.chance import Chance
from tests.simulation.kill_matrix import FLOWS, Flow, cases, play_flow
from tests.simulation.planted import BUGS, Bug, planted
from tests.simulation.scene import play
from tests.simulation.virtual_time import DeadlockError, now, run_virtually

SEEDS = range(1, 21)
QUICK_BUGS = ("each try has a new name", "the sweep believes unsigned tags", "volumes are forgotten")
FEW = 10


@pytest.mark.parametrize("seed", SEEDS)
def test_no_world_breaks_a_law(seed: int) -> None:
    assert play(seed).violations == []


def test_a_seed_gives_the_same_world_again() -> None:
    first, second = play(7), play(7)
    assert (first.statuses, first.events, first.calls) == (second.statuses, second.events, second.calls)
    assert play(8).calls != first.calls


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.name in QUICK_BUGS], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    with planted(bug):
        assert any(play(seed).violations for seed in range(1, FEW + 1))


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_each_flow_comes_to_rest_when_nobody_is_killed(flow: Flow) -> None:
    ending = play_flow(flow)
    assert ending.violations == []
    assert set(ending.statuses) == {"terminated"}


def test_a_kill_is_felt_and_survived() -> None:
    flow = FLOWS[0]
    (number, when), *_ = [case for case in cases(flow) if play_flow(flow).calls[case[0] - 1] == "cloud.create_server"]
    killed = play_flow(flow, (number, when))
    assert len(killed.calls) == number
    assert killed.violations == []


async def _sleep_an_hour() -> float:
    began = now()
    await asyncio.sleep(3600)
    return (now() - began).total_seconds()


def test_an_hour_passes_at_once() -> None:
    assert run_virtually(_sleep_an_hour()) == 3600


async def _wait_for_nobody() -> None:
    await asyncio.Event().wait()


def test_waiting_for_nobody_is_told() -> None:
    with pytest.raises(DeadlockError):
        run_virtually(_wait_for_nobody())


def test_a_dead_process_calls_nobody() -> None:
    called: list[str] = []

    async def call() -> None:
        called.append("called")

    async def scenario() -> None:
        boundaries = Boundaries(kill_at=(2, "before"))
        await boundaries.cross("first", call)
        for _ in range(2):
            with pytest.raises(ProcessKilled):
                await boundaries.cross("second", call)

    run_virtually(scenario())
    assert called == ["called"]


def test_faults_end_when_chance_ends() -> None:
    chance = Chance(3)
    assert chance.shares
    chance.end()
    assert {chance.fate() for _ in range(100)} == {"well"}
