"""Usage: each request counts once, whoever sends it how often; totals are sums of exactly those rows."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from domain.usage import UsageRecord
from projections.projection import UsageEntry
from projections.usage import (
    USAGE,
    Spend,
    find_instance_usage,
    find_last_uses,
    find_spend,
    list_kept,
    list_requests,
    list_usage,
)
from tests.given import NOON
from tests.projections.examples import usage_record
from tests.projections.grammar import projected


def _entries(*records: UsageRecord) -> list[UsageEntry]:
    return [UsageEntry(position, record) for position, record in enumerate(records, start=1)]


def _at(seconds: int, request_id: str, **changes: Any) -> UsageRecord:
    return usage_record(request_id, at=NOON + timedelta(seconds=seconds), **changes)


async def test_totals_add_up_requests_tokens_and_failures(postgres_url: str) -> None:
    entries = _entries(_at(5, "a"), _at(1, "b", outcome="upstream_failed"), _at(9, "c", outcome="client_left"))
    async with projected(postgres_url, USAGE, entries, batches=[1]) as connection:
        totals = await find_instance_usage(connection, "org-1", "instance-1")
    assert (totals.total_requests, totals.successful_requests, totals.failed_requests) == (3, 2, 1)
    assert (totals.prompt_tokens, totals.completion_tokens, totals.cached_tokens) == (30, 60, 12)
    assert totals.total_tokens == 90
    assert (totals.first_request_at, totals.last_request_at) == (
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=9),
    )


async def test_a_request_counts_once_within_a_batch_and_across_batches(postgres_url: str) -> None:
    entries = _entries(_at(1, "a"), _at(1, "a"), _at(2, "b"), _at(1, "a"))
    async with projected(postgres_url, USAGE, entries, batches=[2]) as connection:
        totals = await find_instance_usage(connection, "org-1", "instance-1")
        rows = await list_requests(connection, "org-1")
    assert totals.total_requests == 2
    assert [(row.request_id, row.position) for row in rows] == [("b", 3), ("a", 1)]


OFFERED = {
    "provider_organization_id": "org-2",
    "offering_id": "offering-1",
    "share_id": "share-1",
    "input_eur_micros_per_million": 200_000,
    "output_eur_micros_per_million": 600_000,
}


async def test_whose_offering_was_called_and_at_which_price_is_kept_and_given_back(postgres_url: str) -> None:
    entries = _entries(_at(1, "own"), _at(2, "offered", **OFFERED))
    async with projected(postgres_url, USAGE, entries) as connection:
        assert await list_kept(connection, after=0, limit=10) == entries
        rows = {row.request_id: row for row in await list_requests(connection, "org-1")}
        assert await list_requests(connection, "org-2") == []
    assert {name: getattr(rows["offered"], name) for name in OFFERED} == OFFERED
    assert (rows["own"].offering_id, rows["own"].input_eur_micros_per_million) == ("", 0)


def test_a_record_from_before_offerings_is_still_read() -> None:
    fields = msgspec.json.decode(msgspec.json.encode(usage_record()))
    old = {name: value for name, value in fields.items() if name not in OFFERED}
    assert msgspec.convert(old, UsageRecord) == usage_record()


NEWER = {"queue_ms", "inter_token_ms", "attempts", "input_audio_seconds", "output_images"}


def test_a_record_of_schema_2_is_still_read() -> None:
    fields = msgspec.json.decode(msgspec.json.encode(usage_record()))
    old = {name: value for name, value in fields.items() if name not in NEWER} | {"schema": 2}
    assert msgspec.convert(old, UsageRecord) == usage_record(schema=2)


async def test_what_a_request_was_measured_by_is_kept_and_given_back(postgres_url: str) -> None:
    measured = {
        "queue_ms": 12.5,
        "inter_token_ms": 20.25,
        "attempts": 2,
        "input_audio_seconds": 3.5,
        "output_images": 4,
    }
    entries = _entries(_at(1, "a", **measured))
    async with projected(postgres_url, USAGE, entries) as connection:
        assert await list_kept(connection, after=0, limit=10) == entries
        row = (await list_requests(connection, "org-1"))[0]
    assert {name: getattr(row, name) for name in NEWER} == measured


async def test_a_request_whose_gateway_died_has_failed(postgres_url: str) -> None:
    async with projected(postgres_url, USAGE, _entries(_at(1, "a", outcome="gateway_died"))) as connection:
        totals = await find_instance_usage(connection, "org-1", "instance-1")
    assert (totals.total_requests, totals.failed_requests, totals.completion_tokens) == (1, 1, 20)


NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)
PRICED = {"input_eur_micros_per_million": 150_000, "output_eur_micros_per_million": 1}
"""A request of 10 tokens in and 20 out costs 1.50002 EUR millionths, which is 2 to the nearest."""


async def test_spending_is_the_sum_of_what_each_request_cost(postgres_url: str) -> None:
    entries = _entries(
        _at(1, "a", **PRICED),
        _at(2, "b", instance_id="i-2", **PRICED),
        _at(2, "b", instance_id="i-2", **PRICED),
        _at(3, "c", api_key_id="key-2", **PRICED),
        _at(4, "free", api_key_id="key-3"),
    )
    async with projected(postgres_url, USAGE, entries, batches=[1]) as connection:
        spend = await find_spend(connection, month=NOVEMBER)
        by_key = {row.of: row.spent_eur_micros for row in await list_usage(connection, "org-1", by="api_key_id")}
    assert spend == Spend(keys={"key-1": 4, "key-2": 2}, organizations={"org-1": 6})
    assert by_key == {"key-1": 4, "key-2": 2, "key-3": 0}


async def test_an_organisations_spending_begins_anew_each_month_and_a_keys_does_not(postgres_url: str) -> None:
    last, first = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    entries = _entries(usage_record("a", at=last, **PRICED), usage_record("b", at=first, **PRICED))
    async with projected(postgres_url, USAGE, entries) as connection:
        november = await find_spend(connection, month=NOVEMBER)
        december = await find_spend(connection, month=DECEMBER)
    assert (november.organizations, december.organizations) == ({"org-1": 2}, {"org-1": 2})
    assert november.keys == december.keys == {"key-1": 4}


async def test_usage_is_grouped_by_what_is_asked(postgres_url: str) -> None:
    entries = _entries(
        _at(1, "a", api_key_id="key-1", instance_id="i-1"),
        _at(2, "b", api_key_id="key-2", instance_id="i-1"),
        _at(3, "c", api_key_id="key-2", instance_id="i-2", model_code="other"),
    )
    async with projected(postgres_url, USAGE, entries) as connection:
        by_key = {row.of: row.total_requests for row in await list_usage(connection, "org-1", by="api_key_id")}
        by_model = {row.of: row.total_tokens for row in await list_usage(connection, "org-1", by="model_code")}
        by_instance = {row.of: row.total_requests for row in await list_usage(connection, "org-1", by="instance_id")}
    assert by_key == {"key-1": 1, "key-2": 2}
    assert by_model == {"mock-echo-model": 60, "other": 30}
    assert by_instance == {"i-1": 2, "i-2": 1}


async def test_a_key_was_last_used_by_its_latest_request(postgres_url: str) -> None:
    entries = _entries(_at(7, "a"), _at(3, "b", instance_id="i-2"))
    async with projected(postgres_url, USAGE, entries) as connection:
        assert await find_last_uses(connection, ["key-1", "key-2"]) == {"key-1": NOON + timedelta(seconds=7)}


async def test_an_instance_that_was_not_used_has_zeros(postgres_url: str) -> None:
    async with projected(postgres_url, USAGE, []) as connection:
        totals = await find_instance_usage(connection, "org-1", "instance-1")
    assert (totals.total_requests, totals.total_tokens, totals.first_request_at) == (0, 0, None)


async def test_a_neighbour_sees_no_usage(postgres_url: str) -> None:
    async with projected(postgres_url, USAGE, _entries(_at(1, "a"))) as connection:
        assert await list_usage(connection, "org-2", by="model_code") == []
        assert await list_requests(connection, "org-2") == []
        assert (await find_instance_usage(connection, "org-2", "instance-1")).total_requests == 0
