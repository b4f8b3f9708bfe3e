"""A worker that fails is spared for a growing while, and second attempts stay a share of the first."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.breaker import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_RETRIES,
    PROBE_S,
    RETRIES_PER_S,
    RETRY_SHARE,
    Breakers,
    RetryBudget,
)

WORKER = "i1"


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Tried:
    """A worker's breaker as its caller sees it."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.breakers = Breakers(now_s=self.clock)

    def may_call(self) -> bool:
        return self.breakers.may_call(WORKER)

    def fails(self, times: int = 1) -> None:
        for _ in range(times):
            self.breakers.began(WORKER)
            self.breakers.failed(WORKER)

    def waits(self, seconds: float) -> None:
        self.clock.now_s += seconds


@pytest.fixture
def tried() -> Tried:
    return Tried()


@pytest.fixture
def opened(tried: Tried) -> Tried:
    tried.fails(FAILURES_TO_OPEN)
    return tried


def test_a_worker_never_seen_may_be_called(tried: Tried) -> None:
    assert tried.may_call()


def test_failures_in_a_row_open_it(tried: Tried) -> None:
    tried.fails(FAILURES_TO_OPEN - 1)
    assert tried.may_call()
    tried.fails()
    assert not tried.may_call()
    assert tried.breakers.is_open(WORKER)


def test_a_success_between_them_keeps_it_closed(tried: Tried) -> None:
    tried.fails(FAILURES_TO_OPEN - 1)
    tried.breakers.succeeded(WORKER)
    tried.fails(FAILURES_TO_OPEN - 1)
    assert tried.may_call()


def test_leaving_clients_open_nothing(tried: Tried) -> None:
    for _ in range(10 * FAILURES_TO_OPEN):
        tried.breakers.began(WORKER)
        tried.breakers.left(WORKER)
    assert tried.may_call()


def test_another_worker_is_not_spared_for_it(opened: Tried) -> None:
    assert opened.breakers.may_call("i2")


def test_one_probe_goes_once_the_pause_is_over(opened: Tried) -> None:
    opened.waits(FIRST_PAUSE_S - 0.001)
    assert not opened.may_call()
    opened.waits(0.001)
    assert opened.may_call()
    opened.breakers.began(WORKER)
    assert not opened.may_call()


def test_a_probe_that_succeeds_closes_it(opened: Tried) -> None:
    opened.waits(FIRST_PAUSE_S)
    opened.breakers.began(WORKER)
    opened.breakers.succeeded(WORKER)
    assert opened.may_call()
    opened.fails(FAILURES_TO_OPEN - 1)
    assert opened.may_call(), "it starts anew, not half-way to its next pause"


def test_each_probe_that_fails_doubles_the_pause_up_to_a_cap(opened: Tried) -> None:
    pauses, expected = [], []
    pause_s = FIRST_PAUSE_S
    for _ in range(8):
        expected.append(pause_s)
        opened.waits(pause_s - 0.001)
        early = opened.may_call()
        opened.waits(0.001)
        pauses.append((early, opened.may_call()))
        opened.fails()
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    assert pauses == [(False, True)] * 8
    assert expected[-1] == LONGEST_PAUSE_S


def test_a_probe_whose_client_leaves_makes_room_for_the_next(opened: Tried) -> None:
    opened.waits(FIRST_PAUSE_S)
    opened.breakers.began(WORKER)
    opened.breakers.left(WORKER)
    assert opened.may_call()


def test_a_probe_that_tells_nothing_is_not_waited_for_for_ever(opened: Tried) -> None:
    opened.waits(FIRST_PAUSE_S)
    opened.breakers.began(WORKER)
    opened.waits(PROBE_S - 0.001)
    assert not opened.may_call()
    opened.waits(0.001)
    assert opened.may_call()


def test_requests_that_were_under_way_do_not_lengthen_the_pause(opened: Tried) -> None:
    for _ in range(100):
        opened.breakers.failed(WORKER)
    opened.waits(FIRST_PAUSE_S)
    assert opened.may_call()
    opened.breakers.failed(WORKER)
    assert opened.may_call(), "no probe had begun"


def test_a_worker_that_is_gone_is_forgotten(opened: Tried) -> None:
    opened.breakers.forget(lambda name: name != WORKER)
    assert opened.may_call()
    assert not opened.breakers.is_open(WORKER)


def test_a_worker_that_is_still_there_is_not_forgotten(opened: Tried) -> None:
    opened.breakers.forget(lambda _: True)
    assert not opened.may_call()


happenings = st.lists(
    st.one_of(
        st.sampled_from(["call", "succeeded", "failed", "left"]),
        st.floats(min_value=0, max_value=2 * LONGEST_PAUSE_S, allow_nan=False),
    ),
    max_size=200,
)


@given(happenings)
@settings(deadline=None)
def test_no_sequence_lets_a_second_probe_go_before_the_first_has_told_or_spares_a_worker_for_ever(
    sequence: list[str | float],
) -> None:
    tried = Tried()
    probe_since_s: float | None = None
    for what in sequence:
        if isinstance(what, float):
            tried.waits(what)
        elif what == "call":
            if tried.may_call():
                if tried.breakers.is_open(WORKER):
                    assert probe_since_s is None or tried.clock.now_s - probe_since_s >= PROBE_S
                    probe_since_s = tried.clock.now_s
                tried.breakers.began(WORKER)
        else:
            getattr(tried.breakers, what)(WORKER)
            probe_since_s = None
    tried.waits(max(LONGEST_PAUSE_S, PROBE_S))
    assert tried.may_call()


def test_a_quiet_gateway_may_try_again(tried: Tried) -> None:
    budget = RetryBudget(now_s=tried.clock)
    assert budget.spend()


def test_a_budget_that_is_used_up_refuses_until_time_has_passed(tried: Tried) -> None:
    budget = RetryBudget(now_s=tried.clock)
    assert [budget.spend() for _ in range(int(MOST_RETRIES) + 1)] == [True] * int(MOST_RETRIES) + [False]
    tried.waits(1.0)
    assert [budget.spend() for _ in range(int(RETRIES_PER_S) + 1)] == [True] * int(RETRIES_PER_S) + [False]


def test_requests_earn_a_share_of_second_attempts(tried: Tried) -> None:
    budget = RetryBudget(now_s=tried.clock)
    while budget.spend():
        pass
    requests = 200
    spent = 0
    for _ in range(requests):
        budget.earned()
        spent += budget.spend()
    assert spent == pytest.approx(RETRY_SHARE * requests, abs=1)


@given(st.lists(st.one_of(st.sampled_from(["earned", "spend"]), st.floats(min_value=0, max_value=20)), max_size=400))
@settings(deadline=None)
def test_no_sequence_spends_more_than_the_share_the_floor_and_what_was_saved(sequence: list[str | float]) -> None:
    clock = Clock()
    budget = RetryBudget(now_s=clock)
    requests = spent = 0
    for what in sequence:
        if isinstance(what, float):
            clock.now_s += what
        elif what == "earned":
            requests += 1
            budget.earned()
        else:
            spent += budget.spend()
        elapsed_s = clock.now_s - 1000.0
        assert spent <= MOST_RETRIES + RETRY_SHARE * requests + RETRIES_PER_S * elapsed_s + 1e-6
