"""What an instance needs done next: a pure to-do list that the handler `advance_instance` works off.

    state + now -> one Step -> the handler does it through a port, records the outcome -> new state -> next Step

Any step may be interrupted, doubled or late; the next waking starts from the state again. Waiting is a step too, with
the moment at which to look again, so that nothing waits for ever.
"""

from datetime import datetime, timedelta

import msgspec

from domain.instance_state import COMING_UP, Instance

GONE_RECHECK_S = 2
"""Pause between two looks at a server that is being deleted."""


class RecordIntent(msgspec.Struct, frozen=True):
    """Write down that a server will be created, before the provider is asked."""


class CreateServer(msgspec.Struct, frozen=True):
    """Find the intended server by its name and tags; create it only when it is certainly absent."""

    server_name: str


class StartServer(msgspec.Struct, frozen=True):
    provider_instance_id: str


class FindAddress(msgspec.Struct, frozen=True):
    provider_instance_id: str


class ReinstallServer(msgspec.Struct, frozen=True):
    """Make the server as it was when new; doing it twice is fine until it is recorded."""

    provider_instance_id: str


class GiveUpStartup(msgspec.Struct, frozen=True):
    """The worker did not become ready in time."""

    after_s: int


class Terminate(msgspec.Struct, frozen=True):
    """The drain is over."""

    reason: str


class DeleteServer(msgspec.Struct, frozen=True):
    """Delete the server, by id or (when its creation's outcome is unknown) by name, and look whether it is gone."""

    provider_instance_id: str
    server_name: str


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do before `until`; None when only an event can change that."""

    until: datetime | None


Step = (
    RecordIntent
    | CreateServer
    | StartServer
    | FindAddress
    | ReinstallServer
    | GiveUpStartup
    | Terminate
    | DeleteServer
    | Wait
)


def next_step(state: Instance, now: datetime) -> Step:
    match state.status:
        case "provisioning":
            return _provisioning(state)
        case status if status in COMING_UP:
            return _coming_up(state, now)
        case "draining":
            return _draining(state, now)
        case "terminating":
            return _terminating(state, now)
        case _:
            return Wait(until=None)


def _provisioning(state: Instance) -> Step:
    if not state.create_intended:
        return RecordIntent() if state.activation.operational else Wait(until=None)
    if not state.provider_instance_id:
        return CreateServer(server_name=state.server_name)
    if not state.server_started:
        return StartServer(provider_instance_id=state.provider_instance_id)
    return FindAddress(provider_instance_id=state.provider_instance_id)


def _coming_up(state: Instance, now: datetime) -> Step:
    if state.reinstall_wanted:
        return ReinstallServer(provider_instance_id=state.provider_instance_id)
    if state.request is None or state.boot_clock_started_at is None:
        return Wait(until=None)
    limit_s = state.request.startup_timeout_s
    deadline = state.boot_clock_started_at + timedelta(seconds=limit_s)
    return GiveUpStartup(after_s=limit_s) if now >= deadline else Wait(until=deadline)


def _draining(state: Instance, now: datetime) -> Step:
    if state.drain_started_at is None:
        return Wait(until=None)
    deadline = state.drain_started_at + timedelta(seconds=state.drain_deadline_s)
    if state.drained or now >= deadline:
        return Terminate(reason=state.drain_reason)
    return Wait(until=deadline)


def _terminating(state: Instance, now: datetime) -> Step:
    if state.seen_gone_at is not None:
        again = state.seen_gone_at + timedelta(seconds=GONE_RECHECK_S)
        if now < again:
            return Wait(until=again)
    return DeleteServer(provider_instance_id=state.provider_instance_id, server_name=state.server_name)
