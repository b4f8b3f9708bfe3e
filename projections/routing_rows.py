"""What the gateway remembers of each aggregate, and how an event changes that; routing_table.py is made of it.

    (row before, event) ──next_row──> row after, or None: nothing left to remember

Each row is the domain's own fold, less what no request ever asks for (names, sealed invitations). The surprising rule:
who ended leaves nothing behind, so later events find nothing and change nothing; but a revoked key, a deleted
organisation and a forgotten person stay, so that their callers are told the truth, and no late event revives them.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from domain.api_key import API_KEY, ApiKey, ApiKeyIssued
from domain.deployment import DEPLOYMENT, DeploymentRefused, DeploymentRequested, DeploymentStopped
from domain.ids import PLATFORM, ApiKeyId, DeploymentId, InstanceId, OfferingId, OrganizationId, ShareId, UserId
from domain.instance import INSTANCE
from domain.instance_events import InstanceRequested
from domain.instance_state import ENDED, Instance
from domain.limits import UNLIMITED, OrganizationLimits
from domain.offering import OFFERING, Offering
from domain.organization import (
    ORGANIZATION,
    MemberAdded,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationLimitsChanged,
    OrganizationPlanChanged,
    OrganizationRenamed,
)
from domain.setting import SETTING, Settings, Value
from domain.share import SHARE, Share
from domain.upstream import Upstream, UpstreamActivated, UpstreamConnected, UpstreamDeactivated, UpstreamKeyReplaced
from domain.upstream import evolve as upstream_after
from domain.user import USER, UserForgotten
from domain.values import Plan
from projections.entry import Entry


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, tag=API_KEY.aggregate):
    """An API key as the gateway checks it, never the key itself; `state` as the domain folds it, without its name."""

    id: ApiKeyId
    organization_id: OrganizationId
    state: ApiKey


class OrganizationRow(msgspec.Struct, frozen=True, kw_only=True, tag=ORGANIZATION.aggregate):
    """A tenant: whose offerings its slug names, what its plan and limits let it call, whose keys its members' are."""

    id: OrganizationId
    slug: str = ""
    plan: Plan = "free"
    limits: OrganizationLimits = UNLIMITED
    deleted: bool = False
    members: frozenset[UserId] = frozenset()


class ForgottenRow(msgspec.Struct, frozen=True, kw_only=True, tag=USER.aggregate):
    """A person who was forgotten; of others there is no row."""

    id: UserId


class OfferingRow(msgspec.Struct, frozen=True, kw_only=True, tag=OFFERING.aggregate):
    """An offering that was not withdrawn."""

    id: OfferingId
    organization_id: OrganizationId
    published_at: datetime
    state: Offering


class ShareRow(msgspec.Struct, frozen=True, kw_only=True, tag=SHARE.aggregate):
    """What stands between a provider (`organization_id`) and a consumer about one offering."""

    id: ShareId
    organization_id: OrganizationId
    state: Share


class DeploymentRow(msgspec.Struct, frozen=True, kw_only=True, tag=DEPLOYMENT.aggregate):
    """A standing wish for a model, whether or not a worker answers for it yet.

    Attributes:
        upstream: somebody else's server that answers for it; None when machines do.
    """

    id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    requested_at: datetime
    upstream: Upstream | None = None


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True, tag=INSTANCE.aggregate):
    """An instance that has not ended, as the domain folds it."""

    id: InstanceId
    organization_id: OrganizationId
    requested_at: datetime
    state: Instance


class SettingsRow(msgspec.Struct, frozen=True, kw_only=True, tag=SETTING.aggregate):
    """The platform's own settings, as far as somebody set them; an organisation's are nothing to the gateway."""

    id: str
    values: Mapping[str, Value]


RoutingRow = (
    KeyRow | OrganizationRow | ForgottenRow | OfferingRow | ShareRow | DeploymentRow | InstanceRow | SettingsRow
)


def aggregate_of(row: RoutingRow) -> str:
    return str(row.__struct_config__.tag)


def next_row(before: RoutingRow | None, entry: Entry) -> RoutingRow | None:
    """The row after an event of one of AGGREGATES; the very same object when nothing changed."""
    after: RoutingRow | None = _NEXT[entry.envelope.aggregate](before, entry)
    return before if after == before else after


def _next_key(before: KeyRow | None, entry: Entry) -> KeyRow | None:
    envelope = entry.envelope
    if before is None:
        if not isinstance(entry.event, ApiKeyIssued):
            return None
        before = KeyRow(id=ApiKeyId(envelope.id), organization_id=envelope.organization, state=API_KEY.initial)
    return replace(before, state=replace(API_KEY.evolve(before.state, entry.event, envelope.at), name=""))


def _next_organization(before: OrganizationRow | None, entry: Entry) -> OrganizationRow | None:
    row = before or OrganizationRow(id=OrganizationId(entry.envelope.id))
    if row.deleted:
        return row
    match entry.event:
        case OrganizationCreated(slug=slug) | OrganizationRenamed(slug=slug):
            return replace(row, slug=slug)
        case OrganizationPlanChanged(plan=plan):
            return replace(row, plan=plan)
        case OrganizationLimitsChanged(limits=limits):
            return replace(row, limits=limits)
        case OrganizationDeleted():
            return replace(row, deleted=True, members=frozenset())
        case MemberAdded(user_id=user_id):
            return replace(row, members=row.members | {user_id})
        case MemberRemoved(user_id=user_id):
            return replace(row, members=row.members - {user_id})
        case _:
            return before


def _next_user(before: ForgottenRow | None, entry: Entry) -> ForgottenRow | None:
    return ForgottenRow(id=UserId(entry.envelope.id)) if isinstance(entry.event, UserForgotten) else before


def _next_offering(before: OfferingRow | None, entry: Entry) -> OfferingRow | None:
    envelope = entry.envelope
    row = before or OfferingRow(
        id=OfferingId(envelope.id),
        organization_id=envelope.organization,
        published_at=envelope.at,
        state=OFFERING.initial,
    )
    state = OFFERING.evolve(row.state, entry.event, envelope.at)
    return replace(row, state=state) if state.live else None


def _next_share(before: ShareRow | None, entry: Entry) -> ShareRow | None:
    envelope = entry.envelope
    row = before or ShareRow(id=ShareId(envelope.id), organization_id=envelope.organization, state=SHARE.initial)
    state = SHARE.evolve(row.state, entry.event, envelope.at)
    return replace(row, state=state) if state.consumer else before


def _next_deployment(before: DeploymentRow | None, entry: Entry) -> DeploymentRow | None:
    envelope, event = entry.envelope, entry.event
    if isinstance(event, DeploymentRefused | DeploymentStopped):
        return None
    if isinstance(event, DeploymentRequested | UpstreamConnected):
        before = DeploymentRow(
            id=DeploymentId(envelope.id),
            organization_id=envelope.organization,
            model_code=event.model_code,
            requested_at=envelope.at,
        )
    if before and isinstance(event, UpstreamConnected | UpstreamKeyReplaced | UpstreamActivated | UpstreamDeactivated):
        return replace(before, upstream=upstream_after(before.upstream, event))
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
    return None if state.status in ENDED else replace(before, state=state)


def _next_settings(before: SettingsRow | None, entry: Entry) -> SettingsRow | None:
    envelope = entry.envelope
    if envelope.organization != PLATFORM:
        return None
    row = before or SettingsRow(id=envelope.id, values={})
    return replace(row, values=SETTING.evolve(Settings(values=row.values), entry.event, envelope.at).values)


_NEXT: Mapping[str, Callable[[Any, Entry], Any]] = {
    API_KEY.aggregate: _next_key,
    ORGANIZATION.aggregate: _next_organization,
    USER.aggregate: _next_user,
    OFFERING.aggregate: _next_offering,
    SHARE.aggregate: _next_share,
    DEPLOYMENT.aggregate: _next_deployment,
    INSTANCE.aggregate: _next_instance,
    SETTING.aggregate: _next_settings,
}
AGGREGATES = tuple(_NEXT)
"""Events of other aggregates change nothing here."""
