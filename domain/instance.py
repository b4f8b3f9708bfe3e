"""The laws of an instance: a rented server that runs one model. States and events are in instance_state.py.

    decide ──┬── about the instance itself: here
             ├── about its server and volumes: instance_server.py
             └── about its worker: instance_worker.py

Commands are intents (RequestInstance, RequestTermination) or news from the world (Record...). News that repeats what is
known yields no event, so every reporter may speak as often as it likes. The surprising rule: a failed instance can
still own a billed server, so termination stays possible from every state that has not ended.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from domain.decider import Decider, Rejected
from domain.instance_commands import (
    ActivateInstance,
    ArchiveInstance,
    DeactivateInstance,
    InstanceCommand,
    RecordOverdue,
    RecordServerReinstalled,
    RequestInstance,
    RequestReinstall,
    RequestTermination,
    ServerCommand,
    StopInstance,
    WishCommand,
    WorkerCommand,
)
from domain.instance_events import (
    DrainStarted,
    InstanceActivated,
    InstanceArchived,
    InstanceDeactivated,
    InstanceEvent,
    InstanceRequested,
    InstanceTerminated,
    ReinstallRequested,
    ServerReinstalled,
    TerminationOverdue,
    TerminationRequested,
)
from domain.instance_evolve import evolve
from domain.instance_server import decide_server
from domain.instance_state import ENDED, Instance
from domain.instance_worker import decide_worker

OVERDUE_S = 600
"""Ending that lasts longer is worth a look: a provider deletes within a minute or two."""

Events = Sequence[InstanceEvent]


def decide(state: Instance, command: InstanceCommand, at: datetime) -> Events:
    if state.request is None and not isinstance(command, RequestInstance):
        raise Rejected("instance_not_found", "There is no instance with this id.")
    if isinstance(command, ServerCommand):
        return decide_server(state, command, at)
    if isinstance(command, WorkerCommand):
        return decide_worker(state, command, at)
    return _decide_wish(state, command, at)


def _decide_wish(state: Instance, command: WishCommand, at: datetime) -> Events:
    match command:
        case RequestInstance():
            return _request(state, command)
        case ActivateInstance():
            return [] if state.activation.is_set(command.flag) else [InstanceActivated(flag=command.flag)]
        case DeactivateInstance():
            return [InstanceDeactivated(flag=command.flag)] if state.activation.is_set(command.flag) else []
        case StopInstance():
            return _stop(state, command)
        case RequestTermination():
            return _terminate(state, command.reason)
        case RecordOverdue():
            return _overdue(state, at)
        case ArchiveInstance():
            return _archive(state)
        case RequestReinstall():
            return _reinstall(state)
        case RecordServerReinstalled():
            return [ServerReinstalled()] if state.reinstall_wanted else []
        case _:
            assert_never(command)


def _request(state: Instance, command: RequestInstance) -> Events:
    if state.request is not None:
        return []
    return [InstanceRequested(**{f: getattr(command, f) for f in InstanceRequested.__struct_fields__})]


def _stop(state: Instance, command: StopInstance) -> Events:
    if state.status == "ready":
        return [DrainStarted(reason=command.reason, deadline_s=command.drain_deadline_s)]
    if state.status == "draining":
        return []
    return _terminate(state, command.reason)


def _terminate(state: Instance, reason: str) -> Events:
    """At once where there certainly is no server: before the first intent, between two attempts, after a refusal."""
    if state.status in {*ENDED, "terminating"}:
        return []
    requested = TerminationRequested(reason=reason)
    if not state.create_intended or (state.create_failed and not state.provider_instance_id):
        return [requested, InstanceTerminated(reason="no_provider_resource")]
    return [requested]


def _overdue(state: Instance, at: datetime) -> Events:
    if state.status != "terminating" or state.overdue or state.terminating_at is None:
        return []
    lasted = at - state.terminating_at
    return [TerminationOverdue(after_s=OVERDUE_S)] if lasted >= timedelta(seconds=OVERDUE_S) else []


def _archive(state: Instance) -> Events:
    if state.status == "archived":
        return []
    if state.status != "terminated":
        raise Rejected("instance_not_terminated", "Only a terminated instance can be archived; stop it first.")
    return [InstanceArchived()]


def _reinstall(state: Instance) -> Events:
    if state.status == "terminating":
        raise Rejected("instance_terminating", "This instance is terminating.")
    if state.status in ENDED:
        raise Rejected("instance_terminated", "This instance has ended; deploy a new one.")
    if not state.ip_address or state.discarding:
        raise Rejected("instance_unreachable", "This instance has no server with an address now.")
    return [] if state.reinstall_wanted else [ReinstallRequested()]


INSTANCE: Decider[InstanceCommand, InstanceEvent, Instance] = Decider(
    aggregate="instance",
    events=InstanceEvent.__args__,
    initial=Instance(),
    state_type=Instance,
    evolve=evolve,
    decide=decide,
)
