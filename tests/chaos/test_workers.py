"""The proof of tests/chaos/workers.py in small, and its judge."""

from pathlib import Path

import pytest

from tests.chaos.workers import Told, judge, measure


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", 1), ("b", 1), ("a", 2)], Told(3, 0, 0, 0)),
        ([("a", 1), ("b", 1), ("a", 2), ("a", 1)], Told(4, 1, 0, 0)),
        ([("a", 2), ("a", 1), ("b", 1)], Told(3, 0, 1, 0)),
        ([("a", 2), ("b", 1)], Told(2, 0, 0, 1)),
        ([], Told(0, 0, 0, 3)),
    ],
)
def test_the_judge_tells_doubled_from_disordered_from_missing(rows: list[tuple[str, int]], told: Told) -> None:
    assert judge(rows, {"a": 2, "b": 1}) == told


async def test_killed_workers_double_disorder_and_lose_nothing_and_the_controls_do(server_dir: Path) -> None:
    figures = await measure(server_dir, events=240, aggregates=24, kills=3)
    assert figures["effects"] == 240
    assert (figures["effects_duplicated"], figures["effects_out_of_order"], figures["effects_missing"]) == (0, 0, 0)
    assert figures["workers_killed"] == 3
    assert figures["control_violations"] > 0
