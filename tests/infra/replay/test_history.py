"""Folding a story to a moment, and telling two moments apart: laws over every aggregate's random histories."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.instance import INSTANCE
from domain.message import Recorded
from infra.events.codec import Codec
from infra.replay.history import (
    MissingVersionError,
    Moment,
    Placed,
    UnknownAggregateError,
    compare,
    decider_of,
    fold_until,
    read_until,
)
from tests.examples import COMMAND_EXAMPLES, example
from tests.given import COMMANDS, NOON, state_after
from tests.projections.grammar import Story

DECODE = Codec(AGGREGATES).decode_event
INSTANCE_COMMANDS = [command for command in COMMAND_EXAMPLES if COMMANDS[type(command)] is INSTANCE]

histories = st.lists(st.sampled_from(INSTANCE_COMMANDS), max_size=30)


def placed(story: Story) -> list[Placed]:
    return [Recorded(e.position, e.subject, e.payload, e.envelope) for e in story.entries]


def lived(commands: list[object]) -> Story:
    return Story().asked("acme", "i-1", *commands)


def renamed_twice() -> list[Placed]:
    renames = [ApiKeyRenamed(name="two"), ApiKeyRenamed(name="three")]
    return placed(Story().happened("acme", "k-1", example(ApiKeyIssued), *renames, ApiKeyRevoked()))


@given(commands=histories)
@settings(deadline=None, max_examples=40)
def test_the_state_at_the_last_position_is_the_fold_of_all(commands: list[object]) -> None:
    story = lived(commands)
    events = placed(story)
    moment = fold_until(INSTANCE, DECODE, events, None)
    expected = INSTANCE.initial
    for entry in story.entries:
        expected = INSTANCE.evolve(expected, entry.event, entry.envelope.at)
    assert (moment.state, moment.version) == (expected, len(events))
    assert fold_until(INSTANCE, DECODE, events, len(events)) == moment


@given(commands=histories, data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_moment_has_no_difference_from_itself(commands: list[object], data: st.DataObject) -> None:
    events = placed(lived(commands))
    position = data.draw(st.integers(0, len(events)))
    assert compare(INSTANCE, DECODE, events, position, position)[2] == []


@given(commands=histories, data=st.data())
@settings(deadline=None, max_examples=40)
def test_every_change_names_an_event_in_between(commands: list[object], data: st.DataObject) -> None:
    events = placed(lived(commands))
    start = data.draw(st.integers(0, len(events)))
    end = data.draw(st.integers(start, len(events)))
    before, after, changes = compare(INSTANCE, DECODE, events, start, end)
    assert (before.state == after.state) == (not changes)
    for change in changes:
        assert change.before != change.after
        assert change.by
        assert all(start < event.position <= end for event in change.by)


def test_a_time_is_as_good_as_a_position() -> None:
    events = renamed_twice()
    second = events[1].envelope.at
    assert fold_until(API_KEY, DECODE, events, second) == fold_until(API_KEY, DECODE, events, 2)
    assert fold_until(API_KEY, DECODE, events, second - timedelta(microseconds=1)).version == 1


def test_before_its_first_event_a_thing_is_at_version_0() -> None:
    assert fold_until(API_KEY, DECODE, renamed_twice(), 0) == Moment(state=API_KEY.initial)


def test_a_change_goes_from_the_first_value_to_the_last_by_all_events_between() -> None:
    _, _, changes = compare(API_KEY, DECODE, renamed_twice(), 1, 3)
    assert [(c.field, c.before, c.after, [e.position for e in c.by]) for c in changes] == [
        ("name", "ci", "three", [2, 3])
    ]


def test_a_field_that_was_null_changes_field_by_field() -> None:
    first, *_ = placed(lived(INSTANCE_COMMANDS[:1]))
    _, _, changes = compare(INSTANCE, DECODE, [first], 0, 1)
    by_field = {change.field: change for change in changes}
    assert by_field["request.zone"].after == "local"
    assert by_field["request.zone"].by == (first,)


def test_the_second_moment_may_not_be_the_earlier() -> None:
    with pytest.raises(ValueError, match="later"):
        compare(API_KEY, DECODE, renamed_twice(), 3, 1)


def test_a_hole_in_the_story_is_damage_and_not_a_state() -> None:
    first, _, third, _ = renamed_twice()
    with pytest.raises(MissingVersionError, match="from version 1 to 3"):
        fold_until(API_KEY, DECODE, [first, third], None)


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownAggregateError) as unknown:
        decider_of("kettle")
    assert unknown.value.known == tuple(sorted(decider.aggregate for decider in AGGREGATES))


def test_moments_are_read_as_positions_or_times() -> None:
    assert read_until("41") == 41
    assert read_until("2026-11-21T12:00:00") == NOON
    assert read_until("2026-11-21T13:00:00+01:00") == NOON
    for bad in ("", "-1", "yesterday", "²"):
        with pytest.raises(ValueError, match=r".*"):
            read_until(bad)


def test_every_aggregate_can_be_folded_as_it_was_stored() -> None:
    for decider in AGGREGATES:
        story = Story().happened("acme", "x.1", *[example(event) for event in decider.events[:1]])
        moment = fold_until(decider, DECODE, placed(story), None)
        assert moment.state == state_after(decider, [example(decider.events[0])])
        assert msgspec.json.encode(moment.state)
