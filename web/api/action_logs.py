"""The action log (SPEC 1.8) and its catalogue (SPEC 2.7): the audit log's events, told as what the platform did.

A view of the same rows as /audit, in the fields that SPEC names. The surprising rule: everybody in an organisation sees
what was done to its instances and deployments; what people did to one another only those who may see the audit log.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from msgspec.structs import replace
from pydantic import Field

from domain.catalogue import PROVIDERS
from domain.message import Recorded
from domain.permissions import is_allowed
from projections.action_types import ACTION_TYPES
from projections.audit_search import (
    MAX_OFFSET_ROWS,
    MAX_PAGE_ROWS,
    AuditFilter,
    SearchTooBroadError,
    SortBy,
    count_by_type,
    list_newest,
    list_sorted,
)
from projections.audit_words import OUTCOMES, Outcome, component_of, words_for
from projections.instance_actions import InstanceAction, find_instance_actions
from projections.query import Direction
from web.api.audit_entries import too_broad
from web.audit_query import Word
from web.auth import Member, Position, Served, SignedIn, member
from web.hiding import hidden
from web.services import Services
from web.shapes import Reply

router = APIRouter(tags=["action log"])

Viewer = Annotated[Member, Depends(member("instances.view"))]

_FOR_EVERYONE = ("deployment", "instance")
_PROVIDER_NAMES = {provider.code: provider.name for provider in PROVIDERS}


class ActionLog(Reply):
    """One event. `status` in_progress: another event ends what this one began, so there is no `completed_at` yet.

    `metadata` names the event (type, position, correlation, target); `parent_log_id` is the event that caused it.
    """

    id: str
    action_type: str
    component: str
    status: Outcome
    message: str
    error_code: str | None
    error_message: str | None
    instance_id: str | None
    user_id: str | None
    request_payload: dict[str, Any]
    created_at: datetime
    completed_at: datetime | None
    parent_log_id: str | None
    instance_status_before: str | None
    instance_status_after: str | None
    provider_name: str | None
    instance_type: str | None
    metadata: dict[str, Any]


class StatusCounts(Reply):
    success: int
    failed: int
    in_progress: int


class ActionLogPage(Reply):
    """`total_count`: what the caller may see; `filtered_count`: of it, what was asked for. Counts: include_stats."""

    rows: list[ActionLog]
    offset: int
    limit: int
    total_count: int | None
    filtered_count: int | None
    status_counts: StatusCounts | None


class ActionTypeShown(Reply):
    code: str
    label: str
    icon: str
    color_class: str
    category: str
    is_active: bool


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    instance_id: str
    component: str
    status: Outcome | None
    action_type: str


def _asked(
    instance_id: Word = "",
    component: Annotated[Word, Query(description="api (or backend), orchestrator, worker.")] = "",
    status: Outcome | None = None,
    action_type: Word = "",
) -> _Asked:
    return _Asked(instance_id=instance_id, component=component, status=status, action_type=action_type)


Asked = Annotated[_Asked, Depends(_asked)]


@router.get("/action_logs")
async def action_logs(
    viewer: Viewer,
    services: Served,
    position: Position,
    asked: Asked,
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS)] = 100,
) -> list[ActionLog]:
    """The newest actions."""
    async with services.read("audit_log", position=position) as connection:
        try:
            found = await list_newest(connection, _wanted(viewer, asked), limit=limit)
        except SearchTooBroadError as error:
            raise too_broad() from error
    return await _shown(services, viewer, found)


@router.get("/action_logs/search")
async def search_action_logs(
    viewer: Viewer,
    services: Served,
    position: Position,
    asked: Asked,
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET_ROWS)] = 0,
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS)] = 100,
    sort_by: SortBy = "created_at",
    sort_dir: Direction = "desc",
    include_stats: bool = False,
) -> ActionLogPage:
    """A page of actions, in an order of one's own; /audit has pages that cost the same wherever they are."""
    wanted = _wanted(viewer, asked)
    counts: dict[str, int] = {}
    total: dict[str, int] = {}
    async with services.read("audit_log", position=position) as connection:
        try:
            found = await list_sorted(
                connection, wanted, sort_by=sort_by, descending=sort_dir == "desc", limit=limit, offset=offset
            )
            if include_stats:
                counts = await count_by_type(connection, wanted)
                total = await count_by_type(connection, _visible_to(viewer))
        except SearchTooBroadError as error:
            raise too_broad() from error
    return ActionLogPage(
        rows=await _shown(services, viewer, found),
        offset=offset,
        limit=limit,
        total_count=sum(total.values()) if include_stats else None,
        filtered_count=sum(counts.values()) if include_stats else None,
        status_counts=_status_counts(counts) if include_stats else None,
    )


@router.get("/action_types")
async def action_types(_caller: SignedIn) -> list[ActionTypeShown]:
    """Every code that an action can have; inactive ones belong to what this release does not do."""
    return [ActionTypeShown.model_validate(one) for one in ACTION_TYPES.values()]


def _wanted(viewer: Member, asked: _Asked) -> AuditFilter:
    wanted = replace(
        _visible_to(viewer),
        component="api" if asked.component == "backend" else asked.component,
        outcome=asked.status,
        action=asked.action_type,
    )
    return replace(wanted, aggregate="instance", aggregate_id=asked.instance_id) if asked.instance_id else wanted


def _visible_to(viewer: Member) -> AuditFilter:
    auditor = is_allowed(viewer.role, "audit.view")
    return AuditFilter(organization_id=viewer.organization_id, aggregates=() if auditor else _FOR_EVERYONE)


def _status_counts(counts: dict[str, int]) -> StatusCounts:
    by_outcome: dict[Literal["success", "failed", "in_progress"], int] = dict.fromkeys(OUTCOMES, 0)
    for event_type, rows in counts.items():
        by_outcome[words_for(event_type).outcome] += rows
    return StatusCounts(**by_outcome)


async def _shown(services: Services, viewer: Member, found: Sequence[Recorded]) -> list[ActionLog]:
    positions = [recorded.position for recorded in found if recorded.envelope.aggregate == "instance"]
    async with services.read("instances") as connection:
        actions = await find_instance_actions(connection, viewer.organization_id, positions) if positions else {}
    return [_log_of(recorded, actions.get(recorded.position)) for recorded in found]


def _log_of(recorded: Recorded, action: InstanceAction | None) -> ActionLog:
    envelope = recorded.envelope
    words = words_for(envelope.type)
    data = msgspec.json.decode(envelope.data, type=dict[str, Any])
    kind, _, actor_id = envelope.actor.partition(":")
    failed = words.outcome == "failed"
    return ActionLog(
        id=envelope.event_id,
        action_type=words.action,
        component=component_of(envelope.actor),
        status=words.outcome,
        message=action.words if action else words.verb,
        error_code=_text(data, "code") if failed else None,
        error_message=_text(data, "message", "reason") if failed else None,
        instance_id=envelope.id if envelope.aggregate == "instance" else None,
        user_id=actor_id if kind == "user" else None,
        request_payload=hidden("", data),
        created_at=envelope.at,
        completed_at=None if words.outcome == "in_progress" else envelope.at,
        parent_log_id=envelope.cause,
        instance_status_before=action.status_before if action else None,
        instance_status_after=action.status_after if action else None,
        provider_name=_PROVIDER_NAMES.get(action.provider, action.provider) if action else None,
        instance_type=action.instance_type if action else None,
        metadata={
            "event_type": envelope.type,
            "position": recorded.position,
            "correlation_id": envelope.correlation,
            "aggregate": envelope.aggregate,
            "aggregate_id": envelope.id,
        },
    )


def _text(data: dict[str, Any], *names: str) -> str | None:
    return next((str(data[name]) for name in names if data.get(name)), None)
