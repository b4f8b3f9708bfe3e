"""The gateway's picture of the world, in memory: which key is whose, and which workers answer for which model.

    EVENTS --apply--> keys by SHA-256 · deployments · instances (each folded by the domain's own evolve)
                          │                  │              │
                       find_key            knows       candidates, live_models

It starts from rows (the Postgres tables of `router`, or the gateway's own snapshot on disk) and goes on from their
position, so it can answer while Postgres and NATS are away. The surprising rule: an ended instance, a refused or
stopped deployment leaves no row behind, so its later events find nothing and change nothing; a revoked key stays, so
that its holder is told "revoked" rather than "unknown".
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache

import msgspec

from domain.api_key import API_KEY, ApiKeyIssued, ApiKeyRevoked
from domain.deployment import DEPLOYMENT, DeploymentRefused, DeploymentRequested, DeploymentStopped
from domain.ids import ApiKeyId, DeploymentId, InstanceId, OrganizationId, UserId
from domain.instance import INSTANCE
from domain.instance_events import InstanceRequested
from domain.instance_state import ENDED, Instance, Status
from projections.projection import Entry
from projections.table import fingerprint

AGGREGATES = (API_KEY.aggregate, DEPLOYMENT.aggregate, INSTANCE.aggregate)
"""Events of other aggregates change nothing here."""
SUBJECTS = tuple(f"evt.*.{aggregate}.*" for aggregate in AGGREGATES)
"""What a follower needs to read."""


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, tag=API_KEY.aggregate):
    """An API key as the gateway checks it; never the key itself."""

    id: ApiKeyId
    organization_id: OrganizationId
    key_sha256: str
    owner: UserId
    revoked: bool = False


class DeploymentRow(msgspec.Struct, frozen=True, kw_only=True, tag=DEPLOYMENT.aggregate):
    """A standing wish for a model, whether or not a worker answers for it yet."""

    id: DeploymentId
    organization_id: OrganizationId
    model_code: str


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True, tag=INSTANCE.aggregate):
    """An instance that has not ended, as the domain folds it."""

    id: InstanceId
    organization_id: OrganizationId
    requested_at: datetime
    state: Instance


RoutingRow = KeyRow | DeploymentRow | InstanceRow


class RoutingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table after the event at `position`; `schema` is the fingerprint of the fields it was written with."""

    schema: str
    position: int
    rows: tuple[RoutingRow, ...]


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A registered engine, ready or not, as choice needs it.

    Attributes:
        weight: how much of the load it can take beside its peers: its number of GPUs, at least 1.
    """

    instance_id: InstanceId
    deployment_id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    engine_url: str
    status: Status
    weight: int
    requested_at: datetime


class LiveModel(msgspec.Struct, frozen=True):
    """A model code that at least one ready worker answers for; `since` is when the eldest of them was requested."""

    code: str
    since: datetime


class RoutingTable:
    """The fold. Not thread-safe; one writer, and readers on the same event loop.

    Args:
        position: of the last event that `rows` know of; 0 with no rows is the beginning of the log.
    """

    def __init__(self, rows: Iterable[RoutingRow] = (), *, position: int = 0) -> None:
        self.position = position
        self._rows: dict[tuple[str, str], RoutingRow] = {}
        self._keys: dict[str, KeyRow] = {}
        self._wanted: Counter[tuple[str, str]] = Counter()
        self._workers: dict[tuple[str, str], dict[InstanceId, Worker]] = {}
        for row in rows:
            self._put(row)

    def apply(self, entry: Entry) -> None:
        """Takes one event in; one that is not after `position` has been seen already and changes nothing."""
        if entry.position <= self.position:
            return
        self.position = entry.position
        aggregate, row_id = entry.envelope.aggregate, entry.envelope.id
        if aggregate not in AGGREGATES:
            return
        before = self.row(aggregate, row_id)
        after = _next_row(before, entry)
        if after is before:
            return
        if before is not None:
            self._drop(before)
        if after is not None:
            self._put(after)

    def row(self, aggregate: str, row_id: str) -> RoutingRow | None:
        return self._rows.get((aggregate, row_id))

    def rows(self) -> Iterator[RoutingRow]:
        return iter(self._rows.values())

    def snapshot(self) -> RoutingSnapshot:
        return RoutingSnapshot(schema=_fingerprint(), position=self.position, rows=tuple(self._rows.values()))

    def find_key(self, key_sha256: str) -> KeyRow | None:
        return self._keys.get(key_sha256)

    def candidates(self, organization: str, model_code: str) -> Sequence[Worker]:
        """Every registered worker of the organisation's instances of this model, whatever its status."""
        return tuple(self._workers.get((organization, model_code), {}).values())

    def knows(self, organization: str, model_code: str) -> bool:
        """True when the organisation wants this model: a standing deployment, or an instance that has not ended."""
        return self._wanted[organization, model_code] > 0

    def has_instance(self, instance_id: str) -> bool:
        return (INSTANCE.aggregate, instance_id) in self._rows

    def live_models(self, organization: str) -> Sequence[LiveModel]:
        """The organisation's models with a ready worker, by code."""
        live = []
        for (owner, code), workers in self._workers.items():
            ready = [worker.requested_at for worker in workers.values() if worker.status == "ready"]
            if owner == organization and ready:
                live.append(LiveModel(code, min(ready)))
        return sorted(live, key=lambda model: model.code)

    def _put(self, row: RoutingRow) -> None:
        self._rows[_aggregate(row), row.id] = row
        if isinstance(row, KeyRow):
            self._keys[row.key_sha256] = row
            return
        place = (row.organization_id, _model_code(row))
        self._wanted[place] += 1
        worker = _worker(row)
        if worker is not None:
            self._workers.setdefault(place, {})[worker.instance_id] = worker

    def _drop(self, row: RoutingRow) -> None:
        del self._rows[_aggregate(row), row.id]
        if isinstance(row, KeyRow):
            self._keys.pop(row.key_sha256, None)
            return
        place = (row.organization_id, _model_code(row))
        self._wanted[place] -= 1
        if not self._wanted[place]:
            del self._wanted[place]
        workers = self._workers.get(place, {})
        workers.pop(InstanceId(row.id), None)
        if not workers:
            self._workers.pop(place, None)


def encode_snapshot(snapshot: RoutingSnapshot) -> bytes:
    """JSON, so that an operator can read it."""
    return msgspec.json.encode(snapshot)


def table_from_snapshot(data: bytes) -> RoutingTable:
    """The table that `encode_snapshot` wrote.

    Raises:
        ValueError: damaged, or of another schema; read the log instead.
    """
    snapshot = msgspec.json.decode(data, type=RoutingSnapshot)
    if snapshot.schema != _fingerprint():
        raise ValueError("the routing snapshot was written with other fields than this program's")
    return RoutingTable(snapshot.rows, position=snapshot.position)


@cache
def _fingerprint() -> str:
    """Changes with any field of a row, so that a snapshot from before such a change is not half understood."""
    return fingerprint(RoutingRow)


def _next_row(before: RoutingRow | None, entry: Entry) -> RoutingRow | None:
    envelope = entry.envelope
    if envelope.aggregate == INSTANCE.aggregate:
        return _next_instance(before if isinstance(before, InstanceRow) else None, entry)
    match entry.event:
        case ApiKeyIssued() as issued:
            return KeyRow(
                id=ApiKeyId(envelope.id),
                organization_id=envelope.organization,
                key_sha256=issued.key_sha256,
                owner=issued.owner,
            )
        case ApiKeyRevoked() if isinstance(before, KeyRow):
            return msgspec.structs.replace(before, revoked=True)
        case DeploymentRequested() as wish:
            return DeploymentRow(
                id=DeploymentId(envelope.id), organization_id=envelope.organization, model_code=wish.model_code
            )
        case DeploymentRefused() | DeploymentStopped():
            return None
        case _:
            return before


def _next_instance(before: InstanceRow | None, entry: Entry) -> InstanceRow | None:
    envelope = entry.envelope
    if before is None:
        if not isinstance(entry.event, InstanceRequested):
            return None
        before = InstanceRow(
            id=InstanceId(envelope.id),
            organization_id=envelope.organization,
            requested_at=envelope.at,
            state=INSTANCE.initial,
        )
    state = INSTANCE.evolve(before.state, entry.event, envelope.at)
    return None if state.status in ENDED else msgspec.structs.replace(before, state=state)


def _worker(row: DeploymentRow | InstanceRow) -> Worker | None:
    if isinstance(row, DeploymentRow) or row.state.request is None:
        return None
    request, state = row.state.request, row.state
    if state.worker_id is None or not state.engine_url:
        return None
    return Worker(
        instance_id=row.id,
        deployment_id=request.deployment_id,
        organization_id=row.organization_id,
        model_code=request.model_code,
        engine_url=state.engine_url,
        status=state.status,
        weight=max(1, request.gpu_count),
        requested_at=row.requested_at,
    )


def _aggregate(row: RoutingRow) -> str:
    return str(row.__struct_config__.tag)


def _model_code(row: DeploymentRow | InstanceRow) -> str:
    if isinstance(row, DeploymentRow):
        return row.model_code
    return row.state.request.model_code if row.state.request else ""
