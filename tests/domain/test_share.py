from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Rejected, fold
from domain.offering import Price
from domain.share import (
    SHARE,
    AccessRefused,
    AccessRequested,
    ActivateShare,
    ChangeShareTerms,
    DeactivateShare,
    OfferingShared,
    PauseShare,
    RefuseAccess,
    RequestAccess,
    ResumeShare,
    RevokeShare,
    Share,
    ShareActivated,
    ShareCommand,
    ShareDeactivated,
    ShareOffering,
    SharePaused,
    ShareResumed,
    ShareRevoked,
    ShareTerms,
    ShareTermsChanged,
    StartTrial,
    TrialStarted,
    share_id_of,
)
from tests.examples import ACME, GLOBEX, OFFERED, example
from tests.given import NOON, given

DAY_S = 86_400
ASK, ASKED = example(RequestAccess), example(AccessRequested)
SHARE_IT, SHARED = example(ShareOffering), example(OfferingShared)
TRY, REFUSED = example(StartTrial), AccessRefused()
FREE_FOR_TWO_WEEKS = ShareTerms(price=Price(), starts_at=NOON, ends_at=NOON + timedelta(days=14))
TRIED = replace(example(TrialStarted), terms=FREE_FOR_TWO_WEEKS)
PAUSED, REVOKED = SharePaused(), ShareRevoked()
FOR_A_DAY = replace(SHARED, terms=ShareTerms(starts_at=NOON, ends_at=NOON + timedelta(days=1)))
CHEAPER = ShareTerms(price=Price(input_eur_micros_per_million=1), starts_at=NOON)


def test_access_is_asked_for_once() -> None:
    given().when(ASK).then(ASKED)
    given(ASKED).when(ASK).then_nothing()
    given(SHARED).when(ASK).then_nothing()


def test_a_refused_one_may_ask_again_and_so_may_one_whose_share_ended_or_was_revoked() -> None:
    given(ASKED, REFUSED).when(ASK).then(ASKED)
    given(SHARED, REVOKED).when(ASK).then(ASKED)
    given(FOR_A_DAY).later(DAY_S).when(ASK).then(ASKED)
    given(FOR_A_DAY).later(DAY_S - 1).when(ASK).then_nothing()


def test_nobody_asks_a_pause_away() -> None:
    given(SHARED, PAUSED).when(ASK).then_rejected("share_paused")


def test_asking_needs_a_subscription() -> None:
    given().when(replace(ASK, plan="free")).then_rejected("subscription_required")


def test_a_request_is_refused_once() -> None:
    given(ASKED).when(RefuseAccess()).then(REFUSED)
    given(ASKED, REFUSED).when(RefuseAccess()).then_nothing()
    given(SHARED).when(RefuseAccess()).then_rejected("access_not_requested")
    given().when(RefuseAccess()).then_rejected("share_not_found")


def test_it_is_shared_once_asked_or_unasked() -> None:
    given().when(SHARE_IT).then(SHARED)
    given(ASKED).when(SHARE_IT).then(SHARED)
    given(SHARED).when(SHARE_IT).then_nothing()


@pytest.mark.parametrize("history", [(SHARED,), (SHARED, PAUSED), (TRIED,)])
def test_a_pair_has_one_share_of_an_offering(history: tuple[object, ...]) -> None:
    given(*history).when(replace(SHARE_IT, terms=CHEAPER)).then_rejected("share_already_exists")


def test_what_was_revoked_or_ended_is_shared_anew() -> None:
    given(SHARED, REVOKED).when(SHARE_IT).then(SHARED)
    given(FOR_A_DAY).later(DAY_S).when(SHARE_IT).then(SHARED)


def test_provider_and_consumer_differ() -> None:
    for command in (ASK, SHARE_IT, TRY):
        given().when(replace(command, provider=GLOBEX)).then_rejected("consumer_must_differ")


def test_each_pair_and_offering_has_one_id() -> None:
    ids = {share_id_of(OFFERED, GLOBEX), share_id_of(OFFERED, ACME), share_id_of(OFFERED, GLOBEX)}
    assert len(ids) == 2


def test_a_trial_runs_for_its_days_with_both_flags() -> None:
    given().when(TRY).then(TRIED)
    given(ASKED).when(TRY).then(TRIED)
    assert fold(SHARE, SHARE.initial, [TRIED], NOON).activation.operational


def test_a_trial_is_used_once() -> None:
    given(TRIED).later(DAY_S).when(TRY).then_nothing()
    given(TRIED).later(14 * DAY_S).when(TRY).then_rejected("trial_already_used")


@pytest.mark.parametrize(
    "history", [(SHARED,), (SHARED, PAUSED), (SHARED, REVOKED), (SHARED, REVOKED, ASKED), (TRIED, REVOKED)]
)
def test_a_trial_is_no_way_around_what_the_provider_decided(history: tuple[object, ...]) -> None:
    given(*history).when(TRY).then_rejected("trial_already_used")


def test_an_offering_without_a_trial_has_none() -> None:
    given().when(replace(TRY, trial_days=0)).then_rejected("trial_not_offered")


def test_it_is_paused_resumed_and_revoked_once() -> None:
    given(SHARED).when(PauseShare()).then(PAUSED)
    given(SHARED, PAUSED).when(PauseShare()).then_nothing()
    given(SHARED, PAUSED).when(ResumeShare()).then(ShareResumed())
    given(SHARED).when(ResumeShare()).then_nothing()
    given(SHARED, PAUSED).when(RevokeShare()).then(REVOKED)
    given(SHARED, REVOKED).when(RevokeShare()).then_nothing()


IN_FORCE = (PauseShare(), ResumeShare(), ChangeShareTerms(terms=CHEAPER), ActivateShare(flag="technical"))


@pytest.mark.parametrize("command", [*IN_FORCE, RevokeShare(), DeactivateShare(flag="economic")])
def test_only_what_was_given_can_be_handled(command: object) -> None:
    given().when(command).then_rejected("share_not_found")
    given(ASKED).when(command).then_rejected("share_not_active")
    given(ASKED, REFUSED).when(command).then_rejected("share_not_active")


@pytest.mark.parametrize("command", IN_FORCE)
def test_a_revoked_one_is_over(command: object) -> None:
    given(SHARED, REVOKED).when(command).then_rejected("share_revoked")


def test_terms_change_once() -> None:
    given(SHARED).when(ChangeShareTerms(terms=CHEAPER)).then(ShareTermsChanged(terms=CHEAPER))
    given(SHARED, PAUSED).when(ChangeShareTerms(terms=SHARED.terms)).then_nothing()


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        (ShareTerms(starts_at=NOON, ends_at=NOON), "invalid_period"),
        (ShareTerms(starts_at=NOON, price=Price(input_eur_micros_per_million=-1)), "invalid_price"),
    ],
)
def test_terms_beyond_reason_are_refused(terms: ShareTerms, code: str) -> None:
    given().when(replace(SHARE_IT, terms=terms)).then_rejected(code)
    given(SHARED).when(ChangeShareTerms(terms=terms)).then_rejected(code)


def test_a_share_is_not_given_when_it_is_over_already() -> None:
    given().later(DAY_S).when(replace(SHARE_IT, terms=FOR_A_DAY.terms)).then_rejected("invalid_period")


def test_each_flag_is_set_and_cleared_by_itself() -> None:
    half = replace(SHARED, activated=("technical",))
    given(half).when(ActivateShare(flag="technical")).then_nothing()
    given(half).when(ActivateShare(flag="economic")).then(ShareActivated(flag="economic"))
    given(half).when(DeactivateShare(flag="technical")).then(ShareDeactivated(flag="technical"))
    given(half).when(DeactivateShare(flag="economic")).then_nothing()


_moments = st.integers(-3, 3).map(lambda days: NOON + timedelta(days=days))
_terms = st.builds(ShareTerms, starts_at=_moments, ends_at=st.none() | _moments)
_commands: st.SearchStrategy[ShareCommand] = st.one_of(
    st.sampled_from([ASK, RefuseAccess(), PauseShare(), ResumeShare(), RevokeShare()]),
    st.builds(
        replace, st.just(SHARE_IT), terms=_terms, activate=st.sampled_from([(), ("technical",), SHARED.activated])
    ),
    st.builds(replace, st.just(TRY), trial_days=st.integers(0, 2)),
    st.builds(ChangeShareTerms, terms=_terms),
    st.builds(ActivateShare, flag=st.sampled_from(["technical", "economic"])),
    st.builds(DeactivateShare, flag=st.sampled_from(["technical", "economic"])),
)
_lives = st.lists(st.tuples(st.integers(0, 2 * DAY_S), _commands), max_size=25)
"""Seconds to wait, then a command."""


class _Books:
    """What the provider's bookkeeping would say, kept from the events alone and by another rule than the domain's."""

    def __init__(self) -> None:
        self.granted = self.paused = False
        self.flags: set[str] = set()
        self.starts_at = NOON
        self.ends_at: datetime | None = None

    def enter(self, event: Any) -> None:
        if isinstance(event, OfferingShared | TrialStarted):
            self.granted, self.paused = True, False
            self.flags = set(event.activated) if isinstance(event, OfferingShared) else {"technical", "economic"}
        self.granted = self.granted and not isinstance(event, ShareRevoked | AccessRequested)
        self.paused = (self.paused or isinstance(event, SharePaused)) and not isinstance(event, ShareResumed)
        if isinstance(event, ShareActivated):
            self.flags.add(event.flag)
        if isinstance(event, ShareDeactivated):
            self.flags.discard(event.flag)
        if isinstance(event, OfferingShared | TrialStarted | ShareTermsChanged):
            self.starts_at, self.ends_at = event.terms.starts_at, event.terms.ends_at

    def open(self, now: datetime) -> bool:
        in_time = self.starts_at <= now and not (self.ends_at and self.ends_at <= now)
        return self.granted and not self.paused and len(self.flags) == 2 and in_time


@forall(_lives)
def test_a_share_gives_access_only_while_active_with_both_flags_and_in_its_time(
    life: list[tuple[int, ShareCommand]],
) -> None:
    state, books, now = Share(), _Books(), NOON
    trials = 0
    for seconds, command in life:
        now += timedelta(seconds=seconds)
        try:
            events = SHARE.decide(state, command, now)
        except Rejected:
            continue
        for event in events:
            books.enter(event)
            trials += isinstance(event, TrialStarted)
        state = fold(SHARE, state, events, now)
        assert not SHARE.decide(state, command, now), "asking twice is asking once"
        for moment in (now, now + timedelta(days=1), now + timedelta(days=4)):
            assert state.gives_access(moment) == books.open(moment)
    assert trials <= 1
