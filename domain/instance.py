"""The laws of an instance: one rented server that runs one model. States and events are in instance_events.py.

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
    FailStartup,
    InstanceCommand,
    IntendServerCreate,
    ObserveWorker,
    RecordAddress,
    RecordBootstrapPhase,
    RecordPortsOpened,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerReinstalled,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordSshReached,
    RecordVolume,
    RecordVolumeDeleted,
    RecordVolumeResized,
    RecordWorkerLost,
    RegisterWorker,
    RequestInstance,
    RequestReinstall,
    RequestTermination,
    StopInstance,
)
from domain.instance_events import (
    AddressAssigned,
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
    ReinstallRequested,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerReinstalled,
    ServerSeenGone,
    ServerStarted,
    ServerStartFailed,
    SshReached,
    StartupResumed,
    TerminationRequested,
    VolumeDeleted,
    VolumeDiscovered,
    VolumeResized,
    WorkerDrained,
    WorkerLost,
    WorkerRegistered,
    WorkerTokenConfirmed,
)
from domain.instance_state import COMING_UP, ENDED, Instance, evolve

DRAIN_GRACE_S = 2
"""A worker counts as drained only this long after the drain began: every gateway has read the event by then."""
GONE_CONFIRMATION_S = 2
"""Two sightings of an absent server must lie this far apart; providers with a listing lag add theirs."""


Events = Sequence[InstanceEvent]


def decide(state: Instance, command: InstanceCommand, at: datetime) -> Events:
    if state.request is None and not isinstance(command, RequestInstance):
        raise Rejected("instance_not_found", "There is no instance with this id.")
    match command:
        case RequestInstance():
            return _request(state, command)
        case ActivateInstance():
            return [] if state.activation.is_set(command.flag) else [InstanceActivated(flag=command.flag)]
        case DeactivateInstance():
            return [InstanceDeactivated(flag=command.flag)] if state.activation.is_set(command.flag) else []
        case IntendServerCreate():
            return _intend_create(state, command)
        case RecordServerCreated():
            return _server_created(state, command)
        case RecordServerCreateFailed():
            return _create_failed(state, command)
        case RecordVolume():
            return _volume(state, command)
        case RecordVolumeResized():
            return _volume_resized(state, command)
        case RecordVolumeDeleted():
            known = command.provider_volume_id in state.volumes
            return [VolumeDeleted(provider_volume_id=command.provider_volume_id)] if known else []
        case RecordServerStarted():
            return _server_started(state)
        case RecordServerStartFailed():
            return _start_failed(state, command)
        case RecordAddress():
            return _address(state, command)
        case RecordPortsOpened():
            return [] if state.ports_open else [PortsOpened(ports=command.ports)]
        case RecordSshReached():
            return [SshReached()] if state.status == "booting" else []
        case RecordBootstrapPhase():
            return _bootstrap_phase(state, command)
        case RegisterWorker():
            return _register(state, command)
        case ObserveWorker():
            return _observe(state, command, at)
        case RecordWorkerLost():
            return [WorkerLost(reason=command.reason)] if state.status in {"ready", "starting"} else []
        case FailStartup():
            return _fail_startup(state, command)
        case StopInstance():
            return _stop(state, command)
        case RequestTermination():
            return _terminate(state, command.reason)
        case RecordServerGone():
            return _server_gone(state, at)
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


def _intend_create(state: Instance, command: IntendServerCreate) -> Events:
    if state.status != "provisioning":
        raise Rejected("instance_not_provisioning", f"No server is wanted in state {state.status}.")
    if state.create_intended:
        return []
    return [ServerCreateIntended(attempt=state.attempt + 1, server_name=command.server_name)]


def _server_created(state: Instance, command: RecordServerCreated) -> Events:
    """Accepted in every state that may own a server: whoever asked to end it meanwhile must know what to delete."""
    if not state.may_own_a_server or state.provider_instance_id == command.provider_instance_id:
        return []
    if state.provider_instance_id:
        raise Rejected("another_server_recorded", f"Server {state.provider_instance_id} is already recorded.")
    return [ServerCreated(attempt=state.attempt, provider_instance_id=command.provider_instance_id)]


def _create_failed(state: Instance, command: RecordServerCreateFailed) -> Events:
    if state.status != "provisioning" or state.provider_instance_id:
        return []
    return [ServerCreateFailed(attempt=state.attempt, code=command.code, message=command.message)]


def _volume(state: Instance, command: RecordVolume) -> Events:
    if command.provider_volume_id in state.volumes:
        return []
    return [VolumeDiscovered(**{f: getattr(command, f) for f in VolumeDiscovered.__struct_fields__})]


def _volume_resized(state: Instance, command: RecordVolumeResized) -> Events:
    known = state.volumes.get(command.provider_volume_id)
    if known is None or known.size_gb == command.size_gb:
        return []
    return [VolumeResized(provider_volume_id=command.provider_volume_id, size_gb=command.size_gb)]


def _server_started(state: Instance) -> Events:
    return [ServerStarted()] if state.status == "provisioning" and not state.server_started else []


def _start_failed(state: Instance, command: RecordServerStartFailed) -> Events:
    if state.status != "provisioning":
        return []
    reasons = {
        "PROVIDER_OUT_OF_STOCK": "provider_out_of_stock",
        "PROVIDER_START_TIMEOUT": "provider_start_timeout_cleanup",
    }
    reason = reasons.get(command.code, "provider_start_failed_cleanup")
    return [ServerStartFailed(code=command.code, message=command.message), TerminationRequested(reason=reason)]


def _address(state: Instance, command: RecordAddress) -> Events:
    if state.status != "provisioning" or state.ip_address == command.ip_address:
        return []
    if not state.provider_instance_id:
        raise Rejected("server_not_created", "An address needs a created server.")
    return [AddressAssigned(ip_address=command.ip_address), InstanceBooted()]


def _bootstrap_phase(state: Instance, command: RecordBootstrapPhase) -> Events:
    if state.status not in {"booting", "installing"} or state.bootstrap_phase == command.phase:
        return []
    return [BootstrapPhaseDone(phase=command.phase)]


def _register(state: Instance, command: RegisterWorker) -> Events:
    """The bootstrap token lives until the agent has used its own, so an agent that died in between can ask again."""
    if state.status in {*ENDED, "terminating"}:
        raise Rejected("instance_gone", "This instance is ending; the agent may stop.")
    if state.worker_id is not None and state.token_confirmed:
        raise Rejected("token_already_exists", "This instance's worker already holds a token.")
    if state.token_sha256 == command.token_sha256:
        return []
    registered = WorkerRegistered(**{f: getattr(command, f) for f in WorkerRegistered.__struct_fields__})
    return [*_late_arrival(state), registered]


def _late_arrival(state: Instance) -> list[InstanceEvent]:
    too_late = state.status == "startup_failed" and state.error_code == "STARTUP_TIMEOUT"
    return [StartupResumed()] if too_late else []


def _observe(state: Instance, command: ObserveWorker, at: datetime) -> Events:
    if state.status in ENDED:
        raise Rejected("instance_gone", "This instance has ended; the agent may stop.")
    news: list[InstanceEvent] = [] if state.token_confirmed else [WorkerTokenConfirmed()]
    if _wrong_build(command) and state.status in COMING_UP:
        message = f"The agent reports build {command.agent_sha256[:12]}, not {command.expected_agent_sha256[:12]}."
        return [*news, InstanceStartupFailed(code="AGENT_CHECKSUM_FAILED", message=message)]
    resumed = _late_arrival(state)
    news += resumed
    if state.status in COMING_UP or resumed:
        news += _milestones(state, command)
        if command.status == "ready" and command.model_loaded and command.warmed_up:
            news.append(InstanceReady())
    elif state.status == "draining" and not state.drained and _is_idle(state, command, at):
        news.append(WorkerDrained())
    elif state.status == "ready" and not command.model_loaded:
        news.append(WorkerLost(reason="The engine no longer answers for the model."))
    return news


def _wrong_build(command: ObserveWorker) -> bool:
    return bool(command.expected_agent_sha256) and command.agent_sha256 != command.expected_agent_sha256


def _milestones(state: Instance, command: ObserveWorker) -> list[InstanceEvent]:
    news: list[InstanceEvent] = []
    if command.engine_up and not state.engine_answered:
        news.append(EngineAnswered())
    if command.model_loaded and not state.model_loaded:
        news.append(ModelLoaded(endpoints=command.endpoints, context_tokens=command.context_tokens))
    if command.warmed_up and not state.warmed_up:
        news.append(EngineWarmedUp())
    return news


def _is_idle(state: Instance, command: ObserveWorker, at: datetime) -> bool:
    if state.drain_started_at is None or command.queue_depth > 0:
        return False
    return at - state.drain_started_at >= timedelta(seconds=DRAIN_GRACE_S)


def _fail_startup(state: Instance, command: FailStartup) -> Events:
    if state.status not in COMING_UP:
        return []
    return [InstanceStartupFailed(code=command.code, message=command.message)]


def _stop(state: Instance, command: StopInstance) -> Events:
    if state.status == "ready":
        return [DrainStarted(reason=command.reason, deadline_s=command.drain_deadline_s)]
    if state.status == "draining":
        return []
    return _terminate(state, command.reason)


def _terminate(state: Instance, reason: str) -> Events:
    if state.status in {*ENDED, "terminating"}:
        return []
    requested = TerminationRequested(reason=reason)
    if not state.create_intended or (state.create_failed and not state.provider_instance_id):
        return [requested, InstanceTerminated(reason="no_provider_resource")]
    return [requested]


def _server_gone(state: Instance, at: datetime) -> Events:
    if state.status in ENDED or not state.may_own_a_server:
        return []
    if state.status == "provisioning" and not state.provider_instance_id:
        return []
    if state.gone_sightings == 0 or state.seen_gone_at is None:
        return [ServerSeenGone()]
    if at - state.seen_gone_at < timedelta(seconds=GONE_CONFIRMATION_S):
        return []
    if state.status != "terminating":
        return [ServerSeenGone(), InstanceTerminated(reason="provider_deleted", deleted_by_provider=True)]
    if state.volumes_to_delete:
        return []
    return [ServerSeenGone(), InstanceTerminated(reason=state.termination_reason)]


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
    if not state.ip_address:
        raise Rejected("instance_unreachable", "This instance has no address yet.")
    return [] if state.reinstall_wanted else [ReinstallRequested()]


INSTANCE: Decider[InstanceCommand, InstanceEvent, Instance] = Decider(
    aggregate="instance",
    events=InstanceEvent.__args__,
    initial=Instance(),
    state_type=Instance,
    evolve=evolve,
    decide=decide,
)
