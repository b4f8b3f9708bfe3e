"""What can be asked of an instance, and the news that the world reports about it. The answers are in instance.py."""

import msgspec

from domain.activation import Flag
from domain.ids import DeploymentId, WorkerId
from domain.place import Place

DRAIN_DEADLINE_S = 300
"""Running answers get this long to finish when the caller names no other bound."""
GONE_CONFIRMATION_S = 2
"""Two sightings of an absent server lie at least this far apart."""


class RequestInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted; see InstanceRequested. `activated`: nothing is rented before both flags are set."""

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
    alternatives: tuple[Place, ...] = ()
    disk_gb: int = 0
    context_tokens: int = 0


class ActivateInstance(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateInstance(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class IntendServerCreate(msgspec.Struct, frozen=True, kw_only=True):
    """Which place is next is the instance's own knowledge."""

    server_name: str


class RecordServerCreated(msgspec.Struct, frozen=True, kw_only=True):
    """`attempt`: whose server it is; 0: the present one's. News of an attempt that is over changes nothing."""

    provider_instance_id: str
    attempt: int = 0


class RecordServerCreateFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt has no server: refused, or (CREATE_ABANDONED) certainly not found when any answer had to be there.

    `attempt`: as in RecordServerCreated.
    """

    code: str
    message: str
    attempt: int = 0


class RecordVolume(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    volume_type: str
    size_gb: int
    is_boot: bool
    delete_on_terminate: bool


class RecordVolumes(msgspec.Struct, frozen=True, kw_only=True):
    """All the volumes that the server has now."""

    volumes: tuple[RecordVolume, ...]


class RecordVolumeResized(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    size_gb: int


class RecordVolumeResizeFailed(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    code: str
    message: str


class RecordVolumeDeleted(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str


class RecordServerStarted(msgspec.Struct, frozen=True):
    pass


class RecordServerStartFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Refused power-on, or an attempt that took too long: the server is cleaned up. Out of stock, with another place
    left, the instance goes on there; else it ends, with SPEC 2.2's deletion reason.
    """

    code: str
    message: str


class RequestReplacement(msgspec.Struct, frozen=True, kw_only=True):
    """A lost or failed server shall make room for another."""

    reason: str


class RecordProviderTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """See ProviderCallFailed. Said again before anything else happened, it is no news."""

    call: str
    kind: str
    message: str


class RecordAddress(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str


class RecordPortsOpened(msgspec.Struct, frozen=True, kw_only=True):
    ports: tuple[int, ...]


class RecordSshReached(msgspec.Struct, frozen=True):
    pass


class RecordBootstrapPhase(msgspec.Struct, frozen=True, kw_only=True):
    phase: str


class RecordBootstrapFailed(msgspec.Struct, frozen=True, kw_only=True):
    phase: str
    message: str


class RegisterWorker(msgspec.Struct, frozen=True, kw_only=True):
    worker_id: WorkerId
    token_sha256: str
    token_prefix: str
    engine_url: str
    agent_url: str
    agent_version: str
    agent_sha256: str


class RotateWorkerToken(msgspec.Struct, frozen=True, kw_only=True):
    """Offers the worker a new token; only its hash and its beginning are kept."""

    token_sha256: str
    token_prefix: str


class ObserveWorker(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat, as far as it may change the instance's state.

    Attributes:
        endpoints, context_tokens: what the engine says of itself; see ModelLoaded.
        expected_agent_sha256: empty where no particular agent build is demanded.
        token_sha256: of the token that it came with; using an offered one makes it the only one.
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
    token_sha256: str = ""


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


class RecordServerGone(msgspec.Struct, frozen=True, kw_only=True):
    """A complete, trusted answer of the provider did not contain the server.

    Attributes:
        confirm_after_s: how far apart two sightings must lie; the provider's listing lag, where it is the longer.
        attempt: as in RecordServerCreated.
    """

    confirm_after_s: float = GONE_CONFIRMATION_S
    attempt: int = 0


class RecordOverdue(msgspec.Struct, frozen=True):
    """Ending has taken OVERDUE_S."""


class ArchiveInstance(msgspec.Struct, frozen=True):
    pass


class RequestReinstall(msgspec.Struct, frozen=True):
    pass


class RecordServerReinstalled(msgspec.Struct, frozen=True):
    pass


ServerCommand = (
    IntendServerCreate
    | RecordServerCreated
    | RecordServerCreateFailed
    | RecordVolume
    | RecordVolumes
    | RecordVolumeResized
    | RecordVolumeResizeFailed
    | RecordVolumeDeleted
    | RecordServerStarted
    | RecordServerStartFailed
    | RecordAddress
    | RecordPortsOpened
    | RequestReplacement
    | RecordProviderTrouble
    | RecordServerGone
)
"""About the server; decided in instance_server.py."""
WorkerCommand = (
    RecordSshReached
    | RecordBootstrapPhase
    | RecordBootstrapFailed
    | RegisterWorker
    | RotateWorkerToken
    | ObserveWorker
    | RecordWorkerLost
    | FailStartup
)
"""About what runs on it; decided in instance_worker.py."""
WishCommand = (
    RequestInstance
    | ActivateInstance
    | DeactivateInstance
    | StopInstance
    | RequestTermination
    | RecordOverdue
    | ArchiveInstance
    | RequestReinstall
    | RecordServerReinstalled
)
"""About the instance itself; decided in instance.py."""
InstanceCommand = ServerCommand | WorkerCommand | WishCommand
