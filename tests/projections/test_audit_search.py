"""Searching the audit log: each filter, alone and with others, finds what looking at every row would find."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.deployment import DeploymentRequested
from domain.message import Recorded, subject_of
from domain.model import ModelListed
from domain.organization import MemberAdded, OrganizationCreated
from projections.audit_log import AUDIT_LOG
from projections.audit_search import (
    AuditFilter,
    SearchTooBroadError,
    SortBy,
    count_by_type,
    find_events,
    find_first_events,
    find_labels,
    like_pattern,
    list_histories,
    list_newest,
    list_next,
    list_sorted,
)
from projections.audit_words import OUTCOMES, TARGETS, WORDS, component_of, words_for
from projections.projection import Connection, Entry
from tests.examples import example
from tests.given import NOON
from tests.projections.grammar import Story, projected

ORGANIZATIONS = ("acme", "globex")
ACTORS = ("user:alice", "user:bob", "key:k-1", "worker:w-1", "system:handlers", "system:bootstrap")
ORIGINS = ("", "session:s-1", "key:k-1")
EVENT_TYPES = (ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked, DeploymentRequested, ModelListed, MemberAdded)
TEXTS = ("alice", "ALI", "100%", "k_1", "k-1", "API key", "issued", "intent-", "model", "\\", "ci", "0001", "nothing")
MANY = 1000

_happenings = st.tuples(
    st.sampled_from(ORGANIZATIONS),
    st.sampled_from(["k-1", "k_1", "100%", "two"]),
    st.sampled_from(EVENT_TYPES),
    st.sampled_from(ACTORS),
    st.sampled_from(ORIGINS),
    st.integers(0, 3),
)


def _story(happenings: Sequence[tuple[Any, ...]]) -> Story:
    """Events of which some are caused by an earlier one."""
    story = Story()
    for organization, aggregate_id, event_type, actor, origin, back in happenings:
        cause = story.entries[-back].envelope.event_id if 0 < back <= len(story.entries) else None
        story.happened(organization, aggregate_id, example(event_type), actor=actor, origin=origin, cause=cause)
    return story


_filters: st.SearchStrategy[AuditFilter] = st.builds(
    AuditFilter,
    organization_id=st.sampled_from(["", *ORGANIZATIONS]),
    actor_kind=st.sampled_from(["", "", "user", "key", "worker", "system"]),
    actor_id=st.sampled_from(["", "", "alice", "k-1"]),
    aggregate=st.sampled_from(["", "", "api_key", "organization"]),
    aggregate_id=st.sampled_from(["", "", "k-1", "100%"]),
    aggregates=st.sampled_from([(), (), ("model", "deployment")]),
    type=st.sampled_from(["", "", "ApiKeyIssued"]),
    action=st.sampled_from(["", "", "API_KEY_ISSUED", "ORG_MEMBER_ADDED"]),
    outcome=st.sampled_from([None, None, *OUTCOMES]),
    component=st.sampled_from(["", "", "api", "orchestrator", "worker", "bootstrap"]),
    correlation=st.sampled_from(["", "", "intent-k-1"]),
    cause=st.sampled_from(["", "", "0192aaaa-0000-7000-8000-000000000001"]),
    event_id=st.sampled_from(["", "", "", "0192aaaa-0000-7000-8000-000000000002"]),
    origin=st.sampled_from(["", "", "session:s-1"]),
    since=st.sampled_from([None, None, NOON + timedelta(seconds=2)]),
    until=st.sampled_from([None, None, NOON + timedelta(seconds=6)]),
    text=st.sampled_from(["", "", "", *TEXTS]),
    told_actors=st.sampled_from([(), ("user:bob",)]),
)


def _naively(entries: Sequence[Entry], wanted: AuditFilter) -> list[int]:
    """The positions that a person with a pencil would tick."""
    labels = {entry.subject: label for entry in entries if (label := _label(entry))}
    return [entry.position for entry in entries if _fits(entry, wanted, labels.get(entry.subject, ""))]


def _label(entry: Entry) -> str:
    return (
        getattr(entry.event, "name", "") or getattr(entry.event, "code", "") or getattr(entry.event, "model_code", "")
    )


def _fits(entry: Entry, wanted: AuditFilter, label: str) -> bool:
    envelope = entry.envelope
    kind, _, actor_id = envelope.actor.partition(":")
    words = words_for(envelope.type)
    equal = {
        "organization_id": envelope.organization,
        "actor_kind": kind,
        "actor_id": actor_id,
        "aggregate": envelope.aggregate,
        "aggregate_id": envelope.id,
        "type": envelope.type,
        "action": words.action,
        "outcome": words.outcome,
        "component": component_of(envelope.actor),
        "correlation": envelope.correlation,
        "cause": envelope.cause,
        "event_id": envelope.event_id,
        "origin": envelope.origin,
    }
    asked = asdict(wanted)
    return (
        all(not asked[field] or asked[field] == value for field, value in equal.items())
        and (not wanted.aggregates or envelope.aggregate in wanted.aggregates)
        and (wanted.since is None or envelope.at >= wanted.since)
        and (wanted.until is None or envelope.at < wanted.until)
        and (not wanted.text or _is_told(entry, wanted, label))
    )


def _is_told(entry: Entry, wanted: AuditFilter, label: str) -> bool:
    envelope, words = entry.envelope, WORDS[entry.envelope.type]
    told = (
        *(envelope.type, envelope.aggregate, envelope.id, envelope.actor, envelope.event_id, envelope.correlation),
        *(words.verb, words.action, words.category, TARGETS[envelope.aggregate], label),
    )
    return envelope.actor in wanted.told_actors or any(wanted.text.lower() in one.lower() for one in told)


def _positions(found: Sequence[Recorded]) -> list[int]:
    return [recorded.position for recorded in found]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happenings=st.lists(_happenings, min_size=1, max_size=25), wanted=st.lists(_filters, min_size=10, max_size=10))
async def test_a_filter_finds_what_looking_at_every_row_finds(
    postgres_url: str, happenings: list[tuple[Any, ...]], wanted: list[AuditFilter]
) -> None:
    story = _story(happenings)
    async with projected(postgres_url, AUDIT_LOG, story.of(AUDIT_LOG)) as connection:
        for one in wanted:
            expected = _naively(story.entries, one)
            assert _positions(await list_next(connection, one, after=0, limit=MANY)) == expected, one
            assert _positions(await list_newest(connection, one, limit=MANY)) == expected[::-1], one
            counts = await count_by_type(connection, one)
            assert sum(counts.values()) == len(expected), one


FIELDS: list[dict[str, Any]] = [
    {"organization_id": "globex"},
    {"actor_kind": "key"},
    {"actor_id": "bob"},
    {"aggregate": "model"},
    {"aggregate_id": "k-2"},
    {"aggregates": ("model", "organization")},
    {"type": "ApiKeyRenamed"},
    {"action": "API_KEY_REVOKED"},
    {"outcome": "in_progress"},
    {"component": "orchestrator"},
    {"correlation": "intent-k-2"},
    {"cause": "0192aaaa-0000-7000-8000-000000000001"},
    {"event_id": "0192aaaa-0000-7000-8000-000000000003"},
    {"origin": "session:s-1"},
    {"since": NOON + timedelta(seconds=4)},
    {"until": NOON + timedelta(seconds=2)},
    {"text": "staging"},
]


def _life() -> Story:
    story = Story().happened("acme", "k-1", replace(example(ApiKeyIssued), name="first"), origin="session:s-1")
    begun = story.entries[0].envelope.event_id
    story.happened("acme", "k-1", ApiKeyRenamed(name="Staging 100%"), actor="user:bob")
    story.happened("globex", "k-2", example(ApiKeyIssued), actor="key:k-9", cause=begun)
    story.happened("acme", "k-1", ApiKeyRevoked(), actor="system:handlers", cause=begun)
    story.happened("_", "m-1", example(ModelListed), actor="system:bootstrap")
    story.happened("acme", "d-1", example(DeploymentRequested))
    return story.happened("acme", "acme", OrganizationCreated(name="Acme", slug="acme"))


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: next(iter(fields)))
async def test_each_filter_restricts(postgres_url: str, fields: dict[str, Any]) -> None:
    story, wanted = _life(), AuditFilter(**fields)
    async with projected(postgres_url, AUDIT_LOG, story.of(AUDIT_LOG)) as connection:
        found = _positions(await list_next(connection, wanted, after=0, limit=MANY))
    assert found == _naively(story.entries, wanted)
    assert 0 < len(found) < len(story.entries)


def test_no_filter_is_left_without_a_specification() -> None:
    assert {name for fields in FIELDS for name in fields} == set(AuditFilter.__struct_fields__) - {"told_actors"}


async def test_a_text_finds_what_has_that_name_now(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_LOG, _life().of(AUDIT_LOG)) as connection:
        staging = await list_next(connection, AuditFilter(text="staging 100%"), after=0, limit=MANY)
        first = await list_next(connection, AuditFilter(text="first"), after=0, limit=MANY)
        neighbour = await list_next(connection, AuditFilter(text="staging", organization_id="globex"), after=0, limit=9)
        labels = await find_labels(connection, [subject_of("acme", "api_key", "k-1"), "evt.acme.api_key.none"])
    assert _positions(staging) == [1, 2, 4]
    assert (first, neighbour) == ([], [])
    assert labels == {"evt.acme.api_key.k-1": "Staging 100%"}


@pytest.mark.parametrize(("text", "pattern"), [("100%", r"%100\%%"), ("a_b", r"%a\_b%"), ("\\", "%\\\\%")])
def test_wildcards_in_a_text_are_letters(text: str, pattern: str) -> None:
    assert like_pattern(text) == pattern


async def test_pages_are_complete_without_doubles_while_rows_arrive(postgres_url: str) -> None:
    """Older pages stay as they are; what has come since is asked for by position, and is there once."""
    story, wanted = _life(), AuditFilter(organization_id="acme")
    entries = story.of(AUDIT_LOG)
    arrived = 0
    seen: list[int] = []
    async with projected(postgres_url, AUDIT_LOG, entries) as connection:
        before: int | None = None
        while page := await list_newest(connection, wanted, before=before, limit=2):
            seen += _positions(page)
            before = page[-1].position
            arrived += 1
            await _arrive(connection, story, arrived)
        newest = max(seen)
        while page := await list_next(connection, wanted, after=newest, limit=2):
            seen += _positions(page)
            newest = page[-1].position
    assert arrived == 3
    assert sorted(seen) == _naively(story.entries, wanted)


async def _arrive(connection: Connection, story: Story, number: int) -> None:
    story.happened("acme", f"k-new-{number}", example(ApiKeyIssued))
    await AUDIT_LOG.apply(story.of(AUDIT_LOG)[-1:], connection)


@pytest.mark.parametrize("sort_by", ["created_at", "action_type", "component", "status"])
@pytest.mark.parametrize("descending", [False, True])
async def test_rows_can_be_sorted(postgres_url: str, sort_by: SortBy, descending: bool) -> None:
    story = _life()
    keys: dict[str, Callable[[Any], Any]] = {
        "created_at": lambda e: e.position,
        "action_type": lambda e: words_for(e.type).action,
        "component": lambda e: component_of(e.actor),
        "status": lambda e: words_for(e.type).outcome,
    }
    async with projected(postgres_url, AUDIT_LOG, story.of(AUDIT_LOG)) as connection:
        ask: dict[str, Any] = {"sort_by": sort_by, "descending": descending}
        found = await list_sorted(connection, AuditFilter(), limit=MANY, offset=0, **ask)
        page = await list_sorted(connection, AuditFilter(), limit=2, offset=3, **ask)
    values = [keys[sort_by](one if sort_by == "created_at" else one.envelope) for one in found]
    assert values == sorted(values, reverse=descending)
    assert len(values) == len(story.entries)
    assert page == found[3:5]


async def test_a_search_that_takes_too_long_says_so(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_LOG, _life().of(AUDIT_LOG)) as connection:
        await connection.execute("ALTER TABLE audit_log RENAME TO audit_log_rows")
        await connection.execute("CREATE VIEW audit_log AS SELECT r.* FROM audit_log_rows AS r, pg_sleep(10)")
        await connection.execute("SET LOCAL statement_timeout = '50ms'")
        with pytest.raises(SearchTooBroadError):
            await list_newest(connection, AuditFilter(), limit=1)


async def test_histories_come_up_to_their_ends_and_from_one_organisation(postgres_url: str) -> None:
    story = _life()
    async with projected(postgres_url, AUDIT_LOG, story.of(AUDIT_LOG)) as connection:
        rows = await list_next(connection, AuditFilter(), after=0, limit=MANY)
        found = await list_histories(connection, [rows[1], rows[2]])
    assert _positions(found) == [1, 2, 3]


async def test_events_are_found_by_id_where_they_may_be_seen(postgres_url: str) -> None:
    story = _life()
    ids = [entry.envelope.event_id for entry in story.entries[:3]]
    async with projected(postgres_url, AUDIT_LOG, story.of(AUDIT_LOG)) as connection:
        own = await find_events(connection, "acme", ids)
        all_of_them = await find_events(connection, "", ids)
        first = await find_first_events(connection, "api_key", ["k-1", "k-2", "none"])
    assert sorted(one.position for one in own.values()) == [1, 2]
    assert sorted(all_of_them) == sorted(ids)
    assert _positions(first) == [1, 3]
