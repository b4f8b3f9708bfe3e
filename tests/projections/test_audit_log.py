"""The audit log: every envelope, bytes and all, and a reader that holds the log to its word."""

import msgspec
import pytest
from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.model import ModelListed
from projections.audit_log import AUDIT_LOG, EventFilter, list_events, list_events_before
from projections.projection import Entry, LogDamagedError
from tests.examples import example
from tests.projections.grammar import Story, projected


def _story() -> Story:
    story = Story().happened("acme", "k-1", example(ApiKeyIssued), ApiKeyRenamed(name="two"))
    story.happened("globex", "k-2", example(ApiKeyIssued)).happened("_", "m-1", example(ModelListed))
    return story.happened("acme", "k-1", ApiKeyRevoked())


def _entries() -> list[Entry]:
    return _story().of(AUDIT_LOG)


async def test_every_envelope_comes_back_byte_for_byte(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_LOG, _entries()) as connection:
        found = await list_events(connection, EventFilter())
    expected = [(e.position, e.subject, e.payload, e.envelope) for e in _entries()]
    assert [(r.position, r.subject, r.payload, r.envelope) for r in found] == expected


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        (EventFilter(organization_id="acme"), [1, 2, 5]),
        (EventFilter(aggregate="api_key", aggregate_id="k-2"), [3]),
        (EventFilter(type="ApiKeyIssued"), [1, 3]),
        (EventFilter(correlation="intent-m-1"), [4]),
        (EventFilter(organization_id="acme", type="ApiKeyIssued"), [1]),
        (EventFilter(organization_id="initech"), []),
    ],
)
async def test_a_filter_restricts(postgres_url: str, wanted: EventFilter, positions: list[int]) -> None:
    async with projected(postgres_url, AUDIT_LOG, _entries()) as connection:
        forward = await list_events(connection, wanted)
        backward = await list_events_before(connection, wanted)
    assert [event.position for event in forward] == positions
    assert backward == forward


async def test_a_neighbour_sees_none_of_anothers_events(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_LOG, _entries()) as connection:
        found = await list_events(connection, EventFilter(organization_id="globex", aggregate_id="k-1"))
    assert found == []


async def test_pages_go_on_from_the_last_position(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_LOG, _entries()) as connection:
        first = await list_events(connection, EventFilter(), limit=2)
        second = await list_events(connection, EventFilter(), after=first[-1].position, limit=2)
        last = await list_events_before(connection, EventFilter(), limit=2)
        last_but_one = await list_events_before(connection, EventFilter(), before=last[0].position, limit=2)
    assert [[e.position for e in page] for page in (first, second, last, last_but_one)] == [
        [1, 2],
        [3, 4],
        [4, 5],
        [2, 3],
    ]


async def test_a_missing_event_is_noticed(postgres_url: str) -> None:
    entries = [entry for entry in _entries() if entry.position != 2]
    with pytest.raises(LogDamagedError, match=r"position 5: evt\.acme\.api_key\.k-1 goes from version 1 to 3"):
        async with projected(postgres_url, AUDIT_LOG, entries):
            pass


@pytest.mark.parametrize("batches", [[], [1]], ids=["in one batch", "across batches"])
async def test_an_altered_event_is_noticed(postgres_url: str, batches: list[int]) -> None:
    entries = _entries()
    forged = replace(entries[0].envelope, actor="user:mallory")
    entries[0] = replace(entries[0], envelope=forged, payload=msgspec.json.encode(forged))
    with pytest.raises(LogDamagedError, match="position 2"):
        async with projected(postgres_url, AUDIT_LOG, entries, batches=batches):
            pass


async def test_an_event_type_of_tomorrow_is_kept(postgres_url: str) -> None:
    (entry,) = Story().happened("_", "m-1", example(ModelListed)).of(AUDIT_LOG)
    newer = replace(entry.envelope, type="ModelCelebrated")
    entry = replace(entry, envelope=newer, payload=msgspec.json.encode(newer))
    async with projected(postgres_url, AUDIT_LOG, [entry]) as connection:
        assert [event.envelope.type for event in await list_events(connection, EventFilter())] == ["ModelCelebrated"]
