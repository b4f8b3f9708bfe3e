import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.offering import (
    ActivateOffering,
    DeactivateOffering,
    OfferingActivated,
    OfferingDeactivated,
    OfferingPublished,
    OfferingRevised,
    OfferingWithdrawn,
    Price,
    PublishOffering,
    ReviseOffering,
    Terms,
    WithdrawOffering,
    offering_id_of,
)
from domain.values import slug_of
from tests.examples import ACME, GLOBEX, example
from tests.given import given

PUBLISH = example(PublishOffering)
PUBLISHED = example(OfferingPublished)
OTHER = Terms(name="Other")
TRIAL = Terms(name="Try me", visibility="public", access_policy="trial", trial_days=14)


def test_it_is_published_once() -> None:
    given().when(PUBLISH).then(PUBLISHED)
    given(PUBLISHED).when(PUBLISH).then_nothing()


def test_a_code_offers_one_thing_at_a_time() -> None:
    given(PUBLISHED).when(replace(PUBLISH, terms=OTHER)).then_rejected("offering_already_exists")
    assert offering_id_of(ACME, "chat") == offering_id_of(ACME, "chat")
    assert len({offering_id_of(ACME, "chat"), offering_id_of(GLOBEX, "chat"), offering_id_of(ACME, "code")}) == 3


def test_a_withdrawn_code_may_be_published_again() -> None:
    outcome = given(PUBLISHED, OfferingWithdrawn()).when(replace(PUBLISH, terms=OTHER, activate=()))
    outcome.then(replace(PUBLISHED, terms=OTHER, activated=()))


def test_it_is_revised_and_withdrawn_once() -> None:
    given(PUBLISHED).when(ReviseOffering(terms=OTHER)).then(OfferingRevised(terms=OTHER))
    given(PUBLISHED, OfferingRevised(terms=OTHER)).when(ReviseOffering(terms=OTHER)).then_nothing()
    given(PUBLISHED).when(WithdrawOffering()).then(OfferingWithdrawn())
    given(PUBLISHED, OfferingWithdrawn()).when(WithdrawOffering()).then_nothing()


def test_a_withdrawn_one_does_not_change() -> None:
    for command in (ReviseOffering(terms=OTHER), example(ActivateOffering), example(DeactivateOffering)):
        given(PUBLISHED, OfferingWithdrawn()).when(command).then_rejected("offering_withdrawn")


def test_what_was_never_published_is_not_there() -> None:
    for command in (ReviseOffering(terms=OTHER), WithdrawOffering(), example(ActivateOffering)):
        given().when(command).then_rejected("offering_not_found")


def test_each_flag_is_set_and_cleared_by_itself() -> None:
    half = replace(PUBLISHED, activated=("technical",))
    given(half).when(ActivateOffering(flag="technical")).then_nothing()
    given(half).when(ActivateOffering(flag="economic")).then(OfferingActivated(flag="economic"))
    given(half).when(DeactivateOffering(flag="economic")).then_nothing()
    given(half).when(DeactivateOffering(flag="technical")).then(OfferingDeactivated(flag="technical"))


@pytest.mark.parametrize("code", ["", "Chat", "a b", "-a", "a-", "a--b", "a/b", "x" * 65, "chaté", "a\n"])
def test_a_code_is_a_slug(code: str) -> None:
    given().when(replace(PUBLISH, code=code)).then_rejected("invalid_code")


@forall(st.text(max_size=70))
def test_a_code_is_taken_as_it_stands_or_not_at_all(code: str) -> None:
    outcome = given().when(replace(PUBLISH, code=code))
    if code and slug_of(code, "") == code:
        outcome.then(replace(PUBLISHED, code=code))
    else:
        outcome.then_rejected("invalid_code")


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        (replace(OTHER, name=" "), "name_required"),
        (replace(OTHER, name="x" * 101), "name_too_long"),
        (replace(OTHER, description="x" * 2001), "description_too_long"),
        (replace(OTHER, price=Price(input_eur_micros_per_million=-1)), "invalid_price"),
        (replace(OTHER, price=Price(output_eur_micros_per_million=10**13)), "invalid_price"),
        (replace(TRIAL, trial_days=0), "invalid_trial_days"),
        (replace(TRIAL, trial_days=366), "invalid_trial_days"),
        (replace(OTHER, trial_days=14), "invalid_trial_days"),
    ],
)
def test_terms_beyond_reason_are_refused(terms: Terms, code: str) -> None:
    given().when(replace(PUBLISH, terms=terms)).then_rejected(code)
    given(PUBLISHED).when(ReviseOffering(terms=terms)).then_rejected(code)


def test_a_trial_is_a_policy_with_days() -> None:
    given().when(replace(PUBLISH, terms=TRIAL)).then(replace(PUBLISHED, terms=TRIAL))
