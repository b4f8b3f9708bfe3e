"""Limits of a key and of its organisation, both at once; what is reserved is settled, and never leaks."""

import gc
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from domain.api_key import key_hash
from domain.key_scope import KeyScope
from domain.limits import UNLIMITED, OrganizationLimits
from domain.offering import Price
from gateway.limits import (
    COMPLETION_ESTIMATE_TOKENS,
    MAX_PROMPT_ESTIMATE_TOKENS,
    Estimate,
    Grant,
    Limits,
    estimate,
)
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.tally import WINDOW_S
from gateway.wire import Refusal
from projections.routing_table import KnownKey
from tests.gateway.routing import CLEAR_KEY, key, routing
from tests.given import NOON


class Desk:
    """A gateway's limits on a clock of the test's own, for one key of one organisation."""

    def __init__(self, organization: OrganizationLimits = UNLIMITED, **scope: Any) -> None:
        self.now_s = 1000.0
        self.at = NOON
        self.limits = Limits(SharedCounts("g0"), SpendBook(), now_s=lambda: self.now_s)
        self.organization = organization
        self.key = self._key(**scope)

    def _key(self, **scope: Any) -> KnownKey:
        found = routing(key(scope=KeyScope(role="owner", **scope))).find_key(key_hash(CLEAR_KEY))
        assert found is not None
        return found

    def admit(self, tokens: int = 0, eur_micros: int = 0, request_id: str = "r") -> Grant:
        return self.limits.admit(
            self.key,
            self.organization,
            tokens=tokens,
            spend_eur_micros=eur_micros,
            request_id=request_id,
            now=self.at,
            now_s=self.now_s,
        )

    def refusal(self, tokens: int = 0, eur_micros: int = 0) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.admit(tokens, eur_micros)
        assert refused.value.status == 429
        return refused.value


def told(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def test_who_has_no_limits_is_told_of_none() -> None:
    desk = Desk()
    grants = [desk.admit(tokens=10**9, eur_micros=10**9) for _ in range(1000)]
    assert all(grant.headers == () for grant in grants)
    assert desk.limits.open == 0
    grants[0].settle(tokens=5, spend_eur_micros=5)
    assert desk.limits.open == 0


@pytest.mark.parametrize(
    "desk",
    [
        lambda: Desk(requests_per_minute=3),
        lambda: Desk(OrganizationLimits(requests_per_minute=3)),
        lambda: Desk(OrganizationLimits(requests_per_minute=3), requests_per_minute=100),
        lambda: Desk(OrganizationLimits(requests_per_minute=100), requests_per_minute=3),
    ],
)
def test_the_key_and_its_organisation_are_both_held_to_their_requests(desk: Callable[[], Desk]) -> None:
    office = desk()
    kept = [office.admit() for _ in range(3)]
    refused = office.refusal()
    assert refused.code == "rate_limit_exceeded"
    for grant in kept:
        grant.settle(tokens=0)
    assert office.refusal().code == "rate_limit_exceeded", "that they are over gives no requests back"
    office.now_s += WINDOW_S + 1
    office.admit().settle(tokens=0)


def test_headers_are_those_that_clients_know() -> None:
    desk = Desk(OrganizationLimits(tokens_per_minute=1000), requests_per_minute=5)
    grant = desk.admit(tokens=100)
    assert told(grant.headers) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    grant.settle(tokens=0)


def test_headers_are_of_the_tighter_limit() -> None:
    desk = Desk(OrganizationLimits(requests_per_minute=50, tokens_per_minute=10), requests_per_minute=9)
    grant = desk.admit()
    assert told(grant.headers)["x-ratelimit-limit-requests"] == "9"
    assert told(grant.headers)["x-ratelimit-limit-tokens"] == "10"
    grant.settle(tokens=0)


def test_a_refusal_says_when_to_come_back_and_that_is_soon_enough() -> None:
    desk = Desk(requests_per_minute=2)
    desk.admit().settle(tokens=0)
    desk.now_s += 20.5
    desk.admit().settle(tokens=0)
    desk.now_s += 10.0
    headers = told(desk.refusal().headers)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    wait_s = int(headers["retry-after"])
    assert wait_s == 31, "60 s after the first, and the rest of its second"
    desk.now_s += wait_s
    desk.admit().settle(tokens=0)


def test_tokens_are_reserved_and_settled() -> None:
    desk = Desk(tokens_per_minute=1000)
    grant = desk.admit(tokens=800)
    assert desk.refusal(tokens=300).code == "tokens_limit_exceeded"
    grant.settle(tokens=50)
    desk.admit(tokens=900).settle(tokens=900)
    assert desk.refusal(tokens=100).code == "tokens_limit_exceeded"
    desk.admit(tokens=50).settle(tokens=0)


def test_more_tokens_than_were_reserved_count_from_the_end_on() -> None:
    desk = Desk(tokens_per_minute=1000)
    grant = desk.admit(tokens=10)
    desk.now_s += WINDOW_S
    grant.settle(tokens=900)
    desk.now_s += WINDOW_S - 5
    assert desk.refusal(tokens=200).code == "tokens_limit_exceeded"
    desk.now_s += 6
    desk.admit(tokens=200).settle(tokens=0)


def test_what_is_settled_after_a_minute_takes_nothing_out_of_the_next() -> None:
    desk = Desk(tokens_per_minute=1000)
    slow = desk.admit(tokens=1000)
    desk.now_s += WINDOW_S + 2
    desk.admit(tokens=1000)
    slow.settle(tokens=1)
    assert desk.refusal(tokens=1).code == "tokens_limit_exceeded"


def test_a_request_beyond_the_whole_limit_is_not_to_be_tried_again() -> None:
    refused = Desk(tokens_per_minute=1000).refusal(tokens=1001)
    assert refused.code == "tokens_limit_exceeded"
    assert told(refused.headers)["x-should-retry"] == "false"
    assert "retry-after" not in told(refused.headers)


def test_concurrency_is_given_back_at_the_end() -> None:
    desk = Desk(OrganizationLimits(concurrency=2))
    first, second = desk.admit(), desk.admit()
    refused = desk.refusal()
    assert (refused.code, told(refused.headers)["retry-after"]) == ("concurrency_limit_exceeded", "1")
    assert "x-ratelimit-limit-requests" not in told(second.headers)
    first.settle(tokens=0)
    desk.admit().settle(tokens=0)
    second.settle(tokens=0)
    assert desk.limits.open == 0


def test_the_first_settling_counts() -> None:
    desk = Desk(concurrency=1, tokens_per_minute=100)
    grant = desk.admit(tokens=10)
    for tokens in (100, 0, 100):
        grant.settle(tokens=tokens)
    assert desk.limits.open == 0
    assert desk.refusal(tokens=1).code == "tokens_limit_exceeded"


def test_what_is_refused_reserves_nothing() -> None:
    desk = Desk(OrganizationLimits(requests_per_minute=100, concurrency=1), requests_per_minute=100)
    running = desk.admit()
    for _ in range(500):
        desk.refusal()
    running.settle(tokens=0)
    assert told(desk.admit().headers)["x-ratelimit-remaining-requests"] == "98"


@pytest.mark.filterwarnings("error")
def test_a_grant_that_is_dropped_shows_as_a_defect_and_locks_nobody_out() -> None:
    desk = Desk(concurrency=1)
    desk.admit()
    gc.collect()
    assert (desk.limits.dropped, desk.limits.open) == (1, 0)
    desk.admit().settle(tokens=0)
    assert desk.limits.dropped == 1, "and one that was settled does not"


def test_a_limit_that_changed_holds_with_the_next_request() -> None:
    desk = Desk(OrganizationLimits(requests_per_minute=100))
    for _ in range(10):
        desk.admit().settle(tokens=0)
    desk.organization = OrganizationLimits(requests_per_minute=5)
    assert desk.refusal().code == "rate_limit_exceeded"
    desk.organization = OrganizationLimits(requests_per_minute=11)
    desk.admit().settle(tokens=0)
    desk.organization = UNLIMITED
    desk.admit().settle(tokens=0)


def test_a_key_spends_no_more_than_its_limit_in_all() -> None:
    desk = Desk(spend_limit_eur_micros=100)
    desk.admit(eur_micros=60, request_id="a").settle(tokens=0, spend_eur_micros=70)
    refused = desk.refusal(eur_micros=31)
    assert (refused.code, told(refused.headers)) == ("spend_limit_reached", {"x-should-retry": "false"})
    desk.at += timedelta(days=400)
    assert desk.refusal(eur_micros=31).code == "spend_limit_reached", "no month gives a key anything back"
    desk.admit(eur_micros=30, request_id="b").settle(tokens=0, spend_eur_micros=30)


def test_an_organisation_spends_no_more_than_its_limit_in_a_calendar_month() -> None:
    desk = Desk(OrganizationLimits(spend_limit_eur_micros_per_month=100))
    desk.at = datetime.fromisoformat("2026-11-30T23:59:59+00:00")
    desk.admit(eur_micros=100, request_id="a").settle(tokens=0, spend_eur_micros=100)
    assert desk.refusal(eur_micros=1).code == "spend_limit_reached"
    desk.at += timedelta(seconds=1)
    desk.admit(eur_micros=100, request_id="b").settle(tokens=0, spend_eur_micros=100)
    assert desk.refusal(eur_micros=1).code == "spend_limit_reached"


def test_what_costs_nothing_passes_a_spend_limit_that_is_used_up() -> None:
    desk = Desk(spend_limit_eur_micros=100)
    desk.admit(eur_micros=100, request_id="a").settle(tokens=0, spend_eur_micros=100)
    assert desk.refusal(eur_micros=1).code == "spend_limit_reached"
    desk.admit(eur_micros=0).settle(tokens=0)


def test_requests_that_run_at_the_same_time_cannot_spend_the_same_money() -> None:
    desk = Desk(spend_limit_eur_micros=100)
    grants = [desk.admit(eur_micros=50, request_id=f"r{n}") for n in range(2)]
    assert desk.refusal(eur_micros=1).code == "spend_limit_reached"
    for grant in grants:
        grant.settle(tokens=0, spend_eur_micros=0)
    desk.admit(eur_micros=100).settle(tokens=0)


@settings(max_examples=60, deadline=None)
@drawn(
    limit=st.integers(1, 20),
    tokens_limit=st.integers(1, 2000),
    concurrency=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.floats(0.0, 20.0), st.integers(0, 900), st.integers(0, 900), st.booleans()), max_size=120
    ),
)
def test_no_sequence_of_requests_passes_a_limit_in_any_minute(
    limit: int, tokens_limit: int, concurrency: int, steps: list[tuple[float, int, int, bool]]
) -> None:
    desk = Desk(OrganizationLimits(requests_per_minute=limit, concurrency=concurrency), tokens_per_minute=tokens_limit)
    admitted: list[tuple[float, int]] = []
    running: list[tuple[Grant, int]] = []
    for pause_s, tokens, used, ends in steps:
        desk.now_s += pause_s
        if ends and running:
            grant, reserved = running.pop()
            grant.settle(tokens=min(used, reserved))
        try:
            running.append((desk.admit(tokens=tokens), tokens))
        except Refusal:
            continue
        admitted.append((desk.now_s, 0))
        assert len(running) <= concurrency
        assert sum(reserved for _, reserved in running[-1:]) <= tokens_limit
        assert len([1 for at_s, _ in admitted if at_s > desk.now_s - WINDOW_S]) <= limit
    for grant, _ in running:
        grant.settle(tokens=0)
    assert (desk.limits.open, desk.limits.dropped) == (0, 0)


PRICE = Price(input_eur_micros_per_million=1_000_000, output_eur_micros_per_million=2_000_000)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (100 + COMPLETION_ESTIMATE_TOKENS, 100 + 2 * COMPLETION_ESTIMATE_TOKENS)),
        ({"max_tokens": 10}, (110, 120)),
        ({"max_tokens": 0}, (100 + COMPLETION_ESTIMATE_TOKENS, 100 + 2 * COMPLETION_ESTIMATE_TOKENS)),
        ({"max_tokens": 10, "answers": 3}, (130, 160)),
        ({"max_tokens": 1000, "cap": 20}, (120, 140)),
        ({"cap": 20}, (120, 140)),
        ({"generates": False, "max_tokens": 10}, (100, 100)),
        ({"body_bytes": 10_000_000, "generates": False}, (MAX_PROMPT_ESTIMATE_TOKENS, MAX_PROMPT_ESTIMATE_TOKENS)),
    ],
)
def test_what_is_reserved_follows_from_what_was_asked(asked: dict[str, Any], expected: tuple[int, int]) -> None:
    given = {"body_bytes": 400, "generates": True, "max_tokens": None, "cap": None, **asked}
    assert estimate(price=PRICE, **given) == Estimate(*expected)
