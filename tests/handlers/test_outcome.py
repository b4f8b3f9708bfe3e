from domain.decider import Rejected
from handlers.outcome import MAX_ATTEMPTS, MAX_PAUSE_S, Done, Park, RetryAfter, outcome_of, pause_s


def test_a_refused_command_is_settled() -> None:
    assert outcome_of(Rejected("instance_gone"), version=7, attempt=0, own_faults=0) == Done(version=7)


def test_a_fault_of_the_world_is_retried_for_ever() -> None:
    outcome = outcome_of(ConnectionError("refused"), version=7, attempt=10_000, own_faults=0)
    assert outcome == RetryAfter(MAX_PAUSE_S, "ConnectionError: refused")


def test_a_fault_of_our_own_is_retried_and_then_parked() -> None:
    last_but_one = outcome_of(KeyError("x"), version=7, attempt=0, own_faults=MAX_ATTEMPTS - 2)
    last = outcome_of(KeyError("x"), version=7, attempt=0, own_faults=MAX_ATTEMPTS - 1)
    assert isinstance(last_but_one, RetryAfter)
    assert last == Park("KeyError: 'x'")


def test_the_impossible_is_parked_at_once() -> None:
    assert outcome_of(AssertionError("no"), version=7, attempt=0, own_faults=0) == Park("AssertionError: no")


def test_pauses_double_up_to_their_bound() -> None:
    assert [pause_s(n) for n in (0, 1, 2, 3)] == [0.25, 0.5, 1.0, 2.0]
    assert pause_s(1_000_000) == MAX_PAUSE_S
