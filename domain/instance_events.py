"""What can happen to an instance; how it changes the instance's state stands in instance_state.py.

requested ─> create intended ─> created ─> started ─> address ─> booted ─> registered ─> engine, model, warm ─> ready
ready ─> drain started ─> drained ─> termination requested ─> seen gone, twice ─> terminated ─> archived
"""

from typing import ClassVar

import msgspec

from domain.activation import Flag
from domain.ids import DeploymentId, WorkerId


class InstanceRequested(msgspec.Struct, frozen=True, kw_only=True):
    """`activated`: the flags that it begins with."""

    SCHEMA: ClassVar[int] = 2

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


class InstanceActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class InstanceDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    """It goes on running, and costing; it is not given requests any more."""

    flag: Flag


class ServerCreateIntended(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the provider is called: fixed name and tags make an unknown outcome findable."""

    attempt: int
    server_name: str


class ServerCreated(msgspec.Struct, frozen=True, kw_only=True):
    attempt: int
    provider_instance_id: str


class ServerCreateFailed(msgspec.Struct, frozen=True, kw_only=True):
    attempt: int
    code: str
    message: str


class VolumeDiscovered(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    volume_type: str
    size_gb: int
    is_boot: bool
    delete_on_terminate: bool


class VolumeResized(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    size_gb: int


class VolumeDeleted(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str


class ServerStarted(msgspec.Struct, frozen=True):
    pass


class ServerStartFailed(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class AddressAssigned(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str


class PortsOpened(msgspec.Struct, frozen=True, kw_only=True):
    ports: tuple[int, ...]


class InstanceBooted(msgspec.Struct, frozen=True):
    """The server runs and its id is recorded: provisioning is over."""


class SshReached(msgspec.Struct, frozen=True):
    pass


class BootstrapPhaseDone(msgspec.Struct, frozen=True, kw_only=True):
    phase: str


class WorkerRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """The agent on the server reported in. Only a hash of its token is kept."""

    worker_id: WorkerId
    token_sha256: str
    token_prefix: str
    engine_url: str
    agent_url: str
    agent_version: str
    agent_sha256: str


class WorkerTokenConfirmed(msgspec.Struct, frozen=True):
    """The agent used its own token, so the bootstrap token is spent for good."""


class EngineAnswered(msgspec.Struct, frozen=True):
    pass


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine says of itself.

    Attributes:
        endpoints: what it answers with the model, in the words of a key's scope; empty when it did not say.
        context_tokens: the longest prompt and answer together; 0 when it did not say.
    """

    SCHEMA: ClassVar[int] = 2

    endpoints: tuple[str, ...]
    context_tokens: int


class EngineWarmedUp(msgspec.Struct, frozen=True):
    pass


class InstanceReady(msgspec.Struct, frozen=True):
    pass


class InstanceStartupFailed(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class StartupResumed(msgspec.Struct, frozen=True):
    """A worker that had been given up as too late reported after all."""


class WorkerLost(msgspec.Struct, frozen=True, kw_only=True):
    reason: str


class DrainStarted(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    deadline_s: int


class WorkerDrained(msgspec.Struct, frozen=True):
    pass


class TerminationRequested(msgspec.Struct, frozen=True, kw_only=True):
    reason: str


class ServerSeenGone(msgspec.Struct, frozen=True):
    """The provider did not know the server; one sighting is not proof."""


class InstanceTerminated(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    deleted_by_provider: bool = False


class InstanceArchived(msgspec.Struct, frozen=True):
    pass


class ReinstallRequested(msgspec.Struct, frozen=True):
    pass


class ServerReinstalled(msgspec.Struct, frozen=True):
    """The server is as it was when new: its agent begins again, with its bootstrap token."""


InstanceEvent = (
    InstanceRequested
    | InstanceActivated
    | InstanceDeactivated
    | ServerCreateIntended
    | ServerCreated
    | ServerCreateFailed
    | VolumeDiscovered
    | VolumeResized
    | VolumeDeleted
    | ServerStarted
    | ServerStartFailed
    | AddressAssigned
    | PortsOpened
    | InstanceBooted
    | SshReached
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
    | DrainStarted
    | WorkerDrained
    | TerminationRequested
    | ServerSeenGone
    | InstanceTerminated
    | InstanceArchived
    | ReinstallRequested
    | ServerReinstalled
)
