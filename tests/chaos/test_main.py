"""The verdict of a chaos run."""

import pytest

from tests.chaos.__main__ import BROKEN_PROMISES, CONTROLS, summed, verdict

GOOD = {**dict.fromkeys(BROKEN_PROMISES, 0), **dict.fromkeys(CONTROLS, 7)}


def test_all_promises_kept_and_all_controls_seen_is_a_pass() -> None:
    assert verdict(GOOD) == []


@pytest.mark.parametrize("promise", BROKEN_PROMISES)
def test_one_broken_promise_fails_the_run(promise: str) -> None:
    assert verdict({**GOOD, promise: 1}) == [f"BROKEN: {promise} = 1"]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_that_shows_nothing_fails_the_run(control: str) -> None:
    assert verdict({**GOOD, control: 0}) == [f"BLIND: {control} = 0, the control shows nothing"]


def test_what_was_skipped_says_nothing() -> None:
    assert verdict(dict.fromkeys(GOOD)) == []
    assert verdict({}) == []


def test_mutations_that_nobody_noticed_are_counted() -> None:
    figures = summed({"mutations": 1000, "mutations_detected": 999})
    assert figures["mutations_missed"] == 1
    assert verdict(figures) == ["BROKEN: mutations_missed = 1"]


def test_the_controls_of_both_kills_are_one_figure() -> None:
    both = summed({"kill_control_violations": 3, "worker_control_violations": 4})
    assert both["control_violations"] == 7
