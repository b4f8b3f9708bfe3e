"""What happens after what: read this first.

    event ──> reaction      durable: each event reaches it, as often as it takes
    period ──> duty         a promise kept by looking; an event only makes it come true sooner

Every reaction is level-triggered: the event says which aggregate to look at, the loaded truth says what to do. That is
why one waking may stand for many events, and why doubled, late and lost wakings are harmless.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from domain.deployment import DEPLOYMENT, DeploymentRequested, DeploymentStopped
from domain.instance import INSTANCE
from domain.organization import ORGANIZATION, MemberInvited, OrganizationDeleted
from domain.provider_account import PROVIDER_ACCOUNT
from domain.provider_account_events import CatalogueSyncRequested, ReconciliationRequested
from domain.upstream import UpstreamKeyReplaced
from domain.user import USER, PasswordResetRequested, UserForgotten
from handlers import (
    advance_instance,
    destroy_upstream_keys_on_upstream_changed,
    erase_person_on_user_forgotten,
    keep_audit_log_sealed,
    keep_catalogue_fresh,
    keep_hosts_within_slots,
    keep_instances_advancing,
    keep_servers_matching_records,
    keep_upstream_keys_matching_deployments,
    keep_workers_watched,
    reconcile_account_on_reconciliation_requested,
    request_instances_on_deployment_requested,
    send_invitation_on_member_invited,
    send_reset_link_on_password_reset_requested,
    stop_deployments_on_organization_deleted,
    stop_instances_on_deployment_stopped,
    sync_catalogue_on_catalogue_sync_requested,
)
from handlers.outcome import Outcome
from handlers.ports import Doors, Trigger, Waking


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """One durable consumer.

    Attributes:
        name: of the function and of its consumer on the stream; it never changes, or history would be told again.
        aggregate: whose events wake it.
        events: the names of those events.
        react: does what is needed for the trigger's aggregate; may be told the same thing any number of times.
    """

    name: str
    aggregate: str
    events: frozenset[str]
    react: Callable[[Trigger, Doors], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Duty:
    """One standing promise, kept by one process at a time; the first look is at start.

    `perform` acts, and names the aggregates that some reaction shall look at now.
    """

    name: str
    period_s: float
    perform: Callable[[Doors], Awaitable[Sequence[Waking]]]


REACTIONS: tuple[Reaction, ...] = (
    Reaction(
        name=request_instances_on_deployment_requested.NAME,
        aggregate=DEPLOYMENT.aggregate,
        events=frozenset({DeploymentRequested.__name__}),
        react=request_instances_on_deployment_requested.request_instances_on_deployment_requested,
    ),
    Reaction(
        name=stop_instances_on_deployment_stopped.NAME,
        aggregate=DEPLOYMENT.aggregate,
        events=frozenset({DeploymentStopped.__name__}),
        react=stop_instances_on_deployment_stopped.stop_instances_on_deployment_stopped,
    ),
    Reaction(
        name=destroy_upstream_keys_on_upstream_changed.NAME,
        aggregate=DEPLOYMENT.aggregate,
        events=frozenset({UpstreamKeyReplaced.__name__, DeploymentStopped.__name__}),
        react=destroy_upstream_keys_on_upstream_changed.destroy_upstream_keys_on_upstream_changed,
    ),
    Reaction(
        name=stop_deployments_on_organization_deleted.NAME,
        aggregate=ORGANIZATION.aggregate,
        events=frozenset({OrganizationDeleted.__name__}),
        react=stop_deployments_on_organization_deleted.stop_deployments_on_organization_deleted,
    ),
    Reaction(
        name=advance_instance.NAME,
        aggregate=INSTANCE.aggregate,
        events=frozenset(event.__name__ for event in INSTANCE.events),
        react=advance_instance.advance_instance,
    ),
    Reaction(
        name=send_invitation_on_member_invited.NAME,
        aggregate=ORGANIZATION.aggregate,
        events=frozenset({MemberInvited.__name__}),
        react=send_invitation_on_member_invited.send_invitation_on_member_invited,
    ),
    Reaction(
        name=send_reset_link_on_password_reset_requested.NAME,
        aggregate=USER.aggregate,
        events=frozenset({PasswordResetRequested.__name__}),
        react=send_reset_link_on_password_reset_requested.send_reset_link_on_password_reset_requested,
    ),
    Reaction(
        name=erase_person_on_user_forgotten.NAME,
        aggregate=USER.aggregate,
        events=frozenset({UserForgotten.__name__}),
        react=erase_person_on_user_forgotten.erase_person_on_user_forgotten,
    ),
    Reaction(
        name=reconcile_account_on_reconciliation_requested.NAME,
        aggregate=PROVIDER_ACCOUNT.aggregate,
        events=frozenset({ReconciliationRequested.__name__}),
        react=reconcile_account_on_reconciliation_requested.reconcile_account_on_reconciliation_requested,
    ),
    Reaction(
        name=sync_catalogue_on_catalogue_sync_requested.NAME,
        aggregate=PROVIDER_ACCOUNT.aggregate,
        events=frozenset({CatalogueSyncRequested.__name__}),
        react=sync_catalogue_on_catalogue_sync_requested.sync_catalogue_on_catalogue_sync_requested,
    ),
)


def duties() -> tuple[Duty, ...]:
    """A fresh set for one process: a duty may remember what it saw last time."""
    return (
        Duty(
            name="keep_instances_advancing",
            period_s=keep_instances_advancing.PERIOD_S,
            perform=keep_instances_advancing.keep_instances_advancing,
        ),
        Duty(
            name="keep_servers_matching_records",
            period_s=keep_servers_matching_records.PERIOD_S,
            perform=keep_servers_matching_records.keep_servers_matching_records,
        ),
        Duty(
            name="keep_workers_watched",
            period_s=keep_workers_watched.PERIOD_S,
            perform=keep_workers_watched.WorkerWatch(),
        ),
        Duty(
            name="keep_catalogue_fresh",
            period_s=keep_catalogue_fresh.PERIOD_S,
            perform=keep_catalogue_fresh.keep_catalogue_fresh,
        ),
        Duty(
            name="keep_hosts_within_slots",
            period_s=keep_hosts_within_slots.PERIOD_S,
            perform=keep_hosts_within_slots.keep_hosts_within_slots,
        ),
        Duty(
            name="keep_upstream_keys_matching_deployments",
            period_s=keep_upstream_keys_matching_deployments.PERIOD_S,
            perform=keep_upstream_keys_matching_deployments.keep_upstream_keys_matching_deployments,
        ),
        Duty(
            name="keep_audit_log_sealed",
            period_s=keep_audit_log_sealed.PERIOD_S,
            perform=keep_audit_log_sealed.keep_audit_log_sealed,
        ),
    )
