"""What keys and organisations have spent: every record once, whether ours, another gateway's, or there before."""

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

import gateway.spend as module
from domain.usage import UsageRecord, cost_eur_micros
from gateway.spend import SpendBook, Spending, month_of
from tests.gateway.records import record as usage_record

NOVEMBER, DECEMBER = "2026-11", "2026-12"


def record(request_id: str, tokens: int, *, month: str = NOVEMBER, **changes: Any) -> UsageRecord:
    """Of one EUR millionth a token."""
    facts: dict[str, Any] = {
        "request_id": request_id,
        "organization_id": "acme",
        "api_key_id": "k1",
        "at": datetime.fromisoformat(f"{month}-15T12:00:00+00:00"),
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "input_eur_micros_per_million": 1_000_000,
        "output_eur_micros_per_million": 1_000_000,
    }
    return usage_record(**{**facts, **changes})


def spending(eur_micros: int, month: str = NOVEMBER) -> Spending:
    return Spending("k1", "acme", month, eur_micros)


def test_cost_is_rounded_for_each_request() -> None:
    half = record("r", 1, input_eur_micros_per_million=500_000)
    assert [cost_eur_micros(replace(half, prompt_tokens=n)) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    both = record("r", 10, completion_tokens=5, output_eur_micros_per_million=3_000_000)
    assert cost_eur_micros(both) == 25


def test_every_record_counts_once() -> None:
    book = SpendBook()
    for position, tokens in ((1, 10), (2, 5), (2, 5), (1, 10), (4, 1)):
        book.seen(position, record(f"r{position}", tokens))
    assert (book.position, book.by_key("k1"), book.by_organization("acme", NOVEMBER)) == (4, 16, 16)
    assert book.by_key("k2") == 0


def test_our_own_record_takes_the_place_of_what_we_knew() -> None:
    book = SpendBook()
    book.reserve(spending(100))
    assert book.by_key("k1") == 100
    book.settle("r1", spending(100), 40)
    assert book.by_key("k1") == 40
    book.seen(1, record("r1", 42))
    assert (book.by_key("k1"), book.by_organization("acme", NOVEMBER)) == (42, 42)


def test_a_request_that_cost_nothing_waits_for_no_record() -> None:
    book = SpendBook()
    book.reserve(spending(100))
    book.settle("r1", spending(100), 0)
    assert book.by_key("k1") == 0
    book.seen(1, record("r2", 7))
    assert book.by_key("k1") == 7


def test_a_new_month_begins_with_nothing_for_organisations_alone() -> None:
    book = SpendBook()
    book.seen(1, record("r1", 10))
    book.seen(2, record("r2", 5, month=DECEMBER))
    book.seen(3, record("r3", 1, month=NOVEMBER))  # late
    assert (book.by_organization("acme", DECEMBER), book.by_organization("acme", NOVEMBER)) == (5, 0)
    assert book.by_key("k1") == 16


def test_a_snapshot_goes_on_where_it_was_taken() -> None:
    book = SpendBook()
    book.seen(1, record("r1", 10))
    book.reserve(spending(100))
    book.settle("r2", spending(100), 40)
    snapshot, again = book.snapshot(), SpendBook()
    again.start_from(snapshot)
    assert (again.position, again.by_key("k1")) == (1, 10), "what was under way comes with its record"
    for one in (book, again):
        one.seen(2, record("r2", 40))
        assert (one.by_key("k1"), one.by_organization("acme", NOVEMBER)) == (50, 50)


def test_a_start_leaves_what_runs_here_as_it_is() -> None:
    book, other = SpendBook(), SpendBook()
    other.seen(5, record("r0", 1000))
    book.reserve(spending(100))
    book.start_from(other.snapshot())
    assert book.by_key("k1") == 1100
    book.settle("r1", spending(100), 10)
    book.seen(6, record("r1", 10))
    assert book.by_key("k1") == 1010


def test_a_long_outage_forgets_the_oldest_rather_than_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNCONFIRMED", 2)
    book = SpendBook()
    for name in ("r1", "r2", "r3"):
        book.reserve(spending(10))
        book.settle(name, spending(10), 10)
    assert book.by_key("k1") == 20
    for position, name in enumerate(("r1", "r2", "r3"), start=1):
        book.seen(position, record(name, 10))
    assert book.by_key("k1") == 30


def test_the_month_is_utcs() -> None:
    assert month_of(datetime.fromisoformat("2026-12-01T00:30:00+01:00")) == NOVEMBER
