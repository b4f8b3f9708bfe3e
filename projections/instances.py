"""Instances as their organisation sees them, and each one's timeline.

The row keeps the domain's own state, encoded, so that status and progress come from the one fold that the rules come
from; the other columns are what queries filter and sort by. What an instance has cost so far is computed when asked.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from domain.activation import Activation
from domain.ids import DeploymentId, InstanceId, OrganizationId, WorkerId
from domain.instance import INSTANCE
from domain.instance_events import (
    InstanceEvent,
    InstanceReady,
    InstanceRequested,
    InstanceTerminated,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerDiscarded,
    VolumeDiscovered,
)
from domain.instance_state import Instance, Status
from projections.fingerprint import fingerprint
from projections.instance_milestones import MILESTONE_TABLE, MILESTONES, milestone_of
from projections.instance_owning import NOT_ENDED
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, MAX_PAGE_ROWS, Direction, find_all, find_one, page_rows
from projections.table import Table, known

_NOT_AT_REST = """
status IN ('provisioning', 'booting', 'installing', 'starting', 'unavailable', 'draining', 'terminating',
    'provisioning_failed', 'startup_failed')
"""
SECONDS_PER_HOUR = 3600

_TABLES = f"""
-- states are {fingerprint(Instance)}
CREATE TABLE instances (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    deployment_id text NOT NULL,
    ordinal bigint NOT NULL,
    model_code text NOT NULL,
    engine text NOT NULL,
    provider text NOT NULL,
    zone text NOT NULL,
    instance_type text NOT NULL,
    price_eur_micros_per_hour bigint NOT NULL,
    settled_eur_micros bigint NOT NULL,
    priced_from timestamptz,
    status text NOT NULL,
    is_archived boolean NOT NULL,
    deleted_by_provider boolean NOT NULL,
    created_at timestamptz NOT NULL,
    ready_at timestamptz,
    terminated_at timestamptz,
    position bigint NOT NULL,
    state bytea NOT NULL
);
CREATE INDEX instances_by_organization ON instances (organization_id, created_at);
CREATE INDEX instances_by_deployment ON instances (deployment_id);
CREATE INDEX instances_not_at_rest ON instances (id)
    WHERE {_NOT_AT_REST};
CREATE INDEX instances_not_ended ON instances (id)
    WHERE {NOT_ENDED};
{MILESTONE_TABLE}
"""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """One instance (SPEC 1.6). What was not reported yet is empty; money in millionths of a euro.

    Attributes:
        ordinal: its number within its deployment, from 1.
        gpu_vram_gb: of one GPU.
        deletion_reason: why it ended, or is ending.
        ready_at: when it last became ready.
        total_cost_eur_micros: from its creation to its end, or to the moment of the query, each attempt at the price of
            its own place; nothing between two attempts, and after one that certainly has no server.
        volumes: of its server, by the provider's id; those that are to be kept stay here for ever.
        position: of its last event.
    """

    id: InstanceId
    organization_id: OrganizationId
    deployment_id: DeploymentId
    ordinal: int
    model_code: str
    engine: str
    provider: str
    zone: str
    instance_type: str
    gpu_count: int
    gpu_vram_gb: int
    status: Status
    progress_percent: int
    ip_address: str
    engine_url: str
    agent_url: str
    provider_instance_id: str
    volumes: Mapping[str, VolumeDiscovered]
    worker_id: WorkerId | None
    agent_version: str
    agent_sha256: str
    error_code: str
    error_message: str
    deletion_reason: str
    deleted_by_provider: bool
    created_at: datetime
    ready_at: datetime | None
    terminated_at: datetime | None
    price_eur_micros_per_hour: int
    total_cost_eur_micros: int
    is_archived: bool
    activation: Activation
    position: int


class InstancePage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows `offset` to `offset + limit` of `filtered_count`; the organisation has `total_count` in all."""

    offset: int
    limit: int
    total_count: int
    filtered_count: int
    rows: list[InstanceView]


class InstanceHome(msgspec.Struct, frozen=True, kw_only=True):
    """Where an instance is found in the log."""

    id: InstanceId
    organization_id: OrganizationId
    status: Status


class _Counts(msgspec.Struct, frozen=True):
    total: int
    filtered: int


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """As stored; `position` is that of its last event, `state` the domain's Instance as JSON.

    The present price counts from `priced_from` on, None while there certainly is no server; `settled_eur_micros` is
    what was before.
    """

    id: InstanceId
    organization_id: OrganizationId
    deployment_id: DeploymentId
    ordinal: int
    model_code: str
    engine: str
    provider: str
    zone: str
    instance_type: str
    price_eur_micros_per_hour: int
    settled_eur_micros: int
    priced_from: datetime | None
    status: Status
    is_archived: bool
    deleted_by_provider: bool
    created_at: datetime
    ready_at: datetime | None
    terminated_at: datetime | None
    position: int
    state: bytes


_instances = Table("instances", _Row, key=("id",))
_states = msgspec.json.Decoder(Instance)

_COST = """
    settled_eur_micros + coalesce(
        round(price_eur_micros_per_hour * extract(epoch FROM coalesce(terminated_at, %(now)s) - priced_from) / 3600), 0
    )::bigint
"""
_VISIBLE = "organization_id = %(organization)s AND (%(archived)s::boolean IS NULL OR is_archived = %(archived)s)"
_SORTED_BY: Mapping[str, str] = {
    "created_at": "created_at",
    "status": "status",
    "provider": "provider",
    "zone": "zone",
    "type": "instance_type",
    "model": "model_code",
    "cost_per_hour": "price_eur_micros_per_hour",
    "total_cost": "total_cost_eur_micros",
}
SortColumn = Literal["created_at", "status", "provider", "zone", "type", "model", "cost_per_hour", "total_cost"]


async def find_instance(
    connection: Connection, organization_id: str, instance_id: str, *, now: datetime
) -> InstanceView | None:
    """None for a neighbour's instance, as for one that does not exist."""
    query = f"{_SELECT} WHERE organization_id = %(organization)s AND id = %(id)s"
    return await find_one(connection, _view, query, {"organization": organization_id, "id": instance_id, "now": now})


async def list_instances(
    connection: Connection,
    organization_id: str,
    *,
    now: datetime,
    archived: bool | None = False,
    deployment_id: str | None = None,
) -> list[InstanceView]:
    """The organisation's instances, or one deployment's, newest first, at most MAX_LIST_ROWS.

    `archived` asks for the archived ones only, for the others only, or (None) for all.
    """
    query = f"""
        {_SELECT} WHERE {_VISIBLE} AND (%(deployment)s::text IS NULL OR deployment_id = %(deployment)s)
        ORDER BY created_at DESC, ordinal, id LIMIT %(rows)s
    """
    parameters = {
        "organization": organization_id,
        "archived": archived,
        "deployment": deployment_id,
        "now": now,
        "rows": MAX_LIST_ROWS,
    }
    return await find_all(connection, _view, query, parameters)


async def search_instances(
    connection: Connection,
    organization_id: str,
    *,
    now: datetime,
    archived: bool | None = False,
    offset: int = 0,
    limit: int = 200,
    sort_by: SortColumn = "created_at",
    sort_dir: Direction = "desc",
) -> InstancePage:
    """One page of the organisation's instances."""
    parameters = {
        "organization": organization_id,
        "archived": archived,
        "now": now,
        "rows": page_rows(limit),
        "offset": max(0, offset),
    }
    order = f"{_SORTED_BY[sort_by]} {'ASC' if sort_dir == 'asc' else 'DESC'}, id"
    query = f"{_SELECT} WHERE {_VISIBLE} ORDER BY {order} LIMIT %(rows)s OFFSET %(offset)s"
    rows = await find_all(connection, _view, query, parameters)
    counting = f"""
        SELECT count(*) AS total, count(*) FILTER (WHERE {_VISIBLE}) AS filtered
        FROM instances WHERE organization_id = %(organization)s
    """  # noqa: S608 - made of this file's constants
    (counts,) = await find_all(connection, _Counts, counting, parameters)
    return InstancePage(
        offset=max(0, offset),
        limit=page_rows(limit),
        total_count=counts.total,
        filtered_count=counts.filtered,
        rows=rows,
    )


async def find_home(connection: Connection, instance_id: str) -> InstanceHome | None:
    """For callers who know the instance and not its organisation, such as its worker; load the truth from there."""
    query = "SELECT id, organization_id, status FROM instances WHERE id = %s"
    return await find_one(connection, InstanceHome, query, (instance_id,))


async def list_unsettled(connection: Connection, *, after: str = "", limit: int = MAX_PAGE_ROWS) -> list[InstanceHome]:
    """Instances that are on their way somewhere, of all organisations, by id; `after` is the last page's last id."""
    query = f"""
        SELECT id, organization_id, status FROM instances WHERE {_NOT_AT_REST} AND id > %s ORDER BY id LIMIT %s
    """  # noqa: S608 - made of this file's constants
    return await find_all(connection, InstanceHome, query, (after, page_rows(limit)))


def _view(*, total_cost_eur_micros: int, **columns: Any) -> InstanceView:
    row = _Row(**columns)
    state = _states.decode(row.state)
    return InstanceView(
        **{field: getattr(row, field) for field in _SHOWN_OF_ROW},
        **{field: getattr(state, field) for field in _SHOWN_OF_STATE},
        gpu_count=state.place.gpu_count if state.place else 0,
        gpu_vram_gb=state.place.vram_per_gpu_gb if state.place else 0,
        progress_percent=state.progress_percent,
        deletion_reason=state.termination_reason,
        total_cost_eur_micros=total_cost_eur_micros,
    )


_SELECT = f"SELECT *, {_COST} AS total_cost_eur_micros FROM instances"  # noqa: S608 - constants of this file
_SHOWN_OF_ROW = tuple(f for f in InstanceView.__struct_fields__ if f in _Row.__struct_fields__)
_SHOWN_OF_STATE = tuple(
    f for f in InstanceView.__struct_fields__ if f in Instance.__struct_fields__ and f not in _SHOWN_OF_ROW
)


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    rows = await _instances.load(connection, [(entry.envelope.id,) for entry in entries])
    states = {key: _states.decode(row.state) for key, row in rows.items()}
    milestones = []
    for entry in entries:
        key = (entry.envelope.id,)
        before = states.get(key, INSTANCE.initial)
        after = states[key] = INSTANCE.evolve(before, entry.event, entry.envelope.at)
        rows[key] = _next_row(rows.get(key), entry, after)
        milestones.append(milestone_of(entry, before, after))
    await _instances.put(
        connection, [replace(row, state=msgspec.json.encode(states[key])) for key, row in rows.items()]
    )
    await MILESTONES.add(connection, milestones)


def _next_row(row: _Row | None, entry: Entry, state: Instance) -> _Row:
    at = entry.envelope.at
    event: InstanceEvent = entry.event
    match event:
        case InstanceRequested() as request:
            row = _first_row(entry, request)
        case ServerCreateIntended():
            row = _placed(known(row, entry), state, at)
        case ServerCreated() if row is not None and row.priced_from is None:
            row = replace(row, priced_from=at)
        case ServerCreateFailed() | ServerDiscarded():
            row = replace(_settled(known(row, entry), at), priced_from=None)
        case InstanceReady():
            row = replace(known(row, entry), ready_at=at)
        case InstanceTerminated() as ended:
            row = replace(known(row, entry), terminated_at=at, deleted_by_provider=ended.deleted_by_provider)
        case _:
            pass
    return replace(
        known(row, entry),
        status=state.status,
        is_archived=state.status == "archived",
        position=entry.position,
    )


def _placed(row: _Row, state: Instance, at: datetime) -> _Row:
    """Where this attempt is, at its own price from now on."""
    place = state.place
    if place is None:
        return row
    price = place.price_eur_micros_per_hour
    if row.priced_from is None or price != row.price_eur_micros_per_hour:
        row = replace(_settled(row, at), price_eur_micros_per_hour=price)
    return replace(row, zone=place.zone, instance_type=place.instance_type)


def _settled(row: _Row, at: datetime) -> _Row:
    """What it cost up to now is booked; nothing that a later attempt costs changes it."""
    if row.priced_from is None:
        return replace(row, priced_from=at)
    cost = row.price_eur_micros_per_hour * (at - row.priced_from).total_seconds() / SECONDS_PER_HOUR
    return replace(row, settled_eur_micros=row.settled_eur_micros + round(cost), priced_from=at)


def _first_row(entry: Entry, request: InstanceRequested) -> _Row:
    asked = ("deployment_id", "ordinal", "model_code", "engine", "provider", "zone", "instance_type")
    return _Row(
        id=InstanceId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        **{field: getattr(request, field) for field in asked},
        price_eur_micros_per_hour=request.price_eur_micros_per_hour,
        settled_eur_micros=0,
        priced_from=entry.envelope.at,
        status="requested",
        is_archived=False,
        deleted_by_provider=False,
        created_at=entry.envelope.at,
        ready_at=None,
        terminated_at=None,
        position=entry.position,
        state=b"",
    )


INSTANCES = Projection("instances", 4, _TABLES, apply, aggregates=frozenset({"instance"}))
