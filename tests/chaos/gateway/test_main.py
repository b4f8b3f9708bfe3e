"""The verdict of a run."""

import pytest

from tests.chaos.gateway.__main__ import BROKEN_PROMISES, CONTROLS, LIMITS, ONLY_QUICK, SUMS, summed, verdict

GOOD = {**dict.fromkeys(BROKEN_PROMISES, 0), **LIMITS, **{name: least + 1 for name, least in CONTROLS.items()}}


def test_all_promises_kept_and_all_controls_seen_is_a_pass() -> None:
    assert verdict(GOOD) == []


@pytest.mark.parametrize("promise", BROKEN_PROMISES)
def test_one_broken_promise_fails_the_run(promise: str) -> None:
    assert verdict({**GOOD, promise: 1}) == [f"BROKEN: {promise} = 1"]


@pytest.mark.parametrize("name", LIMITS)
def test_one_figure_beyond_its_limit_fails_the_run(name: str) -> None:
    (finding,) = verdict({**GOOD, name: LIMITS[name] + 1})
    assert finding.startswith(f"BROKEN: {name} = ")


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_that_shows_nothing_fails_the_run(control: str) -> None:
    (finding,) = verdict({**GOOD, control: CONTROLS[control]})
    assert finding.startswith(f"BLIND: {control} = ")


def test_what_a_short_run_cannot_tell_is_only_printed_there() -> None:
    beyond = {**GOOD, **{name: LIMITS[name] + 1 for name in ONLY_QUICK}}
    assert len(verdict(beyond)) == len(ONLY_QUICK) > 0
    assert verdict(beyond, lenient=ONLY_QUICK) == []


def test_what_was_skipped_says_nothing() -> None:
    assert verdict(dict.fromkeys(GOOD)) == []
    assert verdict({}) == []


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in SUMS.items() for part in parts])
def test_what_one_part_finds_is_in_the_figure_of_the_whole(name: str, part: str) -> None:
    figures = summed({part: 3})
    assert figures[name] == 3
    assert verdict(figures) == [f"BROKEN: {name} = 3"]


def test_a_part_that_was_not_played_adds_nothing() -> None:
    assert summed({}) == {}
