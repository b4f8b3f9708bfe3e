"""An instance's events in words: the action's code and category of SPEC 2.7, and one sentence for the timeline."""

from typing import assert_never

import msgspec

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
    if isinstance(event, ServerEvent):
        return _server_words(event)
    if isinstance(event, WorkerEvent):
        return _worker_words(event)
    return _wish_words(event)


def _server_words(event: ServerEvent) -> Words:
    match event:
        case ServerCreateIntended():
            where = f", at alternative {event.choice}" if event.choice else ""
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            return Words("EXECUTE_CREATE", "create", f"Server {event.server_name} is being created{where}{again}.")
        case ServerCreated():
            return Words("PROVIDER_CREATE", "create", f"The provider created server {event.provider_instance_id}.")
        case ServerCreateFailed():
            return Words("PROVIDER_CREATE", "create", f"The provider refused: {event.message}", failed=True)
        case ServerStarted():
            return Words("PROVIDER_START", "create", "The server was started.")
        case ServerStartFailed():
            return Words("PROVIDER_START", "create", f"The server did not start: {event.message}", failed=True)
        case AddressAssigned():
            return Words("PROVIDER_GET_IP", "create", f"The server has the address {event.ip_address}.")
        case PortsOpened() if not event.ports:
            return Words("PROVIDER_SECURITY_GROUP", "create", "No port was opened: the settings keep them closed.")
        case PortsOpened():
            return Words("PROVIDER_SECURITY_GROUP", "create", f"Ports {', '.join(map(str, event.ports))} were opened.")
        case InstanceBooted():
            return Words("INSTANCE_CREATED", "create", "The server runs; its worker is awaited.")
        case ServerReplacementRequested():
            return Words("REQUEUE_PROVISION", "create", f"Another server takes its place: {_last_line(event.reason)}")
        case ServerDiscarded():
            gone = event.provider_instance_id or "that was never seen"
            return Words("SERVER_DISCARDED", "create", f"Attempt {event.attempt} is over, its server {gone} is gone.")
        case ProviderCallFailed():
            words = f"{event.call} failed ({event.kind}), and is tried again: {_last_line(event.message)}"
            return Words("PROVIDER_CALL", "create", words, failed=True)
        case _:
            return _volume_words(event)


def _volume_words(
    event: VolumeDiscovered | VolumesListed | VolumeResized | VolumeResizeFailed | VolumeDeleted,
) -> Words:
    match event:
        case VolumeDiscovered():
            return Words(
                "PROVIDER_CREATE_VOLUME", "create", f"Found a {event.volume_type} volume of {event.size_gb} GB."
            )
        case VolumesListed():
            return Words("PROVIDER_VOLUMES_LISTED", "create", "All volumes of the server are on record.")
        case VolumeResized():
            return Words("PROVIDER_VOLUME_RESIZE", "create", f"Volume resized to {event.size_gb} GB.")
        case VolumeResizeFailed():
            words = f"The volume keeps its size: {_last_line(event.message)}"
            return Words("PROVIDER_VOLUME_RESIZE", "create", words, failed=True)
        case VolumeDeleted():
            return Words("PROVIDER_DELETE_VOLUME", "terminate", "Volume deleted.")
        case _:
            assert_never(event)


def _worker_words(event: WorkerEvent) -> Words:
    match event:
        case SshReached():
            return Words("WORKER_SSH_ACCESSIBLE", "health", "The server answers on SSH.")
        case BootstrapPhaseDone():
            return Words("WORKER_SSH_INSTALL", "create", f"Installation phase {event.phase} is done.")
        case BootstrapFailed():
            words = f"Installation phase {event.phase} failed: {_last_line(event.message)}"
            return Words("WORKER_SSH_INSTALL", "create", words, failed=True)
        case WorkerRegistered():
            return Words("WORKER_REGISTERED", "health", f"The worker registered (agent {event.agent_version}).")
        case WorkerTokenConfirmed():
            return Words("WORKER_TOKEN_CONFIRMED", "health", "The worker uses its own token.")
        case WorkerTokenRotated():
            return Words("WORKER_TOKEN_ROTATED", "health", "The worker is offered a new token.")
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
            assert_never(event)


def _last_line(text: str) -> str:
    said = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    return said if said.endswith(".") else f"{said}."


def _wish_words(event: WishEvent) -> Words:
    match event:
        case InstanceRequested():
            place = f"{event.instance_type} in {event.zone} ({event.provider})"
            return Words("REQUEST_CREATE", "create", f"{event.model_code} was requested on {place}.")
        case DrainStarted():
            return Words("DRAIN_STARTED", "terminate", f"Draining for at most {event.deadline_s} s ({event.reason}).")
        case WorkerDrained():
            return Words("WORKER_DRAINED", "terminate", "No request is running any more.")
        case TerminationRequested():
            return Words("REQUEST_TERMINATE", "terminate", f"Termination was requested ({event.reason}).")
        case TerminationOverdue():
            words = f"Not ended after {event.after_s} s; it is still being tried."
            return Words("TERMINATION_PENDING", "terminate", words, failed=True)
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
