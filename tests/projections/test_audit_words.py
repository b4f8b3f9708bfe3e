"""Words for every event: nothing that is written down is left without them."""

import pytest

from domain.aggregates import AGGREGATES
from domain.instance import INSTANCE
from projections.action_types import ACTION_TYPES, label_of
from projections.audit_words import (
    OUTCOMES,
    TARGETS,
    WORDS,
    component_of,
    target_kind,
    types_of_action,
    types_of_outcome,
    types_told_by,
    words_for,
)
from projections.instance_words import words_of
from tests.examples import EVENT_EXAMPLES

TYPES = {event_type.__name__ for decider in AGGREGATES for event_type in decider.events}


def test_every_event_type_has_words() -> None:
    assert TYPES - WORDS.keys() == set(), "say in projections/audit_words.py what these mean to a person"


def test_nothing_is_told_that_does_not_exist() -> None:
    assert WORDS.keys() - TYPES == set()
    assert TARGETS.keys() == {decider.aggregate for decider in AGGREGATES}


@pytest.mark.parametrize("event_type", sorted(WORDS))
def test_words_are_for_people_and_codes_for_scripts(event_type: str) -> None:
    words = WORDS[event_type]
    assert words.verb[0].islower()
    assert not words.verb.endswith(".")
    assert words.action == words.action.upper()
    assert words.outcome in OUTCOMES


@pytest.mark.parametrize(
    "event", [e for e in EVENT_EXAMPLES if type(e) in INSTANCE.events], ids=lambda e: type(e).__name__
)
def test_an_instances_timeline_uses_the_same_codes(event: object) -> None:
    told, words = words_of(event), WORDS[type(event).__name__]  # type: ignore[arg-type] # chosen above
    assert (words.action, words.category) == (told.action, told.category)
    assert (words.outcome == "failed") == told.failed


def test_an_event_type_of_tomorrow_is_told_by_its_name() -> None:
    words = words_for("ModelCelebrated")
    assert (words.verb, words.action, words.outcome) == ("model celebrated", "MODEL_CELEBRATED", "success")
    assert target_kind("gpu_pool") == "gpu pool"


@pytest.mark.parametrize(
    ("actor", "component"),
    [
        ("user:u-1", "api"),
        ("key:k-1", "api"),
        ("worker:w-1", "worker"),
        ("system:handlers", "orchestrator"),
        ("system:bootstrap", "bootstrap"),
    ],
)
def test_an_actor_belongs_to_a_component(actor: str, component: str) -> None:
    assert component_of(actor) == component


def test_words_lead_back_to_types() -> None:
    assert types_of_action("PROVIDER_CREATE") == ["ServerCreated", "ServerCreateFailed"]
    assert "AttemptDenied" in types_of_outcome("failed")
    assert sorted(name for outcome in OUTCOMES for name in types_of_outcome(outcome)) == sorted(WORDS)
    assert types_told_by("INVITED A") == types_told_by("MemberInvited") == types_told_by("org_invitation_created")
    assert types_told_by("no such words") == []


def test_the_catalogue_holds_every_code_that_an_event_carries() -> None:
    assert {words.action for words in WORDS.values()} == {code for code, one in ACTION_TYPES.items() if one.is_active}


def test_the_catalogue_keeps_what_spec_names() -> None:
    retry = ACTION_TYPES["TERMINATOR_RETRY"]
    assert (retry.icon, retry.color_class, retry.category, retry.is_active) == ("Cloud", "orange", "terminate", False)
    assert ACTION_TYPES["ORG_INVITATION_CREATED"].is_active
    assert label_of("PROVIDER_GET_IP") == "Provider Get IP"
