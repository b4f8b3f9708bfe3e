"""What may be asked of the audit log: query parameters, the filter that they make, and what of them may be recorded.

The surprising rule: an unknown parameter is refused, because a filter with a slip in its name would show, or export,
everything.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.ids import PLATFORM
from projections.action_types import ACTION_TYPES
from projections.audit_search import MAX_PAGE_ROWS, MAX_TEXT_CHARACTERS, AuditFilter
from projections.audit_words import TARGETS, WORDS, Outcome
from projections.projection import EVERYTHING, Scope
from projections.users import find_user_by_digest
from web.auth import MAX_POSITION, Member
from web.errors import ApiError
from web.hiding import HIDDEN
from web.services import Services
from web.shapes import uuid_or_404

MAX_WORD_CHARACTERS = 256

Word = Annotated[str, Field(max_length=MAX_WORD_CHARACTERS)]
ActorKind = Literal["user", "key", "worker", "system"]
_NOT_FILTERS = {"all", "organization", "position", "format", "before", "after", "limit", "changes"}


class AuditQuery(BaseModel):
    """Every filter that is given restricts. Times without a zone are UTC."""

    model_config = ConfigDict(extra="forbid")

    all: bool = Field(False, description="Every organisation's rows; for a platform administrator.")
    organization: Word = Field("", description="Another organisation's rows; for a platform administrator.")
    actor_kind: ActorKind | None = None
    actor_id: Word = ""
    aggregate: Word = ""
    id: Word = Field("", description="Of the target.")
    type: Word = Field("", description="Of the event.")
    action: Word = Field("", description="A code of /action_types.")
    outcome: Outcome | None = None
    component: Word = Field("", description="api (or backend), orchestrator, worker, or a service's name.")
    correlation: Word = Field("", description="Everything that one intent led to.")
    cause: Word = Field("", description="An event id: what it led to directly.")
    event_id: Word = ""
    origin: Word = Field("", description='"session:<id>", "key:<id>" or "cli".')
    since: datetime | None = None
    until: datetime | None = Field(None, description="Not included.")
    text: str = Field(
        "",
        max_length=MAX_TEXT_CHARACTERS,
        description="Sought in words, ids and what things are called; a whole username or e-mail address finds what "
        "that person did.",
    )
    position: int = Field(0, ge=0, le=MAX_POSITION, description="Wait until the log is read up to here.")


class PageQuery(AuditQuery):
    before: Annotated[int | None, Field(ge=1, le=MAX_POSITION)] = None
    after: Annotated[int, Field(ge=0, le=MAX_POSITION)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS // 2)] = 100
    changes: bool = Field(True, description="Tell which fields each row changed, before and after.")


class ExportQuery(AuditQuery):
    format: Literal["csv", "jsonl"] = "jsonl"


def organization_of(auditor: Member, *, everything: bool, organization: str) -> str:
    """The organisation whose rows are asked for; "" for all of them.

    Raises:
        ApiError: 403, that is for platform administrators; 404, no organisation's id looks like this.
    """
    if organization == auditor.organization_id or not (everything or organization):
        return auditor.organization_id
    if auditor.caller.platform_role != "admin":
        raise ApiError(403, "admin_required", "Only a platform administrator sees another organisation's audit log.")
    if everything:
        return ""
    return PLATFORM if organization == PLATFORM else uuid_or_404("organization", organization)


def scope_for(auditor: Member, organization_id: str) -> Scope | None:
    """None: the caller's own rows, which a member's scope allows. An administrator elsewhere sees past the walls."""
    return None if organization_id == auditor.organization_id else EVERYTHING


async def filter_of(query: AuditQuery, organization_id: str, services: Services) -> AuditFilter:
    return AuditFilter(
        organization_id=organization_id,
        actor_kind=query.actor_kind or "",
        actor_id=query.actor_id,
        aggregate=query.aggregate,
        aggregate_id=query.id,
        type=query.type,
        action=query.action,
        outcome=query.outcome,
        component="api" if query.component == "backend" else query.component,
        correlation=query.correlation,
        cause=query.cause,
        event_id=query.event_id,
        origin=query.origin,
        since=_utc(query.since),
        until=_utc(query.until),
        text=query.text,
        told_actors=await _actors_told_by(query.text, services),
    )


async def _actors_told_by(text: str, services: Services) -> tuple[str, ...]:
    """The user whose whole username or e-mail address this is. Names are sealed, so no part of one can be sought."""
    if not text:
        return ()
    username, email = services.vault.digest("username", text), services.vault.digest("email", text)
    async with services.read("users", scope=EVERYTHING) as connection:  # users belong to no organisation
        user = await find_user_by_digest(connection, username_digest=username, email_digest=email)
    return (f"user:{user.id}",) if user else ()


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def recordable(query: AuditQuery) -> Mapping[str, str]:
    """The filters as they may stand in the log for ever: ids, times and known words; else only that one was given."""
    given = query.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_FILTERS)
    return {name: text if _is_harmless(name, text := str(value)) else HIDDEN for name, value in given.items()}


_KNOWN = {*TARGETS, *WORDS, *ACTION_TYPES, "api", "backend", "orchestrator", "worker", "cli"}
_CHECKED_ELSEWHERE = {"actor_kind", "outcome", "since", "until"}
"""Their types let nothing else through."""


def _is_harmless(name: str, value: str) -> bool:
    if name == "text":
        return False
    return name in _CHECKED_ELSEWHERE or value in _KNOWN or _is_uuid(value.rpartition(":")[2])


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
