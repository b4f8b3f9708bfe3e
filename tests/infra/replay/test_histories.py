"""The port Histories: what each event changed agrees with folding before and after it, for any history."""

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from domain.aggregates import AGGREGATES
from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.message import Recorded
from infra.events.codec import Codec
from infra.replay.histories import Histories
from infra.replay.history import as_json, decider_of
from tests.examples import example
from tests.given import NOON
from tests.projections.grammar import Story
from tests.projections.test_every_projection import History, histories
from web.services import UnreadableHistoryError

HISTORIES = Histories(Codec(AGGREGATES))


def _recorded(story: Story) -> dict[str, list[Recorded]]:
    """Subject -> its events."""
    found: dict[str, list[Recorded]] = {}
    for entry in story.entries:
        recorded = Recorded(entry.position, entry.subject, entry.payload, entry.envelope)
        found.setdefault(entry.subject, []).append(recorded)
    return found


def _leaves(state: Any, path: str = "") -> dict[str, Any]:
    """By hand: dotted path -> value, of everything that is something."""
    if not isinstance(state, dict):
        return {} if state is None else {path: state}
    return {p: v for key, inner in state.items() for p, v in _leaves(inner, f"{path}.{key}" if path else key).items()}


@settings(max_examples=15, deadline=None)
@given(history=histories())
def test_before_and_after_are_what_an_independent_fold_says(history: History) -> None:
    """A field is told if and only if it differs, with the values of the two states beside one another."""
    for events in _recorded(history.story).values():
        aggregate = events[0].envelope.aggregate
        decider = decider_of(aggregate)
        codec = Codec(AGGREGATES)
        told = HISTORIES.changes(aggregate, events, [event.position for event in events])
        state = decider.initial
        for event in events:
            before = _leaves(as_json(state))
            state = decider.evolve(state, codec.decode_event(event.envelope), event.envelope.at)
            after = _leaves(as_json(state))
            differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
            assert {change.field: (change.before, change.after) for change in told[event.position]} == {
                path: (before.get(path), after.get(path)) for path in differing
            }
        folded = HISTORIES.state(aggregate, events, None)
        assert folded is not None
        assert (folded.fields, folded.version) == (as_json(state), len(events))


def test_only_the_wanted_events_are_told() -> None:
    story = Story().happened("acme", "k-1", example(ApiKeyIssued), ApiKeyRenamed(name="two"), ApiKeyRevoked())
    (events,) = _recorded(story).values()
    told = HISTORIES.changes("api_key", events, [2])
    assert {position: [(c.field, c.before, c.after) for c in changes] for position, changes in told.items()} == {
        2: [("name", example(ApiKeyIssued).name, "two")]
    }


def test_a_state_is_told_at_a_position_and_at_a_time() -> None:
    story = Story().happened("acme", "k-1", example(ApiKeyIssued), ApiKeyRenamed(name="two"))
    (events,) = _recorded(story).values()
    first = HISTORIES.state("api_key", events, 1)
    assert first is not None
    assert (first.version, first.position) == (1, 1)
    assert HISTORIES.state("api_key", events, NOON) == first
    assert HISTORIES.state("api_key", events, 0) is None


def test_what_this_release_does_not_know_is_said() -> None:
    story = Story().happened("acme", "k-1", example(ApiKeyIssued))
    (events,) = _recorded(story).values()
    newer = replace(events[0], envelope=replace(events[0].envelope, type="ApiKeyCelebrated"))
    for asked in (
        lambda: HISTORIES.event(newer.envelope),
        lambda: HISTORIES.state("api_key", [newer], None),
        lambda: HISTORIES.changes("api_key", [newer], [1]),
        lambda: HISTORIES.state("gpu_pool", events, None),
    ):
        with pytest.raises(UnreadableHistoryError):
            asked()
