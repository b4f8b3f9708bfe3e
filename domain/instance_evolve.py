"""How each event changes an instance, by families: wishes, the server, what runs on it.

Progress is a fold over milestones: it only grows within one attempt; a reinstall and a new attempt begin anew. The
surprising rule: whether a failed attempt is followed by another is read from the state, by the same question that the
decision asked, so histories from before there were alternatives fold to what they meant.
"""

from datetime import datetime, timedelta
from typing import assert_never

from msgspec.structs import replace

from domain.activation import activation_with, with_flag
from domain.instance_events import (
    AddressAssigned,
    BootstrapFailed,
    BootstrapPhaseDone,
    DrainStarted,
    EngineAnswered,
    EngineWarmedUp,
    InstanceActivated,
    InstanceArchived,
    InstanceBooted,
    InstanceDeactivated,
    InstanceEvent,
    InstanceReady,
    InstanceRequested,
    InstanceStartupFailed,
    InstanceTerminated,
    ModelLoaded,
    PortsOpened,
    ProviderCallFailed,
    ReinstallRequested,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerDiscarded,
    ServerEvent,
    ServerReinstalled,
    ServerReplacementRequested,
    ServerSeenGone,
    ServerStarted,
    ServerStartFailed,
    SshReached,
    StartupResumed,
    TerminationOverdue,
    TerminationRequested,
    VolumeDeleted,
    VolumeDiscovered,
    VolumeResized,
    VolumeResizeFailed,
    VolumesListed,
    WishEvent,
    WorkerDrained,
    WorkerEvent,
    WorkerLost,
    WorkerRegistered,
    WorkerTokenConfirmed,
    WorkerTokenRotated,
)
from domain.instance_state import VOLUMES_PENDING, Instance, Status

SIGHTING_COUNTS_S = 600
"""A server seen gone, and not again within this time, may well have been seen in between: it counts from anew."""
REQUESTED_PERCENT = 5


def evolve(state: Instance, event: InstanceEvent, at: datetime) -> Instance:
    if state.trouble and not isinstance(event, ProviderCallFailed):
        state = replace(state, trouble="")
    if isinstance(event, ServerEvent):
        return _after_server(state, event, at)
    if isinstance(event, WorkerEvent):
        return _after_worker(state, event, at)
    return _after_wish(state, event, at)


def _after_server(state: Instance, event: ServerEvent, at: datetime) -> Instance:
    match event:
        case ServerCreateIntended():
            return _intended(state, event, at)
        case ServerCreated():
            return _milestone(replace(state, provider_instance_id=event.provider_instance_id), 20)
        case ServerCreateFailed():
            return _create_failed(state, event, at)
        case ServerStarted():
            return _milestone(replace(state, server_started=True), 30)
        case ServerStartFailed():
            return _start_failed(state, event)
        case AddressAssigned():
            return _milestone(replace(state, ip_address=event.ip_address), 40)
        case PortsOpened():
            return _milestone(replace(state, ports_open=True), 45)
        case InstanceBooted():
            return replace(state, status="booting", boot_clock_started_at=at)
        case ServerReplacementRequested():
            return _given_up(state)
        case ServerDiscarded():
            return _without_server(state)
        case ProviderCallFailed():
            return replace(state, trouble=f"{event.call}/{event.kind}")
        case _:
            return _after_volume(state, event)


def _after_volume(
    state: Instance, event: VolumeDiscovered | VolumesListed | VolumeResized | VolumeResizeFailed | VolumeDeleted
) -> Instance:
    match event:
        case VolumeDiscovered():
            return replace(state, volumes={**state.volumes, event.provider_volume_id: event})
        case VolumesListed():
            return replace(state, volumes_listed=True)
        case VolumeResized():
            return _milestone(replace(state, volumes=_resized(state.volumes, event)), 25)
        case VolumeResizeFailed():
            return replace(state, resize_failed=True)
        case VolumeDeleted():
            left = {known: volume for known, volume in state.volumes.items() if known != event.provider_volume_id}
            return replace(state, volumes=left)
        case _:
            assert_never(event)


def _after_worker(state: Instance, event: WorkerEvent, at: datetime) -> Instance:
    match event:
        case SshReached():
            return _milestone(replace(state, status="installing", ssh_reached_at=at), 50)
        case BootstrapPhaseDone():
            return _bootstrapped(state, event.phase)
        case BootstrapFailed():
            failed = replace(state, status="installing", bootstrap_failed_at=at)
            return replace(failed, error_code="BOOTSTRAP_FAILED", error_message=f"{event.phase}: {event.message}")
        case WorkerRegistered():
            return _registered(state, event)
        case WorkerTokenConfirmed():
            token = state.next_token_sha256 or state.token_sha256
            return replace(state, token_confirmed=True, token_sha256=token, next_token_sha256="")
        case WorkerTokenRotated():
            return replace(state, next_token_sha256=event.token_sha256)
        case EngineAnswered():
            return _milestone(replace(state, engine_answered=True), 70)
        case ModelLoaded():
            loaded = replace(state, model_loaded=True, endpoints=event.endpoints, context_tokens=event.context_tokens)
            return _milestone(loaded, 80)
        case EngineWarmedUp():
            return _milestone(replace(state, warmed_up=True), 95)
        case InstanceReady():
            ready = replace(state, status="ready", error_code="", error_message="", replacements=0)
            return _milestone(ready, 100)
        case InstanceStartupFailed():
            return _failed(state, "startup_failed", event.code, event.message, at)
        case StartupResumed():
            resumed = replace(state, status="booting", error_code="", error_message="", failed_at=None)
            return replace(resumed, boot_clock_started_at=at)
        case WorkerLost():
            return _lost(state, at)
        case _:
            assert_never(event)


def _after_wish(state: Instance, event: WishEvent, at: datetime) -> Instance:
    match event:
        case InstanceRequested():
            return Instance(
                status="provisioning",
                request=event,
                activation=activation_with(event.activated),
                milestone_percent=REQUESTED_PERCENT,
                boot_clock_started_at=at,
            )
        case InstanceActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case InstanceDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case DrainStarted():
            draining = replace(state, status="draining", drain_started_at=at)
            return replace(draining, drain_deadline_s=event.deadline_s, drain_reason=event.reason)
        case WorkerDrained():
            return replace(state, drained=True)
        case TerminationRequested():
            return _ending(state, event.reason, at)
        case TerminationOverdue():
            return replace(state, overdue=True)
        case ServerSeenGone():
            return _seen_gone(state, at)
        case InstanceTerminated():
            return _ended(state, event.reason)
        case InstanceArchived():
            return replace(state, status="archived")
        case ReinstallRequested():
            return _reinstalling(state, at)
        case ServerReinstalled():
            return replace(state, reinstall_wanted=False)
        case _:
            assert_never(event)


def _milestone(state: Instance, percent: int) -> Instance:
    return replace(state, milestone_percent=max(state.milestone_percent, percent))


def _intended(state: Instance, event: ServerCreateIntended, at: datetime) -> Instance:
    """Errors of the attempt before stay to be read until this one comes up."""
    return replace(
        state,
        create_intended=True,
        create_failed=False,
        attempt=event.attempt,
        choice=event.choice,
        next_choice=event.choice,
        server_name=event.server_name,
        intended_at=at,
    )


def _create_failed(state: Instance, event: ServerCreateFailed, at: datetime) -> Instance:
    if not state.goes_on_after_create(event.code):
        return replace(_failed(state, "provisioning_failed", event.code, event.message, at), create_failed=True)
    again_here = state.tries_here_again(event.code)
    return replace(
        state,
        create_intended=False,
        server_name="",
        abandoned=state.abandoned + 1 if again_here else 0,
        next_choice=state.choice if again_here else state.choice + 1,
        error_code=event.code,
        error_message=event.message,
    )


def _start_failed(state: Instance, event: ServerStartFailed) -> Instance:
    told = replace(state, error_code=event.code, error_message=event.message)
    if not state.goes_on_after_start(event.code):
        return told
    return replace(told, discarding=True, next_choice=state.choice + 1, volumes_listed=False)


def _given_up(state: Instance) -> Instance:
    """The next attempt begins with the place that was asked for first: what was out of stock then may be there now."""
    return replace(
        _afresh(state),
        status="provisioning",
        milestone_percent=REQUESTED_PERCENT,
        discarding=True,
        volumes_listed=False,
        reinstall_wanted=False,
        next_choice=0,
        replacements=state.replacements + 1,
        failed_at=None,
    )


def _without_server(state: Instance) -> Instance:
    """What is left of an attempt: its number, what it cost in places, and the volumes that somebody wants to keep."""
    return replace(
        _afresh(state),
        milestone_percent=REQUESTED_PERCENT,
        create_intended=False,
        discarding=False,
        abandoned=0,
        server_name="",
        provider_instance_id="",
        server_started=False,
        volumes={known: volume for known, volume in state.volumes.items() if not volume.delete_on_terminate},
        volumes_listed=False,
        resize_failed=False,
        ip_address="",
        ports_open=False,
        seen_gone_at=None,
        server_gone=False,
    )


def _resized(volumes: dict[str, VolumeDiscovered], event: VolumeResized) -> dict[str, VolumeDiscovered]:
    known = volumes.get(event.provider_volume_id)
    return {**volumes, event.provider_volume_id: replace(known, size_gb=event.size_gb)} if known else volumes


def _bootstrapped(state: Instance, phase: str) -> Instance:
    begun = replace(state, bootstrap_phase=phase, bootstrap_failed_at=None)
    if phase == "done":
        return _milestone(replace(begun, status="starting"), 60)
    return _milestone(replace(begun, status="installing"), 55)


def _lost(state: Instance, at: datetime) -> Instance:
    return replace(state, status="unavailable", error_code="WAITING_FOR_WORKER_HEARTBEAT", boot_clock_started_at=at)


def _failed(state: Instance, status: Status, code: str, message: str, at: datetime) -> Instance:
    failed = replace(state, status=status, failed_at=at, reinstall_wanted=False)
    return replace(failed, error_code=code, error_message=message)


def _registered(state: Instance, event: WorkerRegistered) -> Instance:
    return _milestone(
        replace(
            state,
            status="starting" if state.status in {"booting", "installing"} else state.status,
            worker_id=event.worker_id,
            token_sha256=event.token_sha256,
            token_confirmed=False,
            next_token_sha256="",
            engine_url=event.engine_url,
            agent_url=event.agent_url,
            agent_version=event.agent_version,
            agent_sha256=event.agent_sha256,
        ),
        60,
    )


def _ending(state: Instance, reason: str, at: datetime) -> Instance:
    """Its volumes are listed once more: whatever is attached now would be left behind."""
    ending = replace(state, status="terminating", termination_reason=reason, terminating_at=at)
    return replace(ending, discarding=False, volumes_listed=False)


def _seen_gone(state: Instance, at: datetime) -> Instance:
    before = state.seen_gone_at
    twice = before is not None and at - before <= timedelta(seconds=SIGHTING_COUNTS_S)
    seen = replace(state, gone_sightings=state.gone_sightings + 1, seen_gone_at=at, server_gone=twice)
    pending = twice and state.volumes_to_delete and not state.error_code
    return replace(seen, error_code=VOLUMES_PENDING) if pending else seen


def _ended(state: Instance, reason: str) -> Instance:
    code = "" if state.error_code == VOLUMES_PENDING else state.error_code
    return replace(state, status="terminated", termination_reason=reason, error_code=code)


def _reinstalling(state: Instance, at: datetime) -> Instance:
    """The server stays; everything on it begins anew, so the worker must prove itself again."""
    return replace(
        _afresh(state), status="booting", milestone_percent=45, reinstall_wanted=True, boot_clock_started_at=at
    )


def _afresh(state: Instance) -> Instance:
    """What is known of a worker that will not come back."""
    return replace(
        state,
        ssh_reached_at=None,
        bootstrap_phase="",
        bootstrap_failed_at=None,
        worker_id=None,
        token_sha256="",
        token_confirmed=False,
        next_token_sha256="",
        engine_url="",
        agent_url="",
        engine_answered=False,
        model_loaded=False,
        endpoints=(),
        context_tokens=0,
        warmed_up=False,
        drained=False,
        drain_started_at=None,
        gone_sightings=0,
        failed_at=None,
        error_code="",
        error_message="",
    )
