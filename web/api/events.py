"""The event log as its readers see it: pages of envelopes, one aggregate's history, and the live stream (SSE).

An organisation sees its own events. A platform administrator may ask for all of them (`all=true`), those of users,
sessions and the catalogue included. Payloads are the stored bytes, with the position put in front.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from domain.message import Recorded
from projections.audit_log import EventFilter, list_events, list_events_before
from projections.projection import EVERYTHING, Scope
from web.auth import Member, Position, Served, identify, member
from web.errors import ApiError, not_found
from web.live import MAX_CLIENTS, LiveEvents, envelope_json, event_stream
from web.shapes import Reply

router = APIRouter(prefix="/events", tags=["events"])

Auditor = Annotated[Member, Depends(member("audit.view"))]
Follower = Annotated[Member, Depends(member("events.follow", keys=True))]

MAX_PAGE_EVENTS = 500


class EnvelopeShown(Reply):
    """One event. `data` holds the event's own fields; personal data in it is sealed."""

    position: int
    event_id: str
    aggregate: str
    id: str
    version: int
    type: str
    schema_: Annotated[int, Field(alias="schema")]
    organization: str
    actor: str
    cause: str | None
    correlation: str
    at: datetime
    previous: str
    data: dict[str, Any]


class EventPage(Reply):
    """`next` is the position to ask `after` for the following page; null at the end."""

    events: list[EnvelopeShown]
    next: int | None


@router.get("", response_model=EventPage)
async def events(
    auditor: Auditor,
    services: Served,
    position: Position,
    after: Annotated[int, Field(ge=0)] = 0,
    before: Annotated[int | None, Field(ge=1)] = None,
    last: bool = False,
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_EVENTS)] = 100,
    aggregate: str = "",
    id: str = "",  # noqa: A002 - the parameter's name in the API
    type: str = "",  # noqa: A002 - as above
    correlation: str = "",
    event_id: str = "",
    organization: str = "",
    all: bool = False,  # noqa: A002 - as above
) -> Response:
    """A page of envelopes, oldest first: those after a position, or (`last`, `before`) the ones just before it.

    Every parameter that is given restricts; `organization` other than one's own is for a platform administrator.
    """
    wanted = EventFilter(
        organization_id=_scope(auditor, everything=all, organization=organization),
        aggregate=aggregate,
        aggregate_id=id,
        type=type,
        correlation=correlation,
        event_id=event_id,
    )
    async with services.read("audit_log", position=position, scope=_seen(auditor, wanted)) as connection:
        if last or before is not None:
            found = await list_events_before(connection, wanted, before=before, limit=limit)
        else:
            found = await list_events(connection, wanted, after=after, limit=limit)
    following = found[-1].position if len(found) == limit and not (last or before) else None
    return _page(found, following)


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream(
    follower: Follower,
    services: Served,
    request: Request,
    after: Annotated[int | None, Field(ge=0)] = None,
    all: bool = False,  # noqa: A002 - the parameter's name in the API
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Every event as it happens; ids are positions, so `Last-Event-ID` resumes without a gap."""
    live: LiveEvents = request.app.state.live
    if live.clients >= MAX_CLIENTS:
        raise ApiError(503, "too_many_streams", "This server has no room for another stream.", {"retry-after": "5"})
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
        after = int(last_event_id[:19])
    if after is not None:
        after = min(after, await services.log.head())  # a position from an older log would wait for ever
    wanted = EventFilter(organization_id=_scope(follower, everything=all))
    read = partial(services.read, scope=_seen(follower, wanted))

    async def still_allowed() -> bool:
        del request.state.caller
        try:
            caller = await identify(request)
        except ApiError:
            return False
        return caller.organization_id == follower.organization_id

    chunks = event_stream(live, read, after=after, organization_id=wanted.organization_id, still_allowed=still_allowed)
    return StreamingResponse(chunks, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


@router.get("/{aggregate}/{aggregate_id}", response_model=EventPage)
async def history(
    aggregate: str,
    aggregate_id: str,
    auditor: Auditor,
    services: Served,
    position: Position,
    after: Annotated[int, Field(ge=0)] = 0,
    all: bool = False,  # noqa: A002 - the parameter's name in the API
) -> Response:
    """One aggregate's events, oldest first, 500 at a time."""
    wanted = EventFilter(
        organization_id=_scope(auditor, everything=all), aggregate=aggregate, aggregate_id=aggregate_id
    )
    async with services.read("audit_log", position=position, scope=_seen(auditor, wanted)) as connection:
        found = await list_events(connection, wanted, after=after, limit=MAX_PAGE_EVENTS)
    if not found and not after:
        raise not_found("aggregate")
    return _page(found, found[-1].position if len(found) == MAX_PAGE_EVENTS else None)


def _seen(asking: Member, wanted: EventFilter) -> Scope:
    """The second wall: what _scope has granted to a platform administrator, and otherwise one's own."""
    return asking.caller.scope if wanted.organization_id == asking.organization_id else EVERYTHING


def _scope(asking: Member, *, everything: bool, organization: str = "") -> str:
    """The organisation whose events are shown; "" for all of them."""
    if organization == asking.organization_id or not (everything or organization):
        return asking.organization_id
    if asking.caller.platform_role != "admin":
        raise ApiError(403, "admin_required", "Only a platform administrator sees another organisation's events.")
    return organization


def _page(found: Sequence[Recorded], following: int | None) -> Response:
    rows = b",".join(envelope_json(recorded) for recorded in found)
    ending = b"null" if following is None else str(following).encode()
    return Response(b'{"events":[' + rows + b'],"next":' + ending + b"}", media_type="application/json")
