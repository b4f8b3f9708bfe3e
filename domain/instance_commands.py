"""What can be asked of an instance, and the news that the world reports about it. The answers are in instance.py."""

import msgspec

from domain.activation import Flag
from domain.ids import DeploymentId, WorkerId

DRAIN_DEADLINE_S = 300
"""Running answers get this long to finish when the caller names no other bound."""


class RequestInstance(msgspec.Struct, frozen=True, kw_only=True):
    """`activated`: the flags that it begins with; nothing is rented before both are set."""

    deployment_id: DeploymentId
    ordinal: int
    model_code: str
    engine: str
    provider: str
    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    price_eur_micros_per_hour: int
    startup_timeout_s: int
    activated: tuple[Flag, ...]


class ActivateInstance(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateInstance(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class IntendServerCreate(msgspec.Struct, frozen=True, kw_only=True):
    server_name: str


class RecordServerCreated(msgspec.Struct, frozen=True, kw_only=True):
    provider_instance_id: str


class RecordServerCreateFailed(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class RecordVolume(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    volume_type: str
    size_gb: int
    is_boot: bool
    delete_on_terminate: bool


class RecordVolumeResized(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    size_gb: int


class RecordVolumeDeleted(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str


class RecordServerStarted(msgspec.Struct, frozen=True):
    pass


class RecordServerStartFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Refused power-on: the server is cleaned up, with SPEC 2.2's deletion reason."""

    code: str
    message: str


class RecordAddress(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str


class RecordPortsOpened(msgspec.Struct, frozen=True, kw_only=True):
    ports: tuple[int, ...]


class RecordSshReached(msgspec.Struct, frozen=True):
    pass


class RecordBootstrapPhase(msgspec.Struct, frozen=True, kw_only=True):
    phase: str


class RegisterWorker(msgspec.Struct, frozen=True, kw_only=True):
    worker_id: WorkerId
    token_sha256: str
    token_prefix: str
    engine_url: str
    agent_url: str
    agent_version: str
    agent_sha256: str


class ObserveWorker(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat, as far as it may change the instance's state.

    Attributes:
        endpoints, context_tokens: what the engine says of itself; see ModelLoaded.
        expected_agent_sha256: empty where no particular agent build is demanded.
    """

    status: str
    engine_up: bool
    model_loaded: bool
    warmed_up: bool
    queue_depth: int
    agent_sha256: str
    endpoints: tuple[str, ...] = ()
    context_tokens: int = 0
    expected_agent_sha256: str = ""


class RecordWorkerLost(msgspec.Struct, frozen=True, kw_only=True):
    reason: str


class FailStartup(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class StopInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What a person means by stop: let running answers finish, then end it."""

    reason: str
    drain_deadline_s: int = DRAIN_DEADLINE_S


class RequestTermination(msgspec.Struct, frozen=True, kw_only=True):
    """End it now, whatever it does."""

    reason: str


class RecordServerGone(msgspec.Struct, frozen=True):
    """A complete, trusted answer of the provider did not contain the server."""


class ArchiveInstance(msgspec.Struct, frozen=True):
    pass


class RequestReinstall(msgspec.Struct, frozen=True):
    pass


class RecordServerReinstalled(msgspec.Struct, frozen=True):
    pass


InstanceCommand = (
    RequestInstance
    | ActivateInstance
    | DeactivateInstance
    | IntendServerCreate
    | RecordServerCreated
    | RecordServerCreateFailed
    | RecordVolume
    | RecordVolumeResized
    | RecordVolumeDeleted
    | RecordServerStarted
    | RecordServerStartFailed
    | RecordAddress
    | RecordPortsOpened
    | RecordSshReached
    | RecordBootstrapPhase
    | RegisterWorker
    | ObserveWorker
    | RecordWorkerLost
    | FailStartup
    | StopInstance
    | RequestTermination
    | RecordServerGone
    | ArchiveInstance
    | RequestReinstall
    | RecordServerReinstalled
)
