"""Who may call an offering: the whole table, visibility x policy x plan x share, against the sentences of the SPEC."""

from datetime import timedelta
from itertools import product
from typing import get_args

import pytest

from domain.activation import Activation
from domain.entitlement import refusal_to_call
from domain.offering import AccessPolicy, Offering, Terms, Visibility
from domain.share import Share, ShareStatus, ShareTerms
from domain.values import Plan
from tests.examples import ACME, GLOBEX
from tests.given import NOON

WORKS = Activation(technical=True, economic=True)
NOT_APPROVED = Activation(technical=True)
BEGUN = ShareTerms(starts_at=NOON - timedelta(days=1))
ENDED = ShareTerms(starts_at=NOON - timedelta(days=2), ends_at=NOON)
TO_COME = ShareTerms(starts_at=NOON + timedelta(seconds=1))


def offered(
    visibility: Visibility = "public", policy: AccessPolicy = "free", *, live: bool = True, works: bool = True
) -> Offering:
    terms = Terms(name="Chat", visibility=visibility, access_policy=policy)
    return Offering(code="chat", terms=terms, live=live, activation=WORKS if works else NOT_APPROVED)


def shared(
    status: ShareStatus = "active",
    terms: ShareTerms | None = BEGUN,
    *,
    tried: bool = False,
    activation: Activation = WORKS,
) -> Share:
    return Share(status=status, terms=terms, tried=tried, activation=activation)


SHARES: dict[str, Share | None] = {
    "none": None,
    "requested": shared("requested", None),
    "refused": shared("refused", None),
    "active": shared(),
    "trial": shared(tried=True),
    "ended trial": shared(terms=ENDED, tried=True),
    "ended": shared(terms=ENDED),
    "to come": shared(terms=TO_COME),
    "paused": shared("paused"),
    "revoked": shared("revoked"),
    "requested again": shared("requested", ENDED),
    "not operational": shared(activation=NOT_APPROVED),
}
CELLS = list(product(get_args(Visibility), get_args(AccessPolicy)))
OPEN = {"active", "trial"}
NEVER_IN = {"none", "requested", "refused"}
ASKED = {"requested", "requested again"}


def code(offering: Offering, *, plan: Plan = "free", share: Share | None = None, caller: str = GLOBEX) -> str:
    refusal = refusal_to_call(offering, ACME, caller, plan=plan, share=share, now=NOON)  # type: ignore[arg-type]  # ids of tests
    return refusal.code if refusal else "yes"


def expected(visibility: Visibility, policy: AccessPolicy, plan: Plan, share: str) -> str:
    """The SPEC's sentences once more, in another order than the code has them."""
    if share in OPEN:
        return "yes"
    if visibility == "private":
        return "offering_not_found" if share in NEVER_IN else "offering_not_accessible"
    told = {
        "free": "yes",
        "subscription_required": "yes" if plan == "subscriber" else "subscription_required",
        "pay_per_token": "yes" if plan == "subscriber" else "subscription_required",
        "request_required": "access_request_pending" if share in ASKED else "access_request_required",
        "trial": "trial_required" if share in NEVER_IN else "trial_ended",
    }
    return told[policy]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("plan", get_args(Plan))
@pytest.mark.parametrize(("visibility", "policy"), CELLS)
def test_each_cell_of_the_table_answers_as_the_spec_says(
    visibility: Visibility, policy: AccessPolicy, plan: Plan, share: str
) -> None:
    answer = code(offered(visibility, policy), plan=plan, share=SHARES[share])
    assert answer == expected(visibility, policy, plan, share)


@pytest.mark.parametrize(("visibility", "policy"), CELLS)
def test_its_own_organisation_always_may(visibility: Visibility, policy: AccessPolicy) -> None:
    assert code(offered(visibility, policy), caller=ACME) == "yes"


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "offering", [Offering(), offered(live=False), offered(works=False)], ids=["never", "withdrawn", "not operational"]
)
def test_what_does_not_work_does_not_exist_for_others(offering: Offering, share: str) -> None:
    assert code(offering, plan="subscriber", share=SHARES[share]) == "offering_not_found"


def test_its_own_organisation_is_told_what_is_missing() -> None:
    refusal = refusal_to_call(offered(works=False), ACME, ACME, plan="free", share=None, now=NOON)
    assert refusal is not None
    assert refusal.code == "offering_not_operational"
    assert "its economic activation is missing" in refusal.message
    assert code(offered(live=False), caller=ACME) == code(Offering(), caller=ACME) == "offering_not_found"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ("paused", "paused"),
        ("revoked", "revoked"),
        ("ended", "expired"),
        ("to come", "begins at"),
        ("not operational", "its economic activation is missing"),
    ],
)
def test_a_refusal_names_the_state_of_the_share(share: str, words: str) -> None:
    for offering in (offered("private"), offered("public", "request_required")):
        refusal = refusal_to_call(offering, ACME, GLOBEX, plan="free", share=SHARES[share], now=NOON)
        assert refusal is not None
        assert words in refusal.message


def test_a_share_opens_from_its_beginning_until_its_end() -> None:
    offering = offered("private")
    share = shared(terms=ShareTerms(starts_at=NOON, ends_at=NOON + timedelta(hours=1)))
    told = [
        refusal_to_call(offering, ACME, GLOBEX, plan="free", share=share, now=NOON + timedelta(hours=hours)) is None
        for hours in (-0.1, 0, 0.9, 1)
    ]
    assert told == [False, True, True, False]
