"""How a client says that it can wait."""

import pytest

from gateway.patience import MAX_WAIT_S, Patience, patience_of
from gateway.wire import Refusal


def test_who_says_nothing_waits_for_a_busy_worker_and_for_no_other() -> None:
    patience = patience_of({})
    assert patience == Patience(priority="normal", max_wait_s=None, ticket="")
    assert patience.wait_s(has_ready_worker=True, default_s=30.0) == 30.0
    assert patience.wait_s(has_ready_worker=False, default_s=30.0) == 0.0


@pytest.mark.parametrize(
    ("asked", "wait_s"), [(b"0", 0.0), (b"2.5", 2.5), (b" 600 ", 600.0), (b"1e9", MAX_WAIT_S), (b"inf", MAX_WAIT_S)]
)
def test_who_says_how_long_waits_so_long_also_for_a_start(asked: bytes, wait_s: float) -> None:
    patience = patience_of({b"x-inventiv-max-wait": asked})
    assert patience.wait_s(has_ready_worker=False, default_s=30.0) == wait_s
    assert patience.wait_s(has_ready_worker=True, default_s=30.0) == wait_s


def test_priority_and_ticket_are_read() -> None:
    given = {b"x-inventiv-priority": b" High ", b"x-inventiv-ticket": b"job-42.a_B"}
    assert patience_of(given) == Patience(priority="high", ticket="job-42.a_B")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (b"x-inventiv-priority", b"urgent", "invalid_priority"),
        (b"x-inventiv-max-wait", b"soon", "invalid_max_wait"),
        (b"x-inventiv-max-wait", b"-1", "invalid_max_wait"),
        (b"x-inventiv-max-wait", b"nan", "invalid_max_wait"),
        (b"x-inventiv-ticket", b"a b", "invalid_ticket"),
        (b"x-inventiv-ticket", b"x" * 65, "invalid_ticket"),
        (b"x-inventiv-ticket", "jöb".encode(), "invalid_ticket"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: bytes, value: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        patience_of({name: value})
    assert (refused.value.status, refused.value.code) == (400, code)
