"""Accounts held against what was asked for."""

import pytest

from tests.chaos.gateway.books import Books, balance, differences, largest, percentile, total
from tests.projections.examples import usage_record


def test_one_record_for_each_request_is_in_order() -> None:
    records = [usage_record("a"), usage_record("b")]
    assert balance(["a", "b"], records) == Books(unbooked=0, double_booked=0, strangers=0)


def test_a_request_without_a_record_is_unbooked() -> None:
    assert balance(["a", "b"], [usage_record("b")]).unbooked == 1


def test_each_record_beyond_the_first_is_one_too_many() -> None:
    assert balance(["a"], [usage_record("a")] * 3).double_booked == 2


def test_a_record_that_no_client_knows_of_is_a_strangers() -> None:
    assert balance([], [usage_record("a"), usage_record("a")]) == Books(unbooked=0, double_booked=1, strangers=1)


def test_a_difference_is_negative_where_too_little_was_booked() -> None:
    records = [usage_record("a", completion_tokens=5), usage_record("b", completion_tokens=9)]
    assert differences({"a": 7, "b": 8}, records) == [-2, 1]
    assert (total([-2, 1]), largest([-2, 1])) == (3, 2)


def test_a_request_without_a_record_has_no_difference() -> None:
    assert differences({"a": 7}, []) == []
    assert (total([]), largest([])) == (0, 0)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (range(1, 101), 99, 99),
        (range(1, 101), 50, 50),
        ([3.0], 99, 3.0),
        ([], 99, 0.0),
        ([2.0, 1.0], 99, 2.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == expected
