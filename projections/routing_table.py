"""The gateway's picture of the world, in memory: which key is whose, who may call what, and which workers answer.

    EVENTS --apply--> rows (routing_rows.py) ──> keys by SHA-256 · offerings by (slug, code) · shares by (offering,
                                                 consumer) · workers by (organisation, model)

It starts from rows (the Postgres tables of `router`, or the gateway's own snapshot on disk) and goes on from their
position, so it can answer while Postgres and NATS are away. Everything that a request asks is one look-up. The
surprising rule: what is not known is refused. A key of an organisation without a row is nobody's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import TypeVar

import msgspec

from domain.activation import Flag
from domain.ids import PLATFORM, DeploymentId, InstanceId, OfferingId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_state import Status
from domain.key_scope import CompiledScope, KeyScope, compiled
from domain.organization import ORGANIZATION
from domain.setting import SETTING, Value, settings_id_of
from domain.share import SHARE, share_id_of
from domain.user import USER
from domain.values import Plan
from projections.projection import Entry
from projections.routing_rows import (
    AGGREGATES,
    DeploymentRow,
    ForgottenRow,
    InstanceRow,
    KeyRow,
    OfferingRow,
    OrganizationRow,
    RoutingRow,
    SettingsRow,
    ShareRow,
    aggregate_of,
    next_row,
)
from projections.table import fingerprint

K = TypeVar("K")
M = TypeVar("M")
V = TypeVar("V")

SCOPES_SHARED = 4096
"""Different scopes of which keys share one compiled form."""
PIECE_ROWS = 500
"""Encoded in less than a millisecond, for which the event loop may have to wait."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RoutingRow)


class RoutingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table after the event at `position`.

    Attributes:
        current_at: UTC, when the log last said that nothing was missing; the table's age is counted from there.
    """

    position: int
    current_at: datetime
    rows: tuple[RoutingRow, ...]


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a stored snapshot; `rows` are the lines after it, `schema` is the fingerprint of their fields."""

    schema: str
    position: int
    current_at: datetime
    rows: int


class KnownKey(msgspec.Struct, frozen=True):
    """A key's row, and its scope ready to be asked."""

    row: KeyRow
    scope: CompiledScope


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A registered engine, ready or not, as choice needs it.

    Attributes:
        weight: how much of the load it can take beside its peers: its number of GPUs, at least 1.
        missing: activation flags without which its instance may not work; it gets no request while there are any.
        endpoints: what its engine answers (words of a key's scope); None when it has not said.
        engine_model: what its engine calls the model; "" means by its code.
        credential_id: whose secret opens a foreign engine (a deployment's id); "" for engines of ours.
    """

    instance_id: InstanceId
    deployment_id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    engine_url: str
    status: Status
    weight: int
    requested_at: datetime
    missing: tuple[Flag, ...] = ()
    endpoints: frozenset[str] | None = None
    engine_model: str = ""
    credential_id: str = ""

    @property
    def takes_requests(self) -> bool:
        return self.status == "ready" and not self.missing


class RoutingTable:
    """The fold. Not thread-safe; one writer, and readers on the same event loop.

    Args:
        position: of the last event that `rows` know of; 0 with no rows is the beginning of the log.
    """

    def __init__(self, rows: Iterable[RoutingRow] = (), *, position: int = 0) -> None:
        self.position = position
        self._rows: dict[tuple[str, str], RoutingRow] = {}
        self._keys: dict[str, KnownKey] = {}
        self._slugs: dict[str, OrganizationId] = {}
        self._offerings: dict[OrganizationId, dict[str, OfferingRow]] = {}
        self._wanted: Counter[tuple[str, str]] = Counter()
        self._waiting: dict[tuple[str, str], dict[InstanceId, tuple[Flag, ...]]] = {}
        self._workers: dict[str, dict[str, dict[InstanceId, Worker]]] = {}
        for row in rows:
            self._put(row)

    def apply(self, entry: Entry) -> None:
        """Takes one event in; one that is not after `position` has been seen already and changes nothing."""
        if entry.position <= self.position:
            return
        self.position = entry.position
        if entry.envelope.aggregate not in AGGREGATES:
            return
        before = self.row(entry.envelope.aggregate, entry.envelope.id)
        after = next_row(before, entry)
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

    def snapshot(self, current_at: datetime) -> RoutingSnapshot:
        return RoutingSnapshot(position=self.position, current_at=current_at, rows=tuple(self._rows.values()))

    def find_key(self, key_sha256: str) -> KnownKey | None:
        """The key with this secret, or with this one as its secret before the last rotation, however long ago."""
        return self._keys.get(key_sha256)

    def is_orphaned(self, key: KeyRow) -> bool:
        """True once nobody stands behind a key: its organisation was deleted, its owner left it or was forgotten."""
        organization, owner = self._organization(key.organization_id), key.state.owner
        if organization is None or organization.deleted:
            return True
        return owner is not None and (
            owner not in organization.members or isinstance(self.row(USER.aggregate, owner), ForgottenRow)
        )

    def find_offering(self, slug: str, code: str) -> OfferingRow | None:
        """By its public name; a slug that an organisation gave up names nothing."""
        provider = self._slugs.get(slug)
        return self._offerings.get(provider, {}).get(code) if provider is not None else None

    def list_offerings(self) -> Iterator[tuple[str, OfferingRow]]:
        """Every offering of every organisation, with the slug that names it; not ordered."""
        for slug, provider in self._slugs.items():
            for offering in self._offerings.get(provider, {}).values():
                yield slug, offering

    def find_share(self, offering_id: OfferingId, consumer: OrganizationId) -> ShareRow | None:
        found = self.row(SHARE.aggregate, share_id_of(offering_id, consumer))
        return found if isinstance(found, ShareRow) else None

    def plan_of(self, organization: OrganizationId) -> Plan:
        known = self._organization(organization)
        return known.plan if known else "free"

    def candidates(self, organization: str, model_code: str) -> Sequence[Worker]:
        """Every registered worker of the organisation's instances of this model, whatever its status."""
        return tuple(self._workers.get(organization, {}).get(model_code, {}).values())

    def knows(self, organization: str, model_code: str) -> bool:
        """True when the organisation wants this model: a standing deployment, or an instance that has not ended."""
        return self._wanted[organization, model_code] > 0

    def missing_flags(self, organization: str, model_code: str) -> tuple[Flag, ...]:
        """Activation flags that instances of this model wait for."""
        waiting = self._waiting.get((organization, model_code), {})
        return tuple(dict.fromkeys(flag for flags in waiting.values() for flag in flags))

    def has_instance(self, instance_id: str) -> bool:
        return (INSTANCE.aggregate, instance_id) in self._rows

    def live_since(self, organization: str, model_code: str) -> datetime | None:
        """When the eldest of the workers that take requests was requested; None when there is none."""
        workers = self._workers.get(organization, {}).get(model_code, {}).values()
        return min((worker.requested_at for worker in workers if worker.takes_requests), default=None)

    def models_of(self, organization: str) -> Sequence[str]:
        """Codes of the models that the organisation has registered workers of."""
        return tuple(self._workers.get(organization, {}))

    @property
    def platform_settings(self) -> Mapping[str, Value]:
        """Those that a platform administrator set."""
        row = self.row(SETTING.aggregate, settings_id_of(PLATFORM))
        return row.values if isinstance(row, SettingsRow) else {}

    def _organization(self, organization_id: OrganizationId) -> OrganizationRow | None:
        row = self.row(ORGANIZATION.aggregate, organization_id)
        return row if isinstance(row, OrganizationRow) else None

    def _put(self, row: RoutingRow) -> None:
        self._rows[aggregate_of(row), row.id] = row
        match row:
            case KeyRow():
                known = KnownKey(row, _compiled(row.state.scope))
                self._keys.update((secret, known) for secret in _secrets(row))
            case OrganizationRow():
                if row.slug and not row.deleted:
                    self._slugs[row.slug] = row.id
            case OfferingRow():
                self._offerings.setdefault(row.organization_id, {})[row.state.code] = row
            case DeploymentRow():
                self._wanted[row.organization_id, row.model_code] += 1
            case InstanceRow():
                self._put_instance(row)
            case ForgottenRow() | ShareRow() | SettingsRow():
                pass  # looked up by id

    def _drop(self, row: RoutingRow) -> None:
        del self._rows[aggregate_of(row), row.id]
        match row:
            case KeyRow():
                for secret in _secrets(row):
                    self._keys.pop(secret, None)
            case OrganizationRow():
                if self._slugs.get(row.slug) == row.id:
                    del self._slugs[row.slug]
            case OfferingRow():
                _remove(self._offerings, row.organization_id, row.state.code)
            case DeploymentRow():
                self._want_less((row.organization_id, row.model_code))
            case InstanceRow():
                self._drop_instance(row)
            case ForgottenRow() | ShareRow() | SettingsRow():
                pass

    def _put_instance(self, row: InstanceRow) -> None:
        place = (row.organization_id, _model_code(row))
        self._wanted[place] += 1
        if missing := row.state.activation.missing:
            self._waiting.setdefault(place, {})[row.id] = missing
        worker = _worker(row)
        if worker is not None:
            self._workers.setdefault(place[0], {}).setdefault(place[1], {})[row.id] = worker

    def _drop_instance(self, row: InstanceRow) -> None:
        place = (row.organization_id, _model_code(row))
        self._want_less(place)
        _remove(self._waiting, place, row.id)
        models = self._workers.get(place[0], {})
        _remove(models, place[1], row.id)
        if not models:
            self._workers.pop(row.organization_id, None)

    def _want_less(self, place: tuple[str, str]) -> None:
        self._wanted[place] -= 1
        if not self._wanted[place]:
            del self._wanted[place]


def encode_snapshot(snapshot: RoutingSnapshot) -> Iterator[bytes]:
    """One line of JSON a row, so that an operator can read it; in pieces, so that a thread at it holds up nobody."""
    head = _Head(
        schema=_fingerprint(), position=snapshot.position, current_at=snapshot.current_at, rows=len(snapshot.rows)
    )
    yield msgspec.json.encode(head) + b"\n"
    for start in range(0, len(snapshot.rows), PIECE_ROWS):
        yield _encoder.encode_lines(snapshot.rows[start : start + PIECE_ROWS])


def decode_snapshot(data: bytes) -> RoutingSnapshot:
    """What `encode_snapshot` wrote.

    Raises:
        ValueError: damaged, or of another schema; read the log instead.
    """
    first, _, rest = data.partition(b"\n")
    head = msgspec.json.decode(first, type=_Head)
    if head.schema != _fingerprint():
        raise ValueError("the routing snapshot was written with other fields than this program's")
    rows = _decoder.decode_lines(rest)
    if len(rows) != head.rows:
        raise ValueError(f"the routing snapshot is truncated: {len(rows)} of {head.rows} rows")
    return RoutingSnapshot(position=head.position, current_at=head.current_at, rows=tuple(rows))


def table_from(snapshot: RoutingSnapshot) -> RoutingTable:
    return RoutingTable(snapshot.rows, position=snapshot.position)


@cache
def _fingerprint() -> str:
    """Changes with any field of a row, so that a snapshot from before such a change is not half understood."""
    return fingerprint(RoutingRow)


def _secrets(row: KeyRow) -> Sequence[str]:
    """The hashes that find a key: of its secret, and of the one before."""
    return [secret for secret in (row.state.key_sha256, row.state.previous_sha256) if secret]


@lru_cache(maxsize=SCOPES_SHARED)
def _compiled(scope: KeyScope) -> CompiledScope:
    """Of keys with the same scope, which most are, one is kept."""
    return compiled(scope)


def _worker(row: InstanceRow) -> Worker | None:
    request, state = row.state.request, row.state
    if request is None or state.worker_id is None or not state.engine_url:
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
        missing=state.activation.missing,
    )


def _model_code(row: InstanceRow) -> str:
    return row.state.request.model_code if row.state.request else ""


def _remove(groups: dict[K, dict[M, V]], group: K, member: M) -> None:
    """Takes a member out of its group, and an empty group out altogether."""
    members = groups.get(group)
    if members is not None:
        members.pop(member, None)
        if not members:
            del groups[group]
