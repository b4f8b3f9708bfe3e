"""One real kill, and the choice of the others; the whole sample is `just kill-matrix`."""

from collections import Counter
from pathlib import Path

from infra.simulated_clouds.scaleway.running import simulated_scaleway
from tests.simulation.real_case import play
from tests.simulation.real_kills import CONTROL, SPEED, sample_of
from tests.simulation.real_platform import running_lane

CALLS = ["look", "dispatch", "create", "dispatch", "look"]


def test_a_sample_is_spread_over_all_calls_and_both_sides() -> None:
    every = sample_of([CALLS], 10, seed=1)
    assert Counter(every) == Counter(set(every)), "as many kills as there are: each once"
    assert Counter(kill.when for kill in every) == {"before": 5, "after": 5}
    assert [(kill.name, kill.nth) for kill in every if kill.when == "before"] == [
        ("look", 1),
        ("dispatch", 1),
        ("create", 1),
        ("dispatch", 2),
        ("look", 2),
    ]
    assert sample_of([CALLS], 2, seed=1) == sample_of([CALLS], 2, seed=1)


def test_only_calls_that_every_run_made_are_in_a_sample() -> None:
    kills = sample_of([CALLS, ["create", "dispatch"]], 50, seed=1)
    assert {(kill.name, kill.nth) for kill in kills} == {("dispatch", 1), ("create", 1)}


async def test_a_server_whose_creator_was_killed_is_found_and_deleted_by_the_next_process(
    server_dir: Path,
) -> None:
    async with (
        simulated_scaleway(speed=SPEED) as scaleway,
        running_lane(server_dir / "lane", scaleway.url) as lane,
    ):
        case = await play(lane, scaleway, CONTROL, stops="killed")
    assert case.killed
    assert CONTROL.name in case.calls
    assert [words.split()[0] for words in case.left_when_killed] == ["server", "volume"], "there was something to lose"
    assert (case.violations, case.servers_per_intent) == ([], 1)
