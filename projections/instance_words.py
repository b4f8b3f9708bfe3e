"""An instance's events in words: the action's code and category of SPEC 2.7, and one sentence for the timeline."""

from typing import assert_never

import msgspec

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

_WorkerEvent = (
    SshReached
    | BootstrapPhaseDone
    | WorkerRegistered
    | WorkerTokenConfirmed
    | EngineAnswered
    | ModelLoaded
    | EngineWarmedUp
    | InstanceReady
    | InstanceStartupFailed
    | StartupResumed
    | WorkerLost
)
_EndingEvent = (
    DrainStarted
    | WorkerDrained
    | TerminationRequested
    | ServerSeenGone
    | InstanceTerminated
    | InstanceArchived
    | ReinstallRequested
    | ServerReinstalled
    | InstanceActivated
    | InstanceDeactivated
)


class Words(msgspec.Struct, frozen=True):
    """How an event is told.

    Attributes:
        action: code of SPEC 2.7; DRAIN_STARTED, WORKER_... where that list has none.
        category: create, health, terminate, repair, archive or activation; gives the colour.
        sentence: for a person, without personal data.
        failed: the action did not succeed.
    """

    action: str
    category: str
    sentence: str
    failed: bool = False


def words_of(event: InstanceEvent) -> Words:
    match event:
        case InstanceRequested():
            place = f"{event.instance_type} in {event.zone} ({event.provider})"
            return Words("REQUEST_CREATE", "create", f"{event.model_code} was requested on {place}.")
        case ServerCreateIntended():
            return Words("EXECUTE_CREATE", "create", f"Server {event.server_name} is being created.")
        case ServerCreated():
            return Words("PROVIDER_CREATE", "create", f"The provider created server {event.provider_instance_id}.")
        case ServerCreateFailed():
            return Words("PROVIDER_CREATE", "create", f"The provider refused: {event.message}", failed=True)
        case VolumeDiscovered():
            return Words(
                "PROVIDER_CREATE_VOLUME", "create", f"Found a {event.volume_type} volume of {event.size_gb} GB."
            )
        case VolumeResized():
            return Words("PROVIDER_VOLUME_RESIZE", "create", f"Volume resized to {event.size_gb} GB.")
        case VolumeDeleted():
            return Words("PROVIDER_DELETE_VOLUME", "terminate", "Volume deleted.")
        case ServerStarted():
            return Words("PROVIDER_START", "create", "The server was started.")
        case ServerStartFailed():
            return Words("PROVIDER_START", "create", f"The server did not start: {event.message}", failed=True)
        case AddressAssigned():
            return Words("PROVIDER_GET_IP", "create", f"The server has the address {event.ip_address}.")
        case PortsOpened():
            return Words("PROVIDER_SECURITY_GROUP", "create", f"Ports {', '.join(map(str, event.ports))} were opened.")
        case InstanceBooted():
            return Words("INSTANCE_CREATED", "create", "The server runs; its worker is awaited.")
        case _:
            return _worker_words(event)


def _worker_words(event: _WorkerEvent | _EndingEvent) -> Words:
    match event:
        case SshReached():
            return Words("WORKER_SSH_ACCESSIBLE", "health", "The server answers on SSH.")
        case BootstrapPhaseDone():
            return Words("WORKER_SSH_INSTALL", "create", f"Installation phase {event.phase} is done.")
        case WorkerRegistered():
            return Words("WORKER_REGISTERED", "health", f"The worker registered (agent {event.agent_version}).")
        case WorkerTokenConfirmed():
            return Words("WORKER_TOKEN_CONFIRMED", "health", "The worker uses its own token.")
        case EngineAnswered():
            return Words("WORKER_VLLM_HTTP_OK", "health", "The engine answers.")
        case ModelLoaded():
            return Words("WORKER_MODEL_LOADED", "health", "The model is loaded.")
        case EngineWarmedUp():
            return Words("WORKER_VLLM_WARMUP", "health", "The engine is warm.")
        case InstanceReady():
            return Words("INSTANCE_READY", "health", "Ready to answer.")
        case InstanceStartupFailed():
            return Words("INSTANCE_STARTUP_FAILED", "health", f"Did not start: {event.message}", failed=True)
        case StartupResumed():
            return Words("INSTANCE_STARTUP_RESUMED", "health", "The worker reported after all; starting goes on.")
        case WorkerLost():
            return Words("HEALTH_CHECK", "health", f"The worker was lost: {event.reason}", failed=True)
        case _:
            return _ending_words(event)


def _ending_words(event: _EndingEvent) -> Words:
    match event:
        case DrainStarted():
            return Words("DRAIN_STARTED", "terminate", f"Draining for at most {event.deadline_s} s ({event.reason}).")
        case WorkerDrained():
            return Words("WORKER_DRAINED", "terminate", "No request is running any more.")
        case TerminationRequested():
            return Words("REQUEST_TERMINATE", "terminate", f"Termination was requested ({event.reason}).")
        case ServerSeenGone():
            return Words("TERMINATION_CONFIRMED", "terminate", "The provider no longer knows the server.")
        case InstanceTerminated() if event.deleted_by_provider:
            return Words("PROVIDER_DELETED_DETECTED", "terminate", "The server was deleted outside the platform.")
        case InstanceTerminated():
            return Words("INSTANCE_TERMINATED", "terminate", f"Terminated ({event.reason}).")
        case InstanceArchived():
            return Words("ARCHIVE_INSTANCE", "archive", "Archived.")
        case ReinstallRequested():
            return Words("REQUEST_REINSTALL", "repair", "A reinstallation was requested.")
        case ServerReinstalled():
            return Words("EXECUTE_REINSTALL", "repair", "The server was made as new; its agent begins again.")
        case InstanceActivated():
            return Words("INSTANCE_ACTIVATED", "activation", f"The {event.flag} activation was set.")
        case InstanceDeactivated():
            return Words("INSTANCE_DEACTIVATED", "activation", f"The {event.flag} activation was taken away.")
        case _:
            assert_never(event)
