"""What people ask of the audit log: typed filters and text, decided in Postgres; pages by position; counts.

    AuditFilter ──> conditions on columns of audit_log (projections/audit_log.py) ──> rows, newest first

Words (verbs, codes, outcomes) become lists of event types before they reach SQL. The surprising rule: a text is also
sought in what things are called now: "staging key" also finds the events of that key from before it got its name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import msgspec
from psycopg import sql
from psycopg.errors import QueryCanceled

from domain.message import Recorded
from projections.audit_log import Stored, recorded
from projections.audit_words import (
    ORCHESTRATOR,
    OUTCOMES,
    TARGETS,
    WORDS,
    Outcome,
    types_of_action,
    types_of_outcome,
    types_told_by,
)
from projections.projection import Connection
from projections.query import find_all

MAX_TEXT_CHARACTERS = 200
MAX_PAGE_ROWS = 1000
MAX_OFFSET_ROWS = 100_000
"""SPEC's /action_logs/search has offsets; who goes further asks /audit, whose pages cost the same wherever they are."""

SortBy = Literal["created_at", "action_type", "component", "status"]


class SearchTooBroadError(Exception):
    """Postgres was not done with a search in time; a narrower one may be."""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; an empty field does not restrict. Set `organization_id` for anyone but a platform admin.

    Attributes:
        actor_kind: user, key, worker or system.
        actor_id: what follows the kind in an envelope's actor.
        component: as component_of tells it.
        aggregates: any of these.
        since, until: of the event's time, the first included and the second not.
        text: sought in words, types, ids, and what things are called; upper and lower case are the same.
        told_actors: whole actors that the text also stands for, e.g. the user whose e-mail address it is.
    """

    organization_id: str = ""
    actor_kind: str = ""
    actor_id: str = ""
    aggregate: str = ""
    aggregate_id: str = ""
    aggregates: tuple[str, ...] = ()
    type: str = ""
    action: str = ""
    outcome: Outcome | None = None
    component: str = ""
    correlation: str = ""
    cause: str = ""
    event_id: str = ""
    origin: str = ""
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    told_actors: tuple[str, ...] = ()


_COLUMNS = ("organization_id", "aggregate", "aggregate_id", "type", "correlation", "cause", "event_id", "origin")
"""Fields of a filter that a column equals."""
_COMPONENT = f"""CASE WHEN actor LIKE 'user:%%' OR actor LIKE 'key:%%' THEN 'api'
    WHEN actor LIKE 'worker:%%' THEN 'worker' WHEN actor = 'system:{ORCHESTRATOR}' THEN 'orchestrator'
    ELSE coalesce(nullif(split_part(actor, ':', 2), ''), split_part(actor, ':', 1)) END"""
_TEXT = """(type = ANY(%(told_types)s) OR aggregate = ANY(%(told_aggregates)s) OR actor = ANY(%(told_actors)s)
    OR type ILIKE %(like)s OR aggregate_id ILIKE %(like)s OR actor ILIKE %(like)s OR event_id ILIKE %(like)s
    OR correlation ILIKE %(like)s
    OR subject IN (SELECT subject FROM audit_heads WHERE label <> '' AND label ILIKE %(like)s {tenant}))"""
_BY_ACTION = sorted(WORDS, key=lambda name: (WORDS[name].action, name))
_BY_OUTCOME = [name for outcome in sorted(OUTCOMES) for name in types_of_outcome(outcome)]
_SORTED: Mapping[SortBy, str] = {
    "created_at": "position",
    "action_type": "array_position(%(order)s::text[], type)",
    "component": _COMPONENT,
    "status": "array_position(%(order)s::text[], type)",
}


class Labelled(msgspec.Struct, frozen=True):
    subject: str
    label: str


class TypeCount(msgspec.Struct, frozen=True):
    type: str
    rows: int


async def list_newest(
    connection: Connection, wanted: AuditFilter, *, before: int | None = None, after: int = 0, limit: int
) -> list[Recorded]:
    """The last rows before a position (None: the end) and after another, newest first.

    Raises:
        SearchTooBroadError: see the class.
    """
    return await _list(connection, wanted, "DESC", before, after, limit)


async def list_next(
    connection: Connection, wanted: AuditFilter, *, after: int, before: int | None = None, limit: int
) -> list[Recorded]:
    """The first rows after a position and before another, oldest first.

    Raises:
        SearchTooBroadError: see the class.
    """
    return await _list(connection, wanted, "ASC", before, after, limit)


async def list_sorted(
    connection: Connection, wanted: AuditFilter, *, sort_by: SortBy, descending: bool, limit: int, offset: int
) -> list[Recorded]:
    """A page by offset, in another order than the log's; rows that are equal in it, newest first.

    Raises:
        SearchTooBroadError: see the class.
    """
    conditions, parameters = _conditions(wanted)
    query = sql.SQL(
        "SELECT position, subject, payload FROM audit_log WHERE {where} "
        "ORDER BY {order} {direction} NULLS LAST, position DESC LIMIT %(rows)s OFFSET %(offset)s"
    ).format(where=conditions, order=sql.SQL(_SORTED[sort_by]), direction=sql.SQL("DESC" if descending else "ASC"))
    parameters |= {
        "order": _BY_ACTION if sort_by == "action_type" else _BY_OUTCOME,
        "rows": min(limit, MAX_PAGE_ROWS),
        "offset": min(offset, MAX_OFFSET_ROWS),
    }
    with _in_time():
        return [recorded(row) for row in await find_all(connection, Stored, query, parameters)]


async def count_by_type(connection: Connection, wanted: AuditFilter) -> dict[str, int]:
    """Rows of each event type.

    Raises:
        SearchTooBroadError: see the class.
    """
    conditions, parameters = _conditions(wanted)
    query = sql.SQL("SELECT type, count(*) AS rows FROM audit_log WHERE {where} GROUP BY type").format(where=conditions)
    with _in_time():
        return {found.type: found.rows for found in await find_all(connection, TypeCount, query, parameters)}


async def find_labels(connection: Connection, subjects: Sequence[str]) -> dict[str, str]:
    """What the aggregates on these subjects are called now; those without a name are missing."""
    query = "SELECT subject, label FROM audit_heads WHERE subject = ANY(%s) AND label <> ''"
    return {found.subject: found.label for found in await find_all(connection, Labelled, query, (list(subjects),))}


async def find_first_events(connection: Connection, aggregate: str, ids: Sequence[str]) -> list[Recorded]:
    """The event that each of these aggregates began with; of every organisation."""
    query = """
        SELECT position, subject, payload FROM audit_log
        WHERE aggregate = %s AND aggregate_id = ANY(%s) AND version = 1 ORDER BY position
    """
    return [recorded(row) for row in await find_all(connection, Stored, query, (aggregate, list(ids)))]


async def list_histories(connection: Connection, ends: Sequence[Recorded]) -> list[Recorded]:
    """All events of the aggregates of `ends` (one event each) up to these, oldest first.

    They are as many as the versions of `ends` together: whoever asks bounds that.
    """
    query = """
        SELECT log.position, log.subject, log.payload
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
            AS wanted (organization_id, aggregate, aggregate_id, until)
        JOIN audit_log AS log ON log.aggregate = wanted.aggregate AND log.aggregate_id = wanted.aggregate_id
            AND log.organization_id = wanted.organization_id AND log.position <= wanted.until
        ORDER BY log.position
    """
    envelopes = [end.envelope for end in ends]
    parameters = (
        [envelope.organization for envelope in envelopes],
        [envelope.aggregate for envelope in envelopes],
        [envelope.id for envelope in envelopes],
        [end.position for end in ends],
    )
    return [recorded(row) for row in await find_all(connection, Stored, query, parameters)]


async def find_events(connection: Connection, organization_id: str, event_ids: Sequence[str]) -> dict[str, Recorded]:
    """By their ids, those that this organisation ("": any) has."""
    query = """
        SELECT position, subject, payload FROM audit_log
        WHERE event_id = ANY(%s) AND (%s = '' OR organization_id = %s)
    """
    parameters = (list(event_ids), organization_id, organization_id)
    found = [recorded(row) for row in await find_all(connection, Stored, query, parameters)]
    return {one.envelope.event_id: one for one in found}


async def _list(
    connection: Connection,
    wanted: AuditFilter,
    direction: Literal["ASC", "DESC"],
    before: int | None,
    after: int,
    limit: int,
) -> list[Recorded]:
    conditions, parameters = _conditions(wanted)
    query = sql.SQL(
        "SELECT position, subject, payload FROM audit_log WHERE position > %(after)s "
        "AND (%(before)s::bigint IS NULL OR position < %(before)s) AND {where} "
        "ORDER BY position {direction} LIMIT %(rows)s"
    ).format(where=conditions, direction=sql.SQL(direction))
    parameters |= {"after": after, "before": before, "rows": min(limit, MAX_PAGE_ROWS)}
    with _in_time():
        return [recorded(row) for row in await find_all(connection, Stored, query, parameters)]


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except QueryCanceled as error:
        raise SearchTooBroadError("the search took too long") from error


def _conditions(wanted: AuditFilter) -> tuple[sql.Composed, dict[str, Any]]:
    """What a row must fulfil, and the parameters of that."""
    given = {column: value for column in _COLUMNS if (value := getattr(wanted, column))}
    conditions: list[sql.Composable] = [sql.SQL(f"{column} = %({column})s") for column in given]  # of _COLUMNS
    parameters: dict[str, Any] = dict(given)
    if wanted.correlation:
        conditions.append(sql.SQL("hashtextextended(correlation, 0) = hashtextextended(%(correlation)s, 0)"))
    for condition, values in (*_about_actor(wanted), *_about_type(wanted), *_about_time(wanted), *_about_text(wanted)):
        conditions.append(sql.SQL(condition))
        parameters |= values
    return sql.SQL(" AND ").join([sql.SQL("true"), *conditions]), parameters


_Condition = tuple[str, Mapping[str, Any]]


def _about_actor(wanted: AuditFilter) -> Iterator[_Condition]:
    if wanted.actor_kind:
        yield "split_part(actor, ':', 1) = %(actor_kind)s", {"actor_kind": wanted.actor_kind}
    if wanted.actor_id:
        yield "split_part(actor, ':', 2) = %(actor_id)s", {"actor_id": wanted.actor_id}
    if wanted.component:
        yield f"{_COMPONENT} = %(component)s", {"component": wanted.component}


def _about_type(wanted: AuditFilter) -> Iterator[_Condition]:
    if wanted.aggregates:
        yield "aggregate = ANY(%(aggregates)s)", {"aggregates": list(wanted.aggregates)}
    if wanted.action:
        yield "type = ANY(%(action_types)s)", {"action_types": types_of_action(wanted.action)}
    if wanted.outcome == "success":  # of a type that this release does not know, nothing says that it failed
        others = [name for outcome in OUTCOMES if outcome != "success" for name in types_of_outcome(outcome)]
        yield "type <> ALL(%(outcome_types)s)", {"outcome_types": others}
    elif wanted.outcome is not None:
        yield "type = ANY(%(outcome_types)s)", {"outcome_types": types_of_outcome(wanted.outcome)}


def _about_time(wanted: AuditFilter) -> Iterator[_Condition]:
    if wanted.since is not None:
        yield "at >= %(since)s", {"since": wanted.since}
    if wanted.until is not None:
        yield "at < %(until)s", {"until": wanted.until}


def _about_text(wanted: AuditFilter) -> Iterator[_Condition]:
    text = wanted.text[:MAX_TEXT_CHARACTERS]
    if not text:
        return
    tenant = "AND organization_id = %(organization_id)s" if wanted.organization_id else ""
    folded = text.casefold()
    yield (
        _TEXT.format(tenant=tenant),
        {
            "told_types": types_told_by(text),
            "told_aggregates": [word for word, kind in TARGETS.items() if folded in kind.casefold() or folded in word],
            "told_actors": list(wanted.told_actors),
            "like": like_pattern(text),
        },
    )


def like_pattern(text: str) -> str:
    """Anything that contains the text; its own wildcards are letters like others."""
    for special in "\\%_":
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"
