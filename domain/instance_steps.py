"""What an instance needs done next: a pure to-do list that the handler `advance_instance` works off.

    state + abilities + now -> one Step -> the handler does it through a port, records the outcome -> new state -> ...

Any step may be interrupted, doubled or late; the next waking starts from the state again. Waiting is a step too, with
the moment at which to look again, so that nothing waits for ever: every state in which money may be at stake has a step
or a deadline. The surprising rule: a step that a provider does not have is not taken, and leaves no event.
"""

from datetime import datetime, timedelta

import msgspec

from domain.instance import OVERDUE_S
from domain.instance_state import COMING_UP, Instance

GONE_RECHECK_S = 2
"""Pause between two looks at a server that is being deleted."""
ATTEMPT_LIMIT_S = 900
"""From an attempt's intent to its address; a slow provider needs about five minutes (SPEC 2.5: 150 x 2 s to run)."""
REPLACE_AFTER_S = 300
"""A lost worker gets this long to come back: an engine that crashed has loaded its model again by then."""
MAX_REPLACEMENTS = 3
"""Servers given up in a row without having been ready; a fourth would most likely fare no better."""
FAILED_KEPT_S = 1_800
"""A failed instance can be looked at this long; then its server must not cost any more."""
SSH_FALLBACK_S = 300
"""A machine that installs itself and has not reported a phase by now is installed by SSH."""
SSH_LIMIT_S = 300
"""A machine that is installed by SSH and cannot be reached by now has failed (SPEC 2.5)."""
BOOTSTRAP_RETRY_S = 300
"""SPEC 2.5: five minutes after an installation failed it is tried again."""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance's provider can do, as far as the next step depends on it; see handlers/cloud_ports.py."""

    has_volumes: bool = False
    has_ports: bool = False
    has_ssh: bool = False
    installs_itself: bool = True
    list_lag_s: float = 0.0


class RecordIntent(msgspec.Struct, frozen=True):
    """Write down that a server will be created, before the provider is asked."""


class CreateServer(msgspec.Struct, frozen=True):
    """Find the intended server by its name; create it only when it is certainly absent."""

    server_name: str


class ListVolumes(msgspec.Struct, frozen=True):
    """Write down every volume of the server, so that each of them can be deleted."""

    provider_instance_id: str


class ResizeBootVolume(msgspec.Struct, frozen=True):
    """Before power-on, when nothing has mounted it."""

    provider_volume_id: str
    size_gb: int


class StartServer(msgspec.Struct, frozen=True):
    provider_instance_id: str


class FindAddress(msgspec.Struct, frozen=True):
    provider_instance_id: str


class OpenPorts(msgspec.Struct, frozen=True):
    provider_instance_id: str


class InstallBySsh(msgspec.Struct, frozen=True):
    """Reach the host, then run the bootstrap on it; running it again continues it."""

    ip_address: str


class ReinstallServer(msgspec.Struct, frozen=True):
    """Make the server as it was when new; doing it twice is fine until it is recorded."""

    provider_instance_id: str


class GiveUpAttempt(msgspec.Struct, frozen=True):
    """The server did not come up in time."""

    after_s: int


class GiveUpStartup(msgspec.Struct, frozen=True):
    """The worker did not become ready in time."""

    after_s: int
    code: str = "STARTUP_TIMEOUT"


class ReplaceServer(msgspec.Struct, frozen=True):
    """The worker was lost and did not come back."""

    after_s: int


class Terminate(msgspec.Struct, frozen=True):
    """The drain is over, or a failure was kept long enough."""

    reason: str


class MarkOverdue(msgspec.Struct, frozen=True):
    """Ending takes too long: say so, once."""


class DeleteServer(msgspec.Struct, frozen=True):
    """Delete the server, by id or (when its creation's outcome is unknown) by name, and look whether it is gone."""

    provider_instance_id: str
    server_name: str


class DeleteVolume(msgspec.Struct, frozen=True):
    """Delete a volume of a server that is gone, and look whether it is gone too."""

    provider_volume_id: str


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do before `until`; None when only an event can change that."""

    until: datetime | None


CloudStep = (
    CreateServer
    | ListVolumes
    | ResizeBootVolume
    | StartServer
    | FindAddress
    | OpenPorts
    | ReinstallServer
    | DeleteServer
    | DeleteVolume
)
"""Steps that ask a provider."""
DomainStep = GiveUpAttempt | GiveUpStartup | ReplaceServer | Terminate | MarkOverdue
"""Steps that need nobody else: they only have to be decided."""
Step = RecordIntent | CloudStep | DomainStep | InstallBySsh | Wait

NONE = Abilities()


def next_step(state: Instance, now: datetime, abilities: Abilities = NONE) -> Step:
    match state.status:
        case "provisioning":
            return _provisioning(state, now, abilities)
        case status if status in COMING_UP:
            return _coming_up(state, now, abilities)
        case "draining":
            return _draining(state, now)
        case "terminating":
            return _terminating(state, now, abilities)
        case "provisioning_failed" | "startup_failed":
            return _failed(state, now)
        case _:
            return Wait(until=None)


def deadline_of(state: Instance) -> datetime | None:
    """When waiting for the world must end, so that no pause may last longer."""
    match state.status:
        case "provisioning" if state.intended_at and not state.discarding:
            return _after(state.intended_at, ATTEMPT_LIMIT_S)
        case status if status in COMING_UP and state.boot_clock_started_at and state.request:
            return _after(state.boot_clock_started_at, state.request.startup_timeout_s)
        case "terminating" if state.terminating_at and not state.overdue:
            return _after(state.terminating_at, OVERDUE_S)
        case _:
            return None


def _after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _provisioning(state: Instance, now: datetime, abilities: Abilities) -> Step:
    if state.discarding:
        return _clearing(state, now, abilities)
    if not state.create_intended:
        return RecordIntent() if state.activation.operational else Wait(until=None)
    if state.intended_at and now >= _after(state.intended_at, ATTEMPT_LIMIT_S):
        return GiveUpAttempt(after_s=ATTEMPT_LIMIT_S)
    if not state.provider_instance_id:
        return CreateServer(server_name=state.server_name)
    if abilities.has_volumes and not state.volumes_listed:
        return ListVolumes(provider_instance_id=state.provider_instance_id)
    if state.server_started:
        return FindAddress(provider_instance_id=state.provider_instance_id)
    wanted_gb = state.request.disk_gb if state.request else 0
    boot = state.boot_volume
    if abilities.has_volumes and boot and boot.size_gb < wanted_gb and not state.resize_failed:
        return ResizeBootVolume(provider_volume_id=boot.provider_volume_id, size_gb=wanted_gb)
    return StartServer(provider_instance_id=state.provider_instance_id)


def _coming_up(state: Instance, now: datetime, abilities: Abilities) -> Step:
    if state.request is None or state.boot_clock_started_at is None:
        return Wait(until=None)
    if state.status == "unavailable":
        return _unavailable(state, state.boot_clock_started_at, now)
    limit_s = state.request.startup_timeout_s
    deadline = _after(state.boot_clock_started_at, limit_s)
    if now >= deadline:
        return GiveUpStartup(after_s=limit_s)
    if state.reinstall_wanted:
        return ReinstallServer(provider_instance_id=state.provider_instance_id)
    if abilities.has_ports and not state.ports_open:
        return OpenPorts(provider_instance_id=state.provider_instance_id)
    install_at = _install_at(state, state.boot_clock_started_at, abilities)
    if install_at is None:
        return Wait(until=deadline)
    if now < install_at:
        return Wait(until=min(deadline, install_at))
    unreachable = state.status == "booting" and now >= _after(install_at, SSH_LIMIT_S)
    if unreachable and not abilities.installs_itself:
        return GiveUpStartup(after_s=SSH_LIMIT_S, code="SSH_NOT_ACCESSIBLE")
    return InstallBySsh(ip_address=state.ip_address)


def _install_at(state: Instance, booted_at: datetime, abilities: Abilities) -> datetime | None:
    """When the host is to be installed by SSH; None while that is not our part."""
    if not abilities.has_ssh or state.worker_id or state.status not in {"booting", "installing"}:
        return None
    if state.bootstrap_failed_at:
        return _after(state.bootstrap_failed_at, BOOTSTRAP_RETRY_S)
    if state.ssh_reached_at:  # begun by us; whoever looks now is not in the middle of it, so it was cut off
        return state.ssh_reached_at
    if not abilities.installs_itself:
        return booted_at
    return None if state.bootstrap_phase else _after(booted_at, SSH_FALLBACK_S)


def _unavailable(state: Instance, lost_at: datetime, now: datetime) -> Step:
    deadline = _after(lost_at, REPLACE_AFTER_S)
    if now < deadline:
        return Wait(until=deadline)
    if state.replacements >= MAX_REPLACEMENTS:
        return GiveUpStartup(after_s=REPLACE_AFTER_S, code="RECOVERY_TIMEOUT")
    return ReplaceServer(after_s=REPLACE_AFTER_S)


def _draining(state: Instance, now: datetime) -> Step:
    if state.drain_started_at is None:
        return Wait(until=None)
    deadline = _after(state.drain_started_at, state.drain_deadline_s)
    if state.drained or now >= deadline:
        return Terminate(reason=state.drain_reason)
    return Wait(until=deadline)


def _failed(state: Instance, now: datetime) -> Step:
    """Also where no server is left: what failed does not stay among the living for ever."""
    deadline = _after(state.failed_at, FAILED_KEPT_S) if state.failed_at else now
    return Terminate(reason=f"{state.status}_cleanup") if now >= deadline else Wait(until=deadline)


def _terminating(state: Instance, now: datetime, abilities: Abilities) -> Step:
    if state.terminating_at and not state.overdue and now >= _after(state.terminating_at, OVERDUE_S):
        return MarkOverdue()
    return _clearing(state, now, abilities)


def _clearing(state: Instance, now: datetime, abilities: Abilities) -> Step:
    """First the server, whose volumes must be known before it goes; then each volume."""
    if state.server_gone and state.volumes_to_delete:
        return DeleteVolume(provider_volume_id=state.volumes_to_delete[0])
    if state.seen_gone_at is not None and not state.server_gone:
        again = _after(state.seen_gone_at, max(GONE_RECHECK_S, abilities.list_lag_s))
        if now < again:
            return Wait(until=again)
    elif abilities.has_volumes and state.provider_instance_id and not (state.volumes_listed or state.server_gone):
        return ListVolumes(provider_instance_id=state.provider_instance_id)
    return DeleteServer(provider_instance_id=state.provider_instance_id, server_name=state.server_name)
