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
from functools import lru_cache
from typing import TypeVar

import msgspec

from domain.activation import Flag
from domain.deployment import DEPLOYMENT
from domain.ids import PLATFORM, InstanceId, OfferingId, OrganizationId
from domain.instance import INSTANCE
from domain.key_scope import CompiledScope, KeyScope, compiled
from domain.limits import UNLIMITED, OrganizationLimits
from domain.setting import SETTING, Value, settings_id_of
from domain.share import SHARE, share_id_of
from domain.upstream import credential_id_of
from domain.values import Plan
from projections.entry import Entry
from projections.model_ids import ModelIds
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
from projections.routing_workers import Worker, foreign_worker, worker_of

K = TypeVar("K")
M = TypeVar("M")
V = TypeVar("V")

SCOPES_SHARED = 4096
"""Different scopes of which keys share one compiled form."""


class RoutingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table after the event at `position`.

    Attributes:
        current_at: UTC, when the log last said that nothing was missing; the table's age is counted from there.
    """

    position: int
    current_at: datetime
    rows: tuple[RoutingRow, ...]


class KnownKey(msgspec.Struct, frozen=True):
    """A key's row, and its scope ready to be asked."""

    row: KeyRow
    scope: CompiledScope


class RoutingTable:
    """The fold. Not thread-safe; one writer, and readers on the same event loop.

    Args:
        position: of the last event that `rows` know of; 0 with no rows is the beginning of the log.
    """

    def __init__(self, rows: Iterable[RoutingRow] = (), *, position: int = 0) -> None:
        self.position = position
        self._rows: dict[tuple[str, str], RoutingRow] = {}
        self._keys: dict[str, KnownKey] = {}
        self._organizations: dict[str, OrganizationRow] = {}
        self._forgotten: set[str] = set()
        self._slugs: dict[str, OrganizationId] = {}
        self._offerings: dict[OrganizationId, dict[str, OfferingRow]] = {}
        self._wanted: Counter[tuple[str, str]] = Counter()
        self.model_ids = ModelIds()
        self._waiting: dict[tuple[str, str], dict[InstanceId, tuple[Flag, ...]]] = {}
        self._workers: dict[str, dict[str, dict[InstanceId, Worker]]] = {}
        self._credentials: dict[str, OrganizationId] = {}
        self._ready: dict[tuple[str, str], tuple[Worker, ...]] = {}
        self._spend_limits = 0
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
        organization, owner = self._organizations.get(key.organization_id), key.state.owner
        if organization is None or organization.deleted:
            return True
        return owner is not None and (owner not in organization.members or owner in self._forgotten)

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
        known = self._organizations.get(organization)
        return known.plan if known else "free"

    def limits_of(self, organization: OrganizationId) -> OrganizationLimits:
        known = self._organizations.get(organization)
        return known.limits if known else UNLIMITED

    def candidates(self, organization: str, model_code: str) -> Sequence[Worker]:
        """Every registered worker of the organisation's instances of this model, whatever its status."""
        return tuple(self._workers.get(organization, {}).get(model_code, {}).values())

    def ready(self, organization: str, model_code: str) -> tuple[Worker, ...]:
        """Those of the candidates that take requests; the very same tuple until one of the candidates changes."""
        place = (organization, model_code)
        known = self._ready.get(place)
        if known is None:
            known = tuple(worker for worker in self.candidates(organization, model_code) if worker.takes_requests)
            if known:  # names that somebody makes up leave nothing behind
                self._ready[place] = known
        return known

    def knows(self, organization: str, model_code: str) -> bool:
        """True when the organisation wants this model: a standing deployment, or an instance that has not ended."""
        return self._wanted[organization, model_code] > 0

    def missing_flags(self, organization: str, model_code: str) -> tuple[Flag, ...]:
        """Activation flags that instances of this model wait for."""
        waiting = self._waiting.get((organization, model_code), {})
        return tuple(dict.fromkeys(flag for flags in waiting.values() for flag in flags))

    def has_instance(self, instance_id: str) -> bool:
        """A foreign server counts as one, by its deployment's id."""
        return (INSTANCE.aggregate, instance_id) in self._rows or (DEPLOYMENT.aggregate, instance_id) in self._rows

    @property
    def credentials(self) -> Mapping[str, OrganizationId]:
        """Id -> whose it is, of every key that a standing upstream wants."""
        return self._credentials

    def live_since(self, organization: str, model_code: str) -> datetime | None:
        """When the eldest of the workers that take requests was requested; None when there is none."""
        workers = self._workers.get(organization, {}).get(model_code, {}).values()
        return min((worker.requested_at for worker in workers if worker.takes_requests), default=None)

    def models_of(self, organization: str) -> Sequence[str]:
        """Codes of the models that the organisation has registered workers of."""
        return tuple(self._workers.get(organization, {}))

    @property
    def limits_spending(self) -> bool:
        """Whether any key or organisation has a limit of spending at all."""
        return self._spend_limits > 0

    @property
    def platform_settings(self) -> Mapping[str, Value]:
        """Those that a platform administrator set."""
        row = self.row(SETTING.aggregate, settings_id_of(PLATFORM))
        return row.values if isinstance(row, SettingsRow) else {}

    def _put(self, row: RoutingRow) -> None:
        self._rows[aggregate_of(row), row.id] = row
        match row:
            case KeyRow():
                self._spend_limits += row.state.scope.spend_limit_eur_micros is not None
                known = KnownKey(row, _compiled(row.state.scope))
                self._keys.update((secret, known) for secret in _secrets(row))
            case OrganizationRow():
                self._spend_limits += row.limits.spend_limit_eur_micros_per_month is not None
                self._organizations[row.id] = row
                if row.slug and not row.deleted:
                    self._slugs[row.slug] = row.id
            case OfferingRow():
                self._offerings.setdefault(row.organization_id, {})[row.state.code] = row
            case DeploymentRow():
                self._put_deployment(row)
            case InstanceRow():
                self._put_instance(row)
            case ForgottenRow():
                self._forgotten.add(row.id)
            case ShareRow() | SettingsRow():
                pass  # looked up by id

    def _drop(self, row: RoutingRow) -> None:
        del self._rows[aggregate_of(row), row.id]
        match row:
            case KeyRow():
                self._spend_limits -= row.state.scope.spend_limit_eur_micros is not None
                for secret in _secrets(row):
                    self._keys.pop(secret, None)
            case OrganizationRow():
                self._spend_limits -= row.limits.spend_limit_eur_micros_per_month is not None
                del self._organizations[row.id]
                if self._slugs.get(row.slug) == row.id:
                    del self._slugs[row.slug]
            case OfferingRow():
                _remove(self._offerings, row.organization_id, row.state.code)
            case DeploymentRow():
                self._drop_deployment(row)
            case InstanceRow():
                self._drop_instance(row)
            case ForgottenRow():
                self._forgotten.discard(row.id)
            case ShareRow() | SettingsRow():
                pass

    def _put_deployment(self, row: DeploymentRow) -> None:
        place = (row.organization_id, row.model_code)
        self._want(place)
        if row.upstream is not None:
            worker = foreign_worker(row, row.upstream)
            self._put_worker(place, worker.instance_id, worker, worker.missing)
            if worker.credential_id:
                self._credentials[worker.credential_id] = row.organization_id

    def _drop_deployment(self, row: DeploymentRow) -> None:
        place = (row.organization_id, row.model_code)
        self._want_less(place)
        if row.upstream is not None:
            self._drop_worker(place, InstanceId(row.id))
            self._credentials.pop(credential_id_of(row.id, row.upstream.key_digest), None)

    def _put_instance(self, row: InstanceRow) -> None:
        place = (row.organization_id, _model_code(row))
        self._want(place)
        self._put_worker(place, row.id, worker_of(row), row.state.activation.missing)

    def _drop_instance(self, row: InstanceRow) -> None:
        place = (row.organization_id, _model_code(row))
        self._want_less(place)
        self._drop_worker(place, row.id)

    def _put_worker(
        self, place: tuple[str, str], instance_id: InstanceId, worker: Worker | None, missing: tuple[Flag, ...]
    ) -> None:
        """`worker` None: not registered yet."""
        if missing:
            self._waiting.setdefault(place, {})[instance_id] = missing
        if worker is not None:
            self._workers.setdefault(place[0], {}).setdefault(place[1], {})[instance_id] = worker
            self._ready.pop(place, None)

    def _drop_worker(self, place: tuple[str, str], instance_id: InstanceId) -> None:
        _remove(self._waiting, place, instance_id)
        models = self._workers.get(place[0], {})
        _remove(models, place[1], instance_id)
        self._ready.pop(place, None)
        if not models:
            self._workers.pop(place[0], None)

    def _want(self, place: tuple[str, str]) -> None:
        self._wanted[place] += 1
        self.model_ids.add(*place)

    def _want_less(self, place: tuple[str, str]) -> None:
        self._wanted[place] -= 1
        if not self._wanted[place]:
            del self._wanted[place]
            self.model_ids.remove(*place)


def table_from(snapshot: RoutingSnapshot) -> RoutingTable:
    return RoutingTable(snapshot.rows, position=snapshot.position)


def _secrets(row: KeyRow) -> Sequence[str]:
    """The hashes that find a key: of its secret, and of the one before."""
    return [secret for secret in (row.state.key_sha256, row.state.previous_sha256) if secret]


@lru_cache(maxsize=SCOPES_SHARED)
def _compiled(scope: KeyScope) -> CompiledScope:
    """Of keys with the same scope, which most are, one is kept."""
    return compiled(scope)


def _model_code(row: InstanceRow) -> str:
    return row.state.request.model_code if row.state.request else ""


def _remove(groups: dict[K, dict[M, V]], group: K, member: M) -> None:
    """Takes a member out of its group, and an empty group out altogether."""
    members = groups.get(group)
    if members is not None:
        members.pop(member, None)
        if not members:
            del groups[group]
