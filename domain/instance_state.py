"""An instance's state, and how each event changes it. Its laws are in instance.py.

    provisioning ──> booting ──> installing ──> starting ──> ready <──> unavailable
         │              └───────────┴─────────────┴── startup_failed      │
         └──> provisioning_failed                       ready ──> draining ──> terminating ──> terminated ──> archived

Progress is a fold over milestones: it only grows within one attempt, and a reinstall begins anew.
"""

from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, activation_with, with_flag
from domain.ids import WorkerId
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

Status = Literal[
    "requested",
    "provisioning",
    "booting",
    "installing",
    "starting",
    "ready",
    "draining",
    "unavailable",
    "terminating",
    "terminated",
    "archived",
    "provisioning_failed",
    "startup_failed",
    "failed",
]
"""SPEC 2.1's thirteen states, and "requested" for an id that has no event yet (never seen outside the domain)."""

ENDED: frozenset[Status] = frozenset({"terminated", "archived"})
COMING_UP: frozenset[Status] = frozenset({"booting", "installing", "starting", "unavailable"})
"""States from which good health leads to ready (SPEC 2.2)."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """State of one instance; see the events for the fields' meaning. Times are the envelopes' (UTC)."""

    status: Status = "requested"
    request: InstanceRequested | None = None
    activation: Activation = Activation()
    milestone_percent: int = 0
    attempt: int = 0
    create_intended: bool = False
    create_failed: bool = False
    server_name: str = ""
    provider_instance_id: str = ""
    server_started: bool = False
    volumes: dict[str, VolumeDiscovered] = {}
    ip_address: str = ""
    ports_open: bool = False
    bootstrap_phase: str = ""
    worker_id: WorkerId | None = None
    token_sha256: str = ""
    token_confirmed: bool = False
    engine_url: str = ""
    agent_url: str = ""
    agent_version: str = ""
    agent_sha256: str = ""
    engine_answered: bool = False
    model_loaded: bool = False
    endpoints: tuple[str, ...] = ()
    context_tokens: int = 0
    warmed_up: bool = False
    reinstall_wanted: bool = False
    boot_clock_started_at: datetime | None = None
    drain_started_at: datetime | None = None
    drain_deadline_s: int = 0
    drain_reason: str = ""
    drained: bool = False
    gone_sightings: int = 0
    seen_gone_at: datetime | None = None
    termination_reason: str = ""
    error_code: str = ""
    error_message: str = ""

    @property
    def progress_percent(self) -> int:
        """SPEC 2.6: 0 once it is ending, ended or failed."""
        hidden = {"terminating", "terminated", "archived", "provisioning_failed", "startup_failed", "failed"}
        return 0 if self.status in hidden else self.milestone_percent

    @property
    def volumes_to_delete(self) -> tuple[str, ...]:
        return tuple(known for known, volume in self.volumes.items() if volume.delete_on_terminate)

    @property
    def may_own_a_server(self) -> bool:
        """True from the first create intent until the server was seen gone: money may be at stake."""
        return self.create_intended and self.status not in ENDED


def _milestone(state: Instance, percent: int) -> Instance:
    return replace(state, milestone_percent=max(state.milestone_percent, percent))


def evolve(state: Instance, event: InstanceEvent, at: datetime) -> Instance:
    match event:
        case InstanceRequested():
            return Instance(
                status="provisioning",
                request=event,
                activation=activation_with(event.activated),
                milestone_percent=5,
                boot_clock_started_at=at,
            )
        case InstanceActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case InstanceDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case ServerCreateIntended():
            return replace(
                state, create_intended=True, create_failed=False, attempt=event.attempt, server_name=event.server_name
            )
        case ServerCreated():
            return _milestone(replace(state, provider_instance_id=event.provider_instance_id), 20)
        case ServerCreateFailed():
            return replace(_failed(state, "provisioning_failed", event.code, event.message), create_failed=True)
        case VolumeDiscovered():
            return replace(state, volumes={**state.volumes, event.provider_volume_id: event})
        case VolumeResized():
            return _milestone(replace(state, volumes=_resized(state.volumes, event)), 25)
        case VolumeDeleted():
            left = {known: volume for known, volume in state.volumes.items() if known != event.provider_volume_id}
            return replace(state, volumes=left)
        case ServerStarted():
            return _milestone(replace(state, server_started=True), 30)
        case ServerStartFailed():
            return replace(state, error_code=event.code, error_message=event.message)
        case AddressAssigned():
            return _milestone(replace(state, ip_address=event.ip_address), 40)
        case PortsOpened():
            return _milestone(replace(state, ports_open=True), 45)
        case InstanceBooted():
            return replace(state, status="booting", boot_clock_started_at=at)
        case SshReached():
            return _milestone(replace(state, status="installing"), 50)
        case BootstrapPhaseDone():
            return _bootstrapped(state, event.phase)
        case WorkerRegistered():
            return _registered(state, event)
        case WorkerTokenConfirmed():
            return replace(state, token_confirmed=True)
        case EngineAnswered():
            return _milestone(replace(state, engine_answered=True), 70)
        case ModelLoaded():
            loaded = replace(state, model_loaded=True, endpoints=event.endpoints, context_tokens=event.context_tokens)
            return _milestone(loaded, 80)
        case EngineWarmedUp():
            return _milestone(replace(state, warmed_up=True), 95)
        case InstanceReady():
            return _milestone(replace(state, status="ready", error_code="", error_message=""), 100)
        case InstanceStartupFailed():
            return _failed(state, "startup_failed", event.code, event.message)
        case StartupResumed():
            return replace(state, status="booting", error_code="", error_message="", boot_clock_started_at=at)
        case WorkerLost():
            return _lost(state, at)
        case DrainStarted():
            return replace(
                state,
                status="draining",
                drain_started_at=at,
                drain_deadline_s=event.deadline_s,
                drain_reason=event.reason,
            )
        case WorkerDrained():
            return replace(state, drained=True)
        case TerminationRequested():
            return replace(state, status="terminating", termination_reason=event.reason)
        case ServerSeenGone():
            return replace(state, gone_sightings=state.gone_sightings + 1, seen_gone_at=at)
        case InstanceTerminated():
            return replace(state, status="terminated", termination_reason=event.reason)
        case InstanceArchived():
            return replace(state, status="archived")
        case ReinstallRequested():
            return _reinstalling(state, at)
        case ServerReinstalled():
            return replace(state, reinstall_wanted=False)
        case _:
            assert_never(event)


def _resized(volumes: dict[str, VolumeDiscovered], event: VolumeResized) -> dict[str, VolumeDiscovered]:
    known = volumes.get(event.provider_volume_id)
    return {**volumes, event.provider_volume_id: replace(known, size_gb=event.size_gb)} if known else volumes


def _bootstrapped(state: Instance, phase: str) -> Instance:
    if phase == "done":
        return _milestone(replace(state, bootstrap_phase=phase, status="starting"), 60)
    return _milestone(replace(state, bootstrap_phase=phase), 55)


def _lost(state: Instance, at: datetime) -> Instance:
    """A lost worker gets as long to come back as it had to start."""
    return replace(state, status="unavailable", error_code="WAITING_FOR_WORKER_HEARTBEAT", boot_clock_started_at=at)


def _failed(state: Instance, status: Status, code: str, message: str) -> Instance:
    return replace(state, status=status, error_code=code, error_message=message, reinstall_wanted=False)


def _registered(state: Instance, event: WorkerRegistered) -> Instance:
    return _milestone(
        replace(
            state,
            status="starting" if state.status in {"booting", "installing"} else state.status,
            worker_id=event.worker_id,
            token_sha256=event.token_sha256,
            token_confirmed=False,
            engine_url=event.engine_url,
            agent_url=event.agent_url,
            agent_version=event.agent_version,
            agent_sha256=event.agent_sha256,
        ),
        60,
    )


def _reinstalling(state: Instance, at: datetime) -> Instance:
    """The server stays; everything on it begins anew, so the worker must prove itself again."""
    return replace(
        state,
        status="booting",
        milestone_percent=45,
        bootstrap_phase="",
        worker_id=None,
        token_sha256="",
        token_confirmed=False,
        engine_answered=False,
        model_loaded=False,
        endpoints=(),
        context_tokens=0,
        warmed_up=False,
        drained=False,
        drain_started_at=None,
        gone_sightings=0,
        reinstall_wanted=True,
        error_code="",
        error_message="",
        boot_clock_started_at=at,
    )
