"""The audit log for people: rows with words and names, one row in full, any target's state at any moment, exports.

A member whose role allows it sees its own organisation's rows, a platform administrator any. The proof that these rows
are as they were written stands in audit.py. The surprising rule: who takes rows out leaves a row: an export is recorded
in the log that it was taken from, before its first byte.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from msgspec.structs import replace

from domain.access import ACCESS, RecordExport, access_id_of
from domain.ids import PLATFORM
from domain.message import Recorded
from domain.permissions import is_allowed
from projections.audit_search import (
    AuditFilter,
    SearchTooBroadError,
    find_events,
    find_labels,
    list_histories,
    list_newest,
    list_next,
)
from projections.audit_words import words_for
from projections.projection import Connection
from web.audit_export import MEDIA_TYPES, Source, export_chunks
from web.audit_query import ExportQuery, PageQuery, Word, filter_of, organization_of, recordable, scope_for
from web.audit_rows import audit_rows, link
from web.audit_shapes import AuditPage, AuditRowInFull, StateShown
from web.auth import MAX_POSITION, Member, Position, Served, identify, member
from web.errors import ApiError, not_found
from web.hiding import hidden
from web.intent import Intended
from web.services import Services, UnreadableHistoryError

router = APIRouter(prefix="/audit", tags=["audit"])

Auditor = Annotated[Member, Depends(member("audit.view"))]

MAX_CAUSES = 20
MAX_EFFECTS = 100
MAX_STATE_EVENTS = 10_000
"""Folded for one state; about 100 ms."""


@router.get("")
async def audit_log(
    query: Annotated[PageQuery, Query()], auditor: Auditor, services: Served, position: Position
) -> AuditPage:
    """A page of rows, newest first."""
    organization_id = organization_of(auditor, everything=query.all, organization=query.organization)
    scope = scope_for(auditor, organization_id)
    wanted = await filter_of(query, organization_id, services)
    async with services.read("audit_log", position=position, scope=scope) as connection:
        found = await _page(connection, wanted, query)
    rows = await audit_rows(
        services, found[: query.limit], organization_id=organization_id, scope=scope, changes=query.changes
    )
    newest = found[0].position if found else query.after
    older = rows[-1].position if len(found) > query.limit or (rows and query.after) else None
    return AuditPage(rows=rows, older=older, newer=newest)


async def _page(connection: Connection, wanted: AuditFilter, query: PageQuery) -> list[Recorded]:
    """Newest first; from the end of the log one row more than asked for, where there is one."""
    try:
        if query.after:
            asked = {"after": query.after, "before": query.before, "limit": query.limit}
            return (await list_next(connection, wanted, **asked))[::-1]  # type: ignore[arg-type] # spelled above
        return await list_newest(connection, wanted, before=query.before, limit=query.limit + 1)
    except SearchTooBroadError as error:
        raise too_broad() from error


def too_broad() -> ApiError:
    message = "This search takes too long; narrow it by time, actor, target or type."
    return ApiError(400, "search_too_broad", message)


@router.get("/export", response_class=StreamingResponse)
async def export_audit_log(
    query: Annotated[ExportQuery, Query()], auditor: Auditor, services: Served, intent: Intended
) -> StreamingResponse:
    """Exactly the rows that the same filters show, oldest first, up to this export's own row; streamed.

    A connection that breaks off is an export that is not whole.
    """
    organization_id = organization_of(auditor, everything=query.all, organization=query.organization)
    scope = scope_for(auditor, organization_id)
    wanted = await filter_of(query, organization_id, services)
    async with services.read("audit_log", scope=scope) as connection:
        if not await list_next(connection, AuditFilter(organization_id=organization_id), after=0, limit=1):
            raise not_found("organization")
    home = organization_id or PLATFORM  # whose rows are taken sees that they were, also by an administrator
    position = await intent.send(
        ACCESS,
        home,
        access_id_of(home, auditor.caller.principal.id),
        RecordExport(format=query.format, filters=dict(recordable(query))),
        actor=auditor.caller.actor,
    )
    allowed = partial(_is_still_allowed, intent.request, auditor)
    source = Source(services, wanted, scope, until=position, still_allowed=allowed)
    chunks = export_chunks(source, query.format)
    try:
        first = await anext(chunks)  # what fails before it is answered like any other request
    except SearchTooBroadError as error:
        raise too_broad() from error
    headers = {"content-disposition": f'attachment; filename="audit-log-{position}.{query.format}"'}
    return StreamingResponse(_joined(first, chunks), media_type=MEDIA_TYPES[query.format], headers=headers)


async def _joined(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in others:
        yield chunk


async def _is_still_allowed(request: Request, auditor: Member) -> bool:
    """Asked anew: a session may end, and a role change, while a long export runs."""
    del request.state.caller
    try:
        caller = await identify(request)
    except ApiError:
        return False
    same = (caller.organization_id, caller.platform_role) == (auditor.organization_id, auditor.caller.platform_role)
    return same and caller.role is not None and is_allowed(caller.role, "audit.view")


@router.get("/state")
async def state_at(
    auditor: Auditor,
    services: Served,
    position: Position,
    aggregate: Word,
    id: Word,  # noqa: A002 - the parameter's name in the API
    at: Annotated[str, Query(max_length=40, description="A position or a time; without it, now.")] = "",
    organization: Word = "",
    all: bool = False,  # noqa: A002 - as above
) -> StateShown:
    """Any target as it was at a moment, folded from its events with today's laws."""
    organization_id = organization_of(auditor, everything=all, organization=organization)
    scope = scope_for(auditor, organization_id)
    wanted = AuditFilter(organization_id=organization_id, aggregate=aggregate, aggregate_id=id)
    moment = _moment(at)
    async with services.read("audit_log", position=position, scope=scope) as connection:
        last = await _last_until(connection, wanted, moment)
        if last.envelope.version > MAX_STATE_EVENTS:
            raise ApiError(409, "history_too_long", f"It has more than {MAX_STATE_EVENTS} events by then.")
        events = await list_histories(connection, [last])
        labels = await find_labels(connection, [last.subject])
    return _state_shown(services, events, moment, labels.get(last.subject))


def _moment(words: str) -> int | datetime | None:
    if not words:
        return None
    if words.isascii() and words.isdigit() and int(words) <= MAX_POSITION:
        return int(words)
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        message = "`at` is a position, or a time such as 2026-11-21T10:00:00Z."
        raise ApiError(400, "invalid_moment", message) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _last_until(connection: Connection, wanted: AuditFilter, moment: int | datetime | None) -> Recorded:
    """The target's last event by then.

    Raises:
        ApiError: 404, there is no such target in sight, or there was none yet.
    """
    before = min(moment, MAX_POSITION - 1) + 1 if isinstance(moment, int) else None
    then = replace(wanted, until=_just_after(moment)) if isinstance(moment, datetime) else wanted
    if found := await list_newest(connection, then, before=before, limit=1):
        return found[0]
    first = await list_next(connection, wanted, after=0, limit=1)
    if not first:
        raise not_found("aggregate")
    message = f"It did not exist then; its first event is at position {first[0].position}."
    raise ApiError(404, "not_begun", message)


def _just_after(moment: datetime) -> datetime | None:
    """None at the end of all time."""
    try:
        return moment + timedelta(microseconds=1)
    except OverflowError:
        return None


def _state_shown(
    services: Services, events: Sequence[Recorded], moment: int | datetime | None, label: str | None
) -> StateShown:
    envelope = events[0].envelope
    try:
        folded = services.histories.state(envelope.aggregate, events, moment)
    except UnreadableHistoryError as error:
        raise ApiError(409, "history_unreadable", f"This release cannot fold its events: {error}.") from error
    if folded is None:  # its events' times are not in their order, and the first one's is later
        raise ApiError(404, "not_begun", "It did not exist then.")
    last = next(event for event in events if event.position == folded.position)
    return StateShown(
        aggregate=envelope.aggregate,
        id=envelope.id,
        organization_id=envelope.organization,
        label=label,
        version=folded.version,
        position=folded.position,
        event_id=last.envelope.event_id,
        at=last.envelope.at,
        type=last.envelope.type,
        verb=words_for(last.envelope.type).verb,
        state=hidden("", dict(folded.fields)),
    )


@router.get("/{entry}")  # after the words above, which it would take for positions
async def audit_row(
    entry: Annotated[int, Path(le=MAX_POSITION, description="The row's position.")],
    auditor: Auditor,
    services: Served,
    position: Position,
    organization: Word = "",
    all: bool = False,  # noqa: A002 - the parameter's name in the API
) -> AuditRowInFull:
    """One row: its envelope, what it changed, what led to it and what it led to."""
    organization_id = organization_of(auditor, everything=all, organization=organization)
    scope = scope_for(auditor, organization_id)
    tenant = AuditFilter(organization_id=organization_id)
    async with services.read("audit_log", position=position, scope=scope) as connection:
        found = await list_next(connection, tenant, after=entry - 1, before=entry + 1, limit=1) if entry else []
        if not found:
            raise not_found("audit_entry")
        causes = await _causes(connection, organization_id, found[0])
        caused = replace(tenant, cause=found[0].envelope.event_id)
        effects = await list_next(connection, caused, after=entry, limit=MAX_EFFECTS + 1)
    [row] = await audit_rows(services, found, organization_id=organization_id, scope=scope, changes=True)
    return AuditRowInFull(
        **dict(row),
        envelope=msgspec.json.decode(found[0].payload),
        causes=[link(cause) for cause in causes],
        effects=[link(effect) for effect in effects[:MAX_EFFECTS]],
        more_effects=len(effects) > MAX_EFFECTS,
    )


async def _causes(connection: Connection, organization_id: str, effect: Recorded) -> list[Recorded]:
    """Nearest first; it ends at what nothing caused, or where the cause may not be seen."""
    causes: list[Recorded] = []
    cause = effect.envelope.cause
    while cause and len(causes) < MAX_CAUSES:
        found = (await find_events(connection, organization_id, [cause])).get(cause)
        if found is None:
            break
        causes.append(found)
        cause = found.envelope.cause
    return causes
