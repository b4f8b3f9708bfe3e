"""Deployments: a model wanted N times, and how far its instances have come; or an upstream that answers in their place.

It folds the events of both: a deployment's own, and those of its instances, each through the domain's own evolve. The
surprising rule: a refused wish is on record as it was spoken, so its numbers and names may be beyond reason, and no
index may be made of them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.deployment import DeploymentEvent, DeploymentRefused, DeploymentRequested, DeploymentStopped
from domain.ids import DeploymentId, InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_state import ENDED, Instance
from domain.upstream import (
    Upstream,
    UpstreamActivated,
    UpstreamConnected,
    UpstreamDeactivated,
    UpstreamEvent,
    UpstreamKeyReplaced,
)
from domain.upstream import evolve as upstream_after
from projections.fingerprint import fingerprint
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, MAX_PAGE_ROWS, find_all, find_one
from projections.table import Table, known, never_begun

_TABLES = f"""
-- states are {fingerprint(Instance)}, upstreams {fingerprint(Upstream)}
CREATE TABLE deployments (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    model_code text NOT NULL,
    instances bigint NOT NULL,
    engine text NOT NULL,
    provider text NOT NULL,
    zone text NOT NULL,
    instance_type text NOT NULL,
    price_eur_micros_per_hour bigint NOT NULL,
    error_code text NOT NULL,
    error_message text NOT NULL,
    created_at timestamptz NOT NULL,
    stopped_at timestamptz,
    upstream bytea
);
CREATE INDEX deployments_by_organization ON deployments (organization_id, created_at);
CREATE TABLE deployment_instances (
    id text PRIMARY KEY,
    deployment_id text NOT NULL,
    ordinal bigint NOT NULL,
    status text NOT NULL,
    state bytea NOT NULL
);
CREATE INDEX deployment_instances_by_deployment ON deployment_instances (deployment_id, ordinal)
"""

UPSTREAM = "upstream"
"""Stands for the engine of a deployment without machines; their places, numbers and prices are empty."""

Status = Literal["refused", "starting", "ready", "degraded", "failed", "stopping", "stopped"]


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    Attributes:
        instances: how many are wanted.
        ready_instances: how many answer.
        instance_ids: those that were requested so far, by ordinal.
        status: see `status_of`.
        error_code, error_message: why it was refused, else empty.
        upstream: what answers in place of instances; None for machines.
    """

    id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    instances: int
    ready_instances: int
    instance_ids: list[InstanceId]
    status: Status
    engine: str
    provider: str
    zone: str
    instance_type: str
    price_eur_micros_per_hour: int
    error_code: str
    error_message: str
    created_at: datetime
    stopped_at: datetime | None
    upstream: Upstream | None = None


class _Deployment(msgspec.Struct, frozen=True, kw_only=True):
    id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    instances: int
    engine: str
    provider: str
    zone: str
    instance_type: str
    price_eur_micros_per_hour: int
    error_code: str
    error_message: str
    created_at: datetime
    stopped_at: datetime | None
    upstream: bytes | None = None


class _Instance(msgspec.Struct, frozen=True, kw_only=True):
    id: InstanceId
    deployment_id: DeploymentId
    ordinal: int
    status: str
    state: bytes


_deployments = Table("deployments", _Deployment, key=("id",))
_instances = Table("deployment_instances", _Instance, key=("id",))
_states = msgspec.json.Decoder(Instance)
_upstreams = msgspec.json.Decoder(Upstream)

FAILED_STATUSES = frozenset({"provisioning_failed", "startup_failed", "failed"})

_STANDING = "organization_id = %(organization)s AND stopped_at IS NULL AND error_code = ''"

_SELECT = """
    SELECT d.*, i.ids AS instance_ids, i.statuses
    FROM deployments AS d CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(id ORDER BY ordinal), '{}') AS ids,
            coalesce(array_agg(status ORDER BY ordinal), '{}') AS statuses
        FROM deployment_instances WHERE deployment_id = d.id
    ) AS i
"""


def status_of(*, refused: bool, stopped: bool, wanted: int, statuses: Sequence[str]) -> Status:
    """In one word, what became of the wish.

    ready: all wanted instances answer. degraded: some do, and one has failed, ended or gone silent. failed: none does,
    and none is on its way. starting: otherwise. stopping until the last instance has ended.
    """
    ready = statuses.count("ready")
    lost = sum(status in ENDED or status in FAILED_STATUSES or status == "unavailable" for status in statuses)
    if refused:
        return "refused"
    if stopped:
        return "stopped" if all(status in ENDED for status in statuses) else "stopping"
    if ready >= wanted:
        return "ready"
    if ready and lost:
        return "degraded"
    return "failed" if statuses and lost == len(statuses) else "starting"


async def find_deployment(connection: Connection, organization_id: str, deployment_id: str) -> DeploymentView | None:
    """None for a neighbour's deployment, as for one that does not exist."""
    query = f"{_SELECT} WHERE d.organization_id = %s AND d.id = %s"
    return await find_one(connection, _view, query, (organization_id, deployment_id))


async def list_deployments(
    connection: Connection, organization_id: str, *, stopped: bool = True
) -> list[DeploymentView]:
    """The organisation's deployments, newest first, at most MAX_LIST_ROWS; without the stopped ones if so told."""
    query = f"""
        {_SELECT} WHERE d.organization_id = %s AND (d.stopped_at IS NULL OR %s)
        ORDER BY d.created_at DESC, d.id LIMIT %s
    """
    return await find_all(connection, _view, query, (organization_id, stopped, MAX_LIST_ROWS))


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an organisation still holds: deployments that are wanted, and instances that have not ended."""

    standing_deployments: int
    live_instances: int


async def find_footprint(connection: Connection, organization_id: str) -> Footprint:
    query = f"""
        SELECT (SELECT count(*) FROM deployments WHERE {_STANDING}) AS standing_deployments, (
            SELECT count(*) FROM deployment_instances AS i JOIN deployments AS d ON d.id = i.deployment_id
            WHERE d.organization_id = %(organization)s AND i.status <> ALL(%(ended)s)
        ) AS live_instances
    """  # noqa: S608 - made of this file's constants
    parameters = {"organization": organization_id, "ended": sorted(ENDED)}
    (found,) = await find_all(connection, Footprint, query, parameters)
    return found


async def list_standing(connection: Connection, organization_id: str) -> list[DeploymentId]:
    """The organisation's deployments that are still wanted, at most MAX_PAGE_ROWS."""
    query = f"SELECT id FROM deployments WHERE {_STANDING} ORDER BY id LIMIT %(rows)s"  # noqa: S608 - our own constant
    cursor = await connection.execute(query, {"organization": organization_id, "rows": MAX_PAGE_ROWS})
    return [DeploymentId(row[0]) for row in await cursor.fetchall()]


async def count_standing_of(connection: Connection, model_code: str, organization_id: str | None) -> int:
    """Deployments of the model that are still wanted, by one organisation or (None) by any: who asks for those must see
    across tenants. A code means an organisation's own model before the platform's, so this may count too many. An
    upstream needs no model in the catalogue.
    """
    query = """
        SELECT count(*) AS count FROM deployments
        WHERE model_code = %(code)s AND stopped_at IS NULL AND error_code = '' AND engine <> %(upstream)s
          AND (%(organization)s::text IS NULL OR organization_id = %(organization)s)
    """
    parameters = {"code": model_code, "organization": organization_id, "upstream": UPSTREAM}
    cursor = await connection.execute(query, parameters)
    (row,) = await cursor.fetchall()
    return int(row[0])


def _view(*, instance_ids: list[InstanceId], statuses: list[str], **columns: Any) -> DeploymentView:
    row = _Deployment(**columns)
    upstream = _upstreams.decode(row.upstream) if row.upstream else None
    status = status_of(
        refused=bool(row.error_code), stopped=row.stopped_at is not None, wanted=row.instances, statuses=statuses
    )
    if upstream is not None and status == "ready" and not upstream.activation.operational:
        status = "starting"
    return DeploymentView(
        **{**columns, "upstream": upstream},
        instance_ids=instance_ids,
        ready_instances=statuses.count("ready"),
        status=status,
    )


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    own = [entry for entry in entries if entry.envelope.aggregate == "deployment"]
    await _deployments.fold(own, connection, _fold)
    await _apply_instances([entry for entry in entries if entry.envelope.aggregate == "instance"], connection)


def _fold(row: _Deployment | None, entry: Entry) -> _Deployment:
    event: DeploymentEvent = entry.event
    match event:
        case DeploymentRequested():
            return _requested(event, entry)
        case DeploymentRefused():
            return replace(known(row, entry), error_code=event.code, error_message=event.message)
        case DeploymentStopped():
            return replace(known(row, entry), stopped_at=entry.envelope.at)
        case UpstreamConnected():
            return _with_upstream(_connected(event, entry), event)
        case UpstreamKeyReplaced() | UpstreamActivated() | UpstreamDeactivated():
            return _with_upstream(known(row, entry), event)
        case _:
            assert_never(event)


def _requested(event: DeploymentRequested, entry: Entry) -> _Deployment:
    asked = ("model_code", "engine", "provider", "zone", "instance_type", "price_eur_micros_per_hour")
    return _Deployment(
        id=DeploymentId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        **{field: getattr(event, field) for field in asked},
        instances=event.instances,
        error_code="",
        error_message="",
        created_at=entry.envelope.at,
        stopped_at=None,
    )


def _connected(event: UpstreamConnected, entry: Entry) -> _Deployment:
    return _Deployment(
        id=DeploymentId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        model_code=event.model_code,
        instances=0,
        engine=UPSTREAM,
        provider="",
        zone="",
        instance_type="",
        price_eur_micros_per_hour=0,
        error_code="",
        error_message="",
        created_at=entry.envelope.at,
        stopped_at=None,
    )


def _with_upstream(row: _Deployment, event: UpstreamEvent) -> _Deployment:
    before = _upstreams.decode(row.upstream) if row.upstream else None
    return replace(row, upstream=msgspec.json.encode(upstream_after(before, event)))


async def _apply_instances(entries: Sequence[Entry], connection: Connection) -> None:
    rows = await _instances.load(connection, [(entry.envelope.id,) for entry in entries])
    states = {key: _states.decode(row.state) for key, row in rows.items()}
    for entry in entries:
        key = (entry.envelope.id,)
        state = states[key] = INSTANCE.evolve(states.get(key, INSTANCE.initial), entry.event, entry.envelope.at)
        if key not in rows:
            rows[key] = _first_row(entry, state)
    await _instances.put(
        connection,
        [replace(row, status=states[key].status, state=msgspec.json.encode(states[key])) for key, row in rows.items()],
    )


def _first_row(entry: Entry, state: Instance) -> _Instance:
    request = state.request
    if request is None:
        raise never_begun(entry)
    return _Instance(
        id=InstanceId(entry.envelope.id),
        deployment_id=request.deployment_id,
        ordinal=request.ordinal,
        status="",
        state=b"",
    )


_OWN_DEPLOYMENTS = (
    "EXISTS (SELECT FROM deployments AS d WHERE d.id = deployment_id)"  # of those that the reader may see
)
DEPLOYMENTS = Projection(
    "deployments",
    4,
    _TABLES,
    apply,
    aggregates=frozenset({"deployment", "instance"}),
    visible={"deployment_instances": _OWN_DEPLOYMENTS},
)
