"""The door to providers of servers, as types; infra/providers holds the adapters, infra/clouds.py finds the right one.

    account (organisation, provider) ──> Clouds.of ──> Cloud ──┬─ servers: every provider
                                                               └─ volumes, ports, offers: where it has them, else None

Existence is three-valued: present, certainly absent, or unknown (a timeout, a 401, 429 or 5xx, a partial page). Only a
complete, trusted answer makes an absence. The surprising rule: ids are a provider's own and complete, so whoever holds
one needs nothing else to find the thing: an adapter whose ids hold within a zone writes "<zone>/<id>".
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from domain.ids import OrganizationId

RefusalKind = Literal["out_of_stock", "quota", "auth", "not_found", "permanent"]
TroubleKind = Literal["rate_limited", "transient"]
Stock = Literal["available", "scarce", "out", "unknown"]


class ServerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One server to be created.

    Attributes:
        name: fixed for the attempt, so that creating twice creates once.
        tags: whose it is, signed (server_tags.py); an adapter keeps them on the server and on each of its volumes.
        agent_environment: SPEC 3.1, for the worker agent; holds its one-time token.
        disk_gb: wanted size of its boot volume; 0 leaves it to the provider.
        image: what it boots, in the provider's own words; empty: the adapter's choice for its type.
    """

    name: str
    tags: Mapping[str, str]
    zone: str
    instance_type: str
    agent_environment: Mapping[str, str]
    disk_gb: int = 0
    image: str = ""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server as its provider lists it; `ip_address` is empty until it has one."""

    provider_instance_id: str
    name: str
    tags: Mapping[str, str]
    running: bool
    ip_address: str
    zone: str = ""
    created_at: datetime | None = None


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A block volume; `attached_to` is the server's id, empty when it belongs to none. Sizes in GB (10^9 bytes)."""

    provider_volume_id: str
    name: str
    volume_type: str
    size_gb: int
    is_boot: bool
    attached_to: str
    tags: Mapping[str, str]
    created_at: datetime | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider rents out in a zone now; price None where it does not say one in EUR."""

    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_micros_per_hour: int | None
    stock: Stock = "unknown"


class Present(msgspec.Struct, frozen=True):
    server: Server


class Absent(msgspec.Struct, frozen=True):
    pass


class Unknown(msgspec.Struct, frozen=True):
    reason: str


Existence = Present | Absent | Unknown


class CloudRefusedError(Exception):
    """The provider said no, and nothing happened for certain: SPEC's code and the provider's own words.

    `kind` says what kind of no: another zone or type may do for "out_of_stock" and "quota", nothing for the others.
    """

    def __init__(self, code: str, message: str, kind: RefusalKind = "permanent") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.kind = kind


class CloudUnavailableError(OSError):
    """The provider gave no trusted answer; whether the call took effect is unknown.

    `retry_after_s`: as the provider asked for, 0 when it did not say.
    """

    def __init__(self, message: str, kind: TroubleKind = "transient", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class CloudTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter declares of its provider; the simulation and the conformance suite take it at its word.

    Attributes:
        list_lag_s: a created server may be missing from a listing or a look by name this long, a deleted one be in it.
        creates_idempotently: the provider itself makes one server of two calls with one name.
        keeps_servers: deleting gives a host back and destroys nothing.
        reached_by_ssh: a server can be installed through a Shell.
        installs_itself: a new server runs the bootstrap by itself (cloud-init); else it is installed through a Shell.
        stops_billing_when_off: a server that powers itself off costs nothing any more.
    """

    list_lag_s: float = 0.0
    creates_idempotently: bool = False
    keeps_servers: bool = False
    reached_by_ssh: bool = True
    installs_itself: bool = True
    stops_billing_when_off: bool = False


class Volumes(Protocol):
    """Block volumes. Every call may be repeated."""

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        """Those attached to a server."""
        ...

    async def list_own_volumes(self) -> Sequence[Volume]:
        """All of the account that carry our platform's tag, attached or not."""
        ...

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown: ...

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        """Grows it; a volume that is as large already is left alone."""
        ...

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        """One volume for one name, however often it is asked for."""
        ...

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None: ...

    async def delete_volume(self, provider_volume_id: str) -> None:
        """In use is no success: CloudUnavailableError, to be tried again."""
        ...


class Ports(Protocol):
    """The provider's firewall."""

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        """Lets TCP in from everywhere; what was open stays open."""
        ...


class Offers(Protocol):
    """What can be rented, at what price, and whether there is any."""

    async def list_offers(self) -> Sequence[Offer]:
        """Of every zone that the account may use."""
        ...


class Cloud(Protocol):
    """One account at a provider of servers. Every call may be repeated.

    Every method raises CloudRefusedError (no, for certain) or CloudUnavailableError (nobody knows), nothing else.
    """

    @property
    def traits(self) -> CloudTraits: ...

    @property
    def volumes(self) -> Volumes | None: ...

    @property
    def ports(self) -> Ports | None: ...

    @property
    def offers(self) -> Offers | None: ...

    async def create_server(self, request: ServerRequest) -> Server: ...

    async def start_server(self, provider_instance_id: str) -> None: ...

    async def stop_server(self, provider_instance_id: str) -> None:
        """Switches it off; its disks and its price may stay."""
        ...

    async def reinstall_server(self, provider_instance_id: str) -> None:
        """Makes it as it was when new, and running."""
        ...

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        """By its id, or by its name in a zone ("" everywhere)."""
        ...

    async def list_servers(self) -> Sequence[Server]:
        """All of the account that carry our platform's tag, in every zone; complete, or CloudUnavailableError."""
        ...

    async def delete_server(self, provider_instance_id: str) -> None:
        """Its volumes stay, where the provider has volumes. A server that is gone already is no error."""
        ...


class Account(msgspec.Struct, frozen=True):
    """Whose account at which provider; a provider without accounts (`local`) has one of the platform's ("_")."""

    organization: OrganizationId
    provider: str


class Clouds(Protocol):
    """Finds the adapter of an organisation's account. Raises OSError: the vault is away, nobody knows."""

    async def of(self, organization: OrganizationId, provider: str, /) -> Cloud | None:
        """None: there is no such provider, or the organisation lacks credentials for it."""
        ...

    async def accounts(self) -> Sequence[Account]:
        """Every account that has credentials now."""
        ...


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a command on a host ended; `output` is the end of what it printed, both streams."""

    exit_status: int
    output: str


class Shell(Protocol):
    """Runs our own bootstrap on a host by SSH; the host's key is pinned at the first use.

    Raises:
        CloudRefusedError: the host shows another key, or refuses ours.
        CloudUnavailableError: not reached, or cut off; the command may have run.
    """

    async def run(
        self, organization: OrganizationId, provider: str, ip_address: str, script: str, *, timeout_s: float
    ) -> CommandRun: ...


class WorkerProbe(Protocol):
    """Asks an agent itself, when its heartbeats stay away."""

    async def __call__(self, agent_url: str, /) -> bool:
        """True when its readiness page answers 200 within a few seconds."""
        ...


class LastHeard(Protocol):
    """When a worker's last heartbeat came, by the telemetry stream; None: not within the stream's memory.

    Raises:
        OSError: the stream cannot be read, so nothing is known.
    """

    async def __call__(self, organization: OrganizationId, instance_id: str, /) -> datetime | None: ...
