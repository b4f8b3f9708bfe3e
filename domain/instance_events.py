"""What can happen to an instance; how it changes the instance's state stands in instance_state.py.

requested ─> create intended ─> created ─> started ─> address ─> booted ─> registered ─> engine, model, warm ─> ready
ready ─> drain started ─> drained ─> termination requested ─> seen gone, twice ─> volumes gone ─> terminated ─> archived
lost, or no stock ─> seen gone, twice ─> volumes gone ─> server discarded ─> create intended (attempt + 1)
"""

from typing import ClassVar

import msgspec

from domain.activation import Flag
from domain.ids import DeploymentId, WorkerId
from domain.place import Place

MAX_PROVIDER_WORDS = 500
MAX_BOOTSTRAP_WORDS = 8_000
"""Characters that are kept of what a provider or an installation said."""


class InstanceRequested(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, and where.

    Attributes:
        activated: the flags that it begins with.
        alternatives: where else it may be rented, in this order, when the place that it names has none left.
        disk_gb: wanted size of its boot volume; 0 leaves it to the provider.
        context_tokens: that its engine is told to serve; 0 leaves it to the engine.
    """

    SCHEMA: ClassVar[int] = 3

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


class InstanceActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class InstanceDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    """It goes on running, and costing; it is not given requests any more."""

    flag: Flag


class ServerCreateIntended(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the provider is called: fixed name and tags make an unknown outcome findable.

    `choice`: 0 where the request says, n at its n-th alternative.
    """

    SCHEMA: ClassVar[int] = 2

    attempt: int
    server_name: str
    choice: int = 0


class ServerCreated(msgspec.Struct, frozen=True, kw_only=True):
    attempt: int
    provider_instance_id: str


class ServerCreateFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt has no server. Where there was no room, the next place is tried, if there is one."""

    attempt: int
    code: str
    message: str


class VolumeDiscovered(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    volume_type: str
    size_gb: int
    is_boot: bool
    delete_on_terminate: bool


class VolumesListed(msgspec.Struct, frozen=True):
    """Every volume of the server is on record."""


class VolumeResized(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str
    size_gb: int


class VolumeResizeFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Not fatal: the server starts with the volume as it is."""

    provider_volume_id: str
    code: str
    message: str


class VolumeDeleted(msgspec.Struct, frozen=True, kw_only=True):
    provider_volume_id: str


class ServerStarted(msgspec.Struct, frozen=True):
    pass


class ServerStartFailed(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class ServerReplacementRequested(msgspec.Struct, frozen=True, kw_only=True):
    """This server is given up, the instance is not: a new one takes its place as soon as it is seen gone."""

    reason: str


class ServerDiscarded(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt is over: its server and its volumes are gone, and the instance goes on without."""

    attempt: int
    provider_instance_id: str


class ProviderCallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A call without a trusted answer, or refused while nothing else may be done; it is tried again.

    Attributes:
        call: of the Cloud port, e.g. "create_server".
        kind: rate_limited, transient, auth, quota ...
        message: the provider's own words, at most MAX_PROVIDER_WORDS characters.
    """

    call: str
    kind: str
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


class BootstrapFailed(msgspec.Struct, frozen=True, kw_only=True):
    """`phase` did not succeed; `message`: the end of what it printed, at most MAX_BOOTSTRAP_WORDS characters."""

    phase: str
    message: str


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
    """The agent used its own token, so the bootstrap token is spent for good; or the new one that it was offered."""


class WorkerTokenRotated(msgspec.Struct, frozen=True, kw_only=True):
    """A new token was offered. The old one stays valid until the new one is used."""

    token_sha256: str
    token_prefix: str


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


class TerminationOverdue(msgspec.Struct, frozen=True, kw_only=True):
    """Ending takes suspiciously long: somebody should look. It is still being tried."""

    after_s: int


class InstanceTerminated(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    deleted_by_provider: bool = False


class InstanceArchived(msgspec.Struct, frozen=True):
    pass


class ReinstallRequested(msgspec.Struct, frozen=True):
    pass


class ServerReinstalled(msgspec.Struct, frozen=True):
    """The server is as it was when new: its agent begins again, with its bootstrap token."""


ServerEvent = (
    ServerCreateIntended
    | ServerCreated
    | ServerCreateFailed
    | VolumeDiscovered
    | VolumesListed
    | VolumeResized
    | VolumeResizeFailed
    | VolumeDeleted
    | ServerStarted
    | ServerStartFailed
    | AddressAssigned
    | PortsOpened
    | InstanceBooted
    | ServerReplacementRequested
    | ServerDiscarded
    | ProviderCallFailed
)
"""What a provider did, or did not."""
WorkerEvent = (
    SshReached
    | BootstrapPhaseDone
    | BootstrapFailed
    | WorkerRegistered
    | WorkerTokenConfirmed
    | WorkerTokenRotated
    | EngineAnswered
    | ModelLoaded
    | EngineWarmedUp
    | InstanceReady
    | InstanceStartupFailed
    | StartupResumed
    | WorkerLost
)
"""What happens on the server."""
WishEvent = (
    InstanceRequested
    | InstanceActivated
    | InstanceDeactivated
    | DrainStarted
    | WorkerDrained
    | TerminationRequested
    | TerminationOverdue
    | ServerSeenGone
    | InstanceTerminated
    | InstanceArchived
    | ReinstallRequested
    | ServerReinstalled
)
"""What somebody wants of the instance, and how it ends."""
InstanceEvent = ServerEvent | WorkerEvent | WishEvent
