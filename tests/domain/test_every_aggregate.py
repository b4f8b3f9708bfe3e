"""Laws that hold for all aggregates alike."""

from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from domain.aggregates import AGGREGATES
from domain.decider import Decider, schema_of
from tests.examples import COMMAND_EXAMPLES, EVENT_EXAMPLES
from tests.given import COMMANDS, EVENTS, state_after

BY_WORD = {decider.aggregate: decider for decider in AGGREGATES}


def test_every_event_and_command_has_one_example() -> None:
    assert {type(e) for e in EVENT_EXAMPLES} == set(EVENTS)
    assert {type(c) for c in COMMAND_EXAMPLES} == set(COMMANDS)
    assert len(EVENT_EXAMPLES) == len(EVENTS)


def test_event_names_are_unique_on_the_platform() -> None:
    names = [event.__name__ for decider in AGGREGATES for event in decider.events]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("event", EVENT_EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_event_survives_json(event: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


@pytest.mark.parametrize("event", EVENT_EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_event_is_frozen_and_has_a_schema(event: Any) -> None:
    assert type(event).__struct_config__.frozen
    assert schema_of(type(event)) >= 1


EVENTS_OF = {d.aggregate: [e for e in EVENT_EXAMPLES if EVENTS[type(e)] is d] for d in AGGREGATES}


@forall(
    st.sampled_from(AGGREGATES).flatmap(
        lambda d: st.tuples(st.just(d), st.lists(st.sampled_from(EVENTS_OF[d.aggregate])))
    )
)
def test_every_history_can_be_folded(told: tuple[Decider[Any, Any, Any], list[Any]]) -> None:
    decider, history = told
    assert isinstance(state_after(decider, history), decider.state_type)


SECRET_WORDS = ("password", "secret", "api_key", "authorization")


@pytest.mark.parametrize("event", EVENT_EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_event_has_no_field_for_a_secret(event: Any) -> None:
    fields = get_type_hints(type(event))
    assert not [f for f in fields if f in SECRET_WORDS or (f.startswith("token") and f not in TOKEN_TRACES)]


TOKEN_TRACES = {"token_sha256", "token_prefix"}


@pytest.mark.parametrize("decider", AGGREGATES, ids=lambda d: d.aggregate)
def test_a_state_survives_json_for_its_snapshot(decider: Decider[Any, Any, Any]) -> None:
    encoded = msgspec.json.encode(decider.initial)
    assert msgspec.json.decode(encoded, type=decider.state_type) == decider.initial


def test_each_aggregate_has_a_word_of_its_own() -> None:
    assert len(BY_WORD) == len(AGGREGATES)
