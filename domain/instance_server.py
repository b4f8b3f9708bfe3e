"""Decisions about an instance's server: created, found, started, seen gone, replaced; and about its volumes.

    no room, another place left ──> the attempt is cleared away ──> ServerDiscarded ──> the next attempt
    no room, none left          ──> provisioning_failed, or the cleaning up of a server that did not start

A server counts as gone when two trusted looks, far enough apart, did not find it. Then its volumes go; only then does
the instance end, or its next attempt begin. The surprising rule: whoever asked for the end wins over every alternative.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from domain.decider import Rejected
from domain.instance_commands import (
    GONE_CONFIRMATION_S,
    IntendServerCreate,
    RecordAddress,
    RecordPortsOpened,
    RecordProviderTrouble,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordVolume,
    RecordVolumeDeleted,
    RecordVolumeResized,
    RecordVolumeResizeFailed,
    RecordVolumes,
    RequestReplacement,
    ServerCommand,
)
from domain.instance_events import (
    MAX_PROVIDER_WORDS,
    AddressAssigned,
    InstanceBooted,
    InstanceEvent,
    InstanceTerminated,
    PortsOpened,
    ProviderCallFailed,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerDiscarded,
    ServerReplacementRequested,
    ServerSeenGone,
    ServerStarted,
    ServerStartFailed,
    TerminationRequested,
    VolumeDeleted,
    VolumeDiscovered,
    VolumeResized,
    VolumeResizeFailed,
    VolumesListed,
)
from domain.instance_evolve import SIGHTING_COUNTS_S
from domain.instance_state import COMING_UP, ENDED, NO_ROOM, PROVIDER_DELETED, START_TIMEOUT, Instance

Events = Sequence[InstanceEvent]


def decide_server(state: Instance, command: ServerCommand, at: datetime) -> Events:
    if _is_of_another_attempt(state, command):
        return []
    match command:
        case IntendServerCreate():
            return _intend_create(state, command)
        case RecordServerCreated():
            return _server_created(state, command)
        case RecordServerCreateFailed():
            return _create_failed(state, command)
        case RecordServerStarted():
            awaited = state.status == "provisioning" and not (state.discarding or state.server_started)
            return [ServerStarted()] if awaited else []
        case RecordServerStartFailed():
            return _start_failed(state, command)
        case RecordAddress():
            return _address(state, command)
        case RecordPortsOpened():
            known = state.ports_open or not state.provider_instance_id
            return [] if known else [PortsOpened(ports=command.ports)]
        case RequestReplacement():
            return _replace(state, command)
        case RecordProviderTrouble():
            return _trouble(state, command)
        case RecordServerGone():
            return _server_gone(state, command, at)
        case _:
            return _decide_volume(state, command)


def _is_of_another_attempt(state: Instance, command: ServerCommand) -> bool:
    """Two looks may overlap for a moment; what the slower one comes to know is of an attempt that is over."""
    match command:
        case RecordServerCreated() | RecordServerCreateFailed() | RecordServerGone():
            return command.attempt not in {0, state.attempt}
        case _:
            return False


def _decide_volume(
    state: Instance,
    command: RecordVolume | RecordVolumes | RecordVolumeResized | RecordVolumeResizeFailed | RecordVolumeDeleted,
) -> Events:
    match command:
        case RecordVolume():
            return _volume(state, command)
        case RecordVolumes():
            return _volumes(state, command)
        case RecordVolumeResized():
            return _volume_resized(state, command)
        case RecordVolumeResizeFailed():
            if state.resize_failed or command.provider_volume_id not in state.volumes:
                return []
            words = command.message[:MAX_PROVIDER_WORDS]
            known = command.provider_volume_id
            return [VolumeResizeFailed(provider_volume_id=known, code=command.code, message=words)]
        case RecordVolumeDeleted():
            return _volume_deleted(state, command.provider_volume_id)
        case _:
            assert_never(command)


def _intend_create(state: Instance, command: IntendServerCreate) -> Events:
    if state.status != "provisioning":
        raise Rejected("instance_not_provisioning", f"No server is wanted in state {state.status}.")
    if state.create_intended:
        return []
    name = command.server_name
    return [ServerCreateIntended(attempt=state.attempt + 1, server_name=name, choice=state.next_choice)]


def _server_created(state: Instance, command: RecordServerCreated) -> Events:
    """Accepted in every state that may own a server: whoever asked to end it meanwhile must know what to delete."""
    if not state.may_own_a_server or state.provider_instance_id == command.provider_instance_id:
        return []
    if state.provider_instance_id:
        raise Rejected("another_server_recorded", f"Server {state.provider_instance_id} is already recorded.")
    return [ServerCreated(attempt=state.attempt, provider_instance_id=command.provider_instance_id)]


def _create_failed(state: Instance, command: RecordServerCreateFailed) -> Events:
    """Without an intent too: what can never be rented fails before anything is intended."""
    if state.status != "provisioning" or state.discarding or state.provider_instance_id:
        return []
    return [ServerCreateFailed(attempt=state.attempt, code=command.code, message=command.message[:MAX_PROVIDER_WORDS])]


def _start_failed(state: Instance, command: RecordServerStartFailed) -> Events:
    if state.status != "provisioning" or state.discarding or not state.create_intended:
        return []
    failed = ServerStartFailed(code=command.code, message=command.message[:MAX_PROVIDER_WORDS])
    if state.goes_on_after_start(command.code):
        return [failed]
    reason = "provider_start_failed_cleanup"
    if command.code in NO_ROOM:
        reason = "provider_out_of_stock"
    elif command.code == START_TIMEOUT:
        reason = "provider_start_timeout_cleanup"
    return [failed, TerminationRequested(reason=reason)]


def _address(state: Instance, command: RecordAddress) -> Events:
    if state.status != "provisioning" or state.discarding or state.ip_address == command.ip_address:
        return []
    if not state.provider_instance_id:
        raise Rejected("server_not_created", "An address needs a created server.")
    return [AddressAssigned(ip_address=command.ip_address), InstanceBooted()]


def _replace(state: Instance, command: RequestReplacement) -> Events:
    if state.status == "terminating":
        raise Rejected("instance_terminating", "This instance is terminating.")
    if state.status in ENDED:
        raise Rejected("instance_terminated", "This instance has ended; deploy a new one.")
    if state.status == "provisioning":
        return []
    if state.status not in {*COMING_UP, "startup_failed"}:
        raise Rejected("instance_not_lost", "Only a lost or failed server is replaced.")
    return [ServerReplacementRequested(reason=command.reason)]


def _trouble(state: Instance, command: RecordProviderTrouble) -> Events:
    if state.status in ENDED or state.trouble == f"{command.call}/{command.kind}":
        return []
    return [ProviderCallFailed(call=command.call, kind=command.kind, message=command.message[:MAX_PROVIDER_WORDS])]


def _server_gone(state: Instance, command: RecordServerGone, at: datetime) -> Events:
    if not state.may_own_a_server:
        return []
    clearing = state.status == "terminating" or state.discarding
    if not state.provider_instance_id and not clearing:
        return []  # not there yet, or never
    if state.server_gone:
        return _cleared(state) if clearing else []
    before = state.seen_gone_at
    if before is None or at - before > timedelta(seconds=SIGHTING_COUNTS_S):
        return [ServerSeenGone()]
    if at - before < timedelta(seconds=max(GONE_CONFIRMATION_S, command.confirm_after_s)):
        return []
    if clearing:
        return [ServerSeenGone(), *_cleared(state)]
    if state.volumes_to_delete:
        return [ServerSeenGone(), TerminationRequested(reason=PROVIDER_DELETED)]
    return [ServerSeenGone(), InstanceTerminated(reason=PROVIDER_DELETED, deleted_by_provider=True)]


def _volumes(state: Instance, command: RecordVolumes) -> Events:
    found = [event for volume in command.volumes for event in _volume(state, volume)]
    unlisted = not state.volumes_listed and state.may_own_a_server and state.provider_instance_id
    return [*found, VolumesListed()] if unlisted else found


def _volume(state: Instance, command: RecordVolume) -> list[InstanceEvent]:
    """Where there is no server there is none of its volumes either: late news of an attempt that is over."""
    if command.provider_volume_id in state.volumes or not (state.may_own_a_server and state.provider_instance_id):
        return []
    return [VolumeDiscovered(**{f: getattr(command, f) for f in VolumeDiscovered.__struct_fields__})]


def _volume_resized(state: Instance, command: RecordVolumeResized) -> Events:
    known = state.volumes.get(command.provider_volume_id)
    if known is None or known.size_gb == command.size_gb:
        return []
    return [VolumeResized(provider_volume_id=command.provider_volume_id, size_gb=command.size_gb)]


def _volume_deleted(state: Instance, volume_id: str) -> Events:
    if volume_id not in state.volumes:
        return []
    deleted = VolumeDeleted(provider_volume_id=volume_id)
    clearing = state.status == "terminating" or state.discarding
    return [deleted, *(_cleared(state, but=volume_id) if clearing and state.server_gone else ())]


def _cleared(state: Instance, *, but: str = "") -> list[InstanceEvent]:
    """What follows when the server is gone: nothing as long as a volume, other than `but`, still has to go."""
    if any(volume_id != but for volume_id in state.volumes_to_delete):
        return []
    if state.discarding:
        return [ServerDiscarded(attempt=state.attempt, provider_instance_id=state.provider_instance_id)]
    reason = state.termination_reason
    return [InstanceTerminated(reason=reason, deleted_by_provider=reason == PROVIDER_DELETED)]
