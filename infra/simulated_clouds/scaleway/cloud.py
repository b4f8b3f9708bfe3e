"""The simulated Scaleway itself: every record, what takes how long, what is left; no HTTP, no processes.

    call ──> servers.py, volumes.py, network.py ──> records here ──> clock.at(...) ──> running, stopped, gone
                                                           └──> machines: what stands behind a running server

It is all in memory and ends with its process. The surprising rule: a list and a look differ. What was made or deleted
within `list_lag_s` is missing from lists, or still in them, while a look by id always tells the truth.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import uuid4

from infra.providers.loopback import Place, choose_place
from infra.simulated_clouds.scaleway.clock import Clock
from infra.simulated_clouds.scaleway.errors import (
    ApiError,
    not_found,
    out_of_stock,
    permissions_denied,
    quotas_exceeded,
)
from infra.simulated_clouds.scaleway.errors import unknown_resource as unknown
from infra.simulated_clouds.scaleway.offers import Offer
from infra.simulated_clouds.scaleway.resources import Account, Gone, Ip, SecurityGroup, Server, Volume

KEPT_CALLS = 10_000
KEPT_GONE = 1_000


@dataclass
class Delays:
    """How long things take, in simulated seconds; those of an L4 in fr-par-2, roughly."""

    start_s: float = 20.0
    stop_s: float = 10.0
    volume_s: float = 2.0
    resize_s: float = 3.0
    detach_s: float = 1.0
    delete_volume_s: float = 1.0


class Received(NamedTuple):
    """One call as it came in; `resource_id` is empty where the path names none."""

    operation: str
    zone: str
    resource_id: str


class Machines(Protocol):
    """What stands behind the servers. No method waits or raises."""

    def switch_on(self, server: Server, place: Place, offer: Offer) -> None: ...

    def switch_off(self, server_id: str) -> None: ...

    def discard(self, server_id: str) -> None:
        """Its disk is gone; whatever runs on it ends."""
        ...

    def powered_off(self) -> Sequence[str]:
        """The servers that switched themselves off since they were switched on."""
        ...


class NoMachines:
    """Servers without anything behind them, for whoever only wants the API."""

    def switch_on(self, server: Server, place: Place, offer: Offer) -> None:
        pass

    def switch_off(self, server_id: str) -> None:
        pass

    def discard(self, server_id: str) -> None:
        pass

    def powered_off(self) -> Sequence[str]:
        return ()


class SimulatedCloud:
    """Every project's resources in every zone.

    Attributes:
        stock: servers left, by (zone, commercial type); what is not in it is plenty.
        quotas: the most servers of a commercial type in one organisation; what is not in it is unlimited.
        list_lag_s: how far lists are behind.
        calls: the newest KEPT_CALLS, oldest first.
    """

    def __init__(self, clock: Clock, machines: Machines | None = None) -> None:
        self.clock = clock
        self.machines: Machines = machines or NoMachines()
        self.delays = Delays()
        self.accounts: dict[str, Account] = {}
        self.servers: dict[str, Server] = {}
        self.volumes: dict[str, Volume] = {}
        self.ips: dict[str, Ip] = {}
        self.security_groups: dict[str, SecurityGroup] = {}
        self.places: dict[str, Place] = {}
        self.stock: dict[tuple[str, str], int] = {}
        self.quotas: dict[str, int] = {}
        self.list_lag_s = 0.0
        self.gone: deque[Gone] = deque(maxlen=KEPT_GONE)
        self.calls: deque[Received] = deque(maxlen=KEPT_CALLS)

    def add_account(self, account: Account) -> None:
        """From now on its secret key is known."""
        self.accounts[account.secret_key] = account

    def organization_of(self, project_id: str) -> str:
        owners = [a.organization_id for a in self.accounts.values() if a.project_id == project_id]
        return owners[0] if owners else project_id

    def server(self, account: Account, zone: str, server_id: str) -> Server:
        found = self.servers.get(server_id)
        if found is None or (found.zone, found.project_id) != (zone, account.project_id):
            raise unknown("Server", server_id)
        return found

    def block_volume(self, account: Account, zone: str, volume_id: str) -> Volume:
        return self._volume(account, zone, volume_id, "sbs_volume", not_found("volume", volume_id))

    def local_volume(self, account: Account, zone: str, volume_id: str) -> Volume:
        return self._volume(account, zone, volume_id, "l_ssd", not_found("instance_volume", volume_id))

    def _volume(self, account: Account, zone: str, volume_id: str, kind: str, absent: ApiError) -> Volume:
        found = self.volumes.get(volume_id)
        if found is None or (found.kind, found.zone, found.project_id) != (kind, zone, account.project_id):
            raise absent
        return found

    def own_project(self, account: Account, wanted: object, resource: str) -> str:
        """The project that a request names, or the key's own.

        Raises:
            ApiError: 403, it is somebody else's.
        """
        if wanted not in (None, "", account.project_id, account.organization_id):
            raise permissions_denied("write", resource)
        return account.project_id

    def listed_servers(self, account: Account, zone: str) -> list[Server]:
        """Newest first, as a list shows them: late."""
        horizon = self.clock.now - self.list_lag_s
        there = [s for s in self.servers.values() if not self.list_lag_s or s.created_at <= horizon]
        there += [gone.server for gone in self.gone if self.list_lag_s and gone.at > horizon]
        own = [s for s in there if (s.zone, s.project_id) == (zone, account.project_id)]
        return sorted(own, key=lambda server: server.created_at, reverse=True)

    def check_quota(self, account: Account, commercial_type: str) -> None:
        quota = self.quotas.get(commercial_type)
        mine = [s for s in self.servers.values() if self.organization_of(s.project_id) == account.organization_id]
        current = sum(s.commercial_type == commercial_type for s in mine)
        if quota is not None and current >= quota:
            resource = f"compute_servers_type_{commercial_type.replace('-', '_')}"
            raise quotas_exceeded(resource, quota=quota, current=current)

    def check_stock(self, zone: str, commercial_type: str) -> None:
        if self.stock.get((zone, commercial_type), 1) <= 0:
            raise out_of_stock(commercial_type)

    def take_slot(self, server: Server) -> None:
        """Raises ApiError 412 when the last one is taken; a server that has one keeps it."""
        if server.holds_slot:
            return
        self.check_stock(server.zone, server.commercial_type)
        self._count(server, -1)
        server.holds_slot = True

    def free_slot(self, server: Server) -> None:
        if server.holds_slot:
            self._count(server, 1)
            server.holds_slot = False

    def _count(self, server: Server, by: int) -> None:
        key = (server.zone, server.commercial_type)
        if key in self.stock:
            self.stock[key] += by

    def new_address(self, ip_id: str) -> str:
        """A loopback address of its own, remembered with its ports until it is released."""
        self.places[ip_id] = choose_place(ip_id, set(self.places.values()))
        return self.places[ip_id].address

    def release(self, ip: Ip) -> None:
        del self.ips[ip.ip_id]
        self.places.pop(ip.ip_id, None)


def new_id() -> str:
    return str(uuid4())
