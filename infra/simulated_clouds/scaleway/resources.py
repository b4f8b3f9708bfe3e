"""What an account owns at the simulated Scaleway, as plain records: servers, volumes, addresses, firewalls.

    Server ──volumes──> Volume        Server ──security_group──> SecurityGroup ──rules──> Rule
       └──address──> Ip

Moments are the clock's seconds. The surprising rule: who made a volume does not matter for its life. It outlives the
server that it was made for, and nobody but its owner ever deletes it.
"""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

ServerState = Literal["stopped", "starting", "running", "stopping", "stopped in place", "locked"]
VolumeKind = Literal["sbs_volume", "l_ssd"]
VolumeState = Literal["creating", "available", "in_use", "resizing", "deleting"]


@dataclass(frozen=True)
class Account:
    """A project with one API key; `secret_key` is what X-Auth-Token carries."""

    organization_id: str
    project_id: str
    access_key: str
    secret_key: str


@dataclass
class Volume:
    """`sbs_volume` belongs to the Block API, `l_ssd` to the Instance API; `server_id` is empty while detached."""

    volume_id: str
    zone: str
    project_id: str
    name: str
    kind: VolumeKind
    size: int
    created_at: float
    updated_at: float
    state: VolumeState = "creating"
    tags: list[str] = field(default_factory=list)
    server_id: str = ""
    reference_id: str = ""
    attached_at: float = 0.0
    last_detached_at: float | None = None
    perf_iops: int = 5000


@dataclass
class Ip:
    """`dynamic`: came with a start and goes with the stop; the others are reserved, paid for, and stay."""

    ip_id: str
    zone: str
    project_id: str
    address: str
    dynamic: bool
    created_at: float
    server_id: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass
class Rule:
    """`port_from` None: every port; one port has no `port_to`."""

    rule_id: str
    direction: str
    action: str
    protocol: str
    ip_range: str
    port_from: int | None
    port_to: int | None
    position: int
    editable: bool = True


@dataclass
class SecurityGroup:
    """A firewall; every zone of a project has a default one from the beginning."""

    group_id: str
    zone: str
    project_id: str
    name: str
    description: str
    stateful: bool
    inbound: str
    outbound: str
    project_default: bool
    created_at: float
    updated_at: float
    enable_default_security: bool = True
    tags: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)


@dataclass
class Server:
    """`volume_ids`: by slot, "0" is booted from; `user_data` holds "cloud-init" among others."""

    server_id: str
    zone: str
    project_id: str
    name: str
    commercial_type: str
    image_id: str
    created_at: float
    updated_at: float
    group_id: str
    state: ServerState = "stopped"
    state_detail: str = ""
    tags: list[str] = field(default_factory=list)
    dynamic_ip_required: bool = True
    protected: bool = False
    created_by_call: int = 0
    boot_type: str = "local"
    volume_ids: dict[str, str] = field(default_factory=dict)
    user_data: dict[str, bytes] = field(default_factory=dict)
    holds_slot: bool = False
    """Stock is taken by what stands on a hypervisor: from power on to power off."""


@dataclass(frozen=True)
class Gone:
    """A deleted server that lists may still show."""

    server: Server
    at: float


def mac_address(server_id: str) -> str:
    tail = UUID(server_id).bytes[:4]
    return "de:00:" + ":".join(f"{byte:02x}" for byte in tail)
