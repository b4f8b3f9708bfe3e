"""A provider as it can be: slow, forgetful, late, out of stock. What it has is the truth that the checks look at.

    call ──> fate ──┬─ well          done, after a while
                    ├─ fails_before  an error, nothing done
                    ├─ fails_after   done, and an error all the same
                    ├─ hangs         nothing for CALL_TIMEOUT_S, then an error; done or not
                    ├─ late          an error now, done up to ten minutes later
                    └─ doubled       done twice

It takes its own traits at their word, at their worst: what is younger than `list_lag_s` may not be found; one that does
not create idempotently makes a second server of the same name, while one that does remembers the name after its server
is gone. Killed callers leave their calls to their fates, as the world does.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    Existence,
    Offers,
    Ports,
    Present,
    Server,
    ServerRequest,
    Unknown,
    Volume,
    Volumes,
)
from handlers.server_tags import PLATFORM_TAG
from tests.simulation.chance import Chance, Fate
from tests.simulation.virtual_time import now

T = TypeVar("T")

CALL_TIMEOUT_S = 20.0
LATEST_S = 600.0
BOOT_DISK_GB = 20
ADDRESS_AFTER_S = 8.0
LAGS_S = (0.0, 5.0, 30.0)
FOREIGN_SERVERS = 2
FORGED_NAME = "forged"
"""Somebody's server whose tags are copied from the first of ours, with a signature of their own."""


@dataclass
class Disk:
    id: str
    name: str
    size_gb: int
    attached_to: str
    tags: Mapping[str, str]
    made_at: datetime
    gone_at: datetime | None = None


@dataclass
class Machine:
    """A server that exists, or existed; it costs from `made_at` to `gone_at`.

    `is_double`: made by the provider's own mistake, out of one call of ours.
    """

    id: str
    request: ServerRequest
    made_at: datetime
    on_since: datetime | None = None
    reinstalls: int = 0
    is_double: bool = False
    gone_at: datetime | None = None

    @property
    def exists(self) -> bool:
        return self.gone_at is None


class Watcher(Protocol):
    """Told of what really happens, at the moment when it does."""

    def made(self, machine: Machine) -> None: ...

    def started(self, machine: Machine) -> None: ...

    def deleting(self, machine: Machine) -> None: ...


@dataclass
class Truth:
    """What the provider has."""

    machines: dict[str, Machine] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    sold_out: set[tuple[str, str]] = field(default_factory=set)
    """(zone, instance type) of which there is none left."""
    watchers: list[Watcher] = field(default_factory=list)

    def living(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.exists]

    def delete(self, machine: Machine) -> None:
        if machine.exists:
            for watcher in self.watchers:
                watcher.deleting(machine)
            machine.gone_at, machine.on_since = now(), None
            for disk in self.disks.values():
                if disk.attached_to == machine.id:
                    disk.attached_to = ""


class SimulatedProvider:
    """Implements handlers.cloud_ports.Cloud and its volumes, over a Truth, by chance.

    Attributes:
        fated: how the next call of a name ends, whatever chance says.
    """

    ports: Ports | None = None
    offers: Offers | None = None

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._forged = False
        self._again = False
        self._later: set[asyncio.Task[object]] = set()
        self.truth = Truth()
        self.fated: dict[str, Fate] = {}
        self.traits = CloudTraits(list_lag_s=chance.pick(list(LAGS_S)), creates_idempotently=chance.dice.random() < 0.5)
        self.volumes: Volumes | None = self
        for number in range(FOREIGN_SERVERS):
            self._put(
                ServerRequest(name=f"foreign-{number}", tags={}, zone="z1", instance_type="L", agent_environment={})
            )

    async def create_server(self, request: ServerRequest) -> Server:
        return await self._call("create_server", lambda: self._create(request))

    async def start_server(self, provider_instance_id: str) -> None:
        await self._call("start_server", lambda: self._start(provider_instance_id))

    async def stop_server(self, provider_instance_id: str) -> None:
        await self._call("stop_server", lambda: self._stop(provider_instance_id))

    async def reinstall_server(self, provider_instance_id: str) -> None:
        await self._call("reinstall_server", lambda: self._reinstall(provider_instance_id))

    async def delete_server(self, provider_instance_id: str) -> None:
        await self._call("delete_server", lambda: self._delete(provider_instance_id))

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        try:
            return await self._call("find_server", lambda: self._find(name, zone, provider_instance_id))
        except CloudUnavailableError as unknown:
            return Unknown(str(unknown))

    async def list_servers(self) -> Sequence[Server]:
        return await self._call("list_servers", self._list)

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        return await self._call(
            "list_volumes",
            lambda: [_volume(disk) for disk in self._disks() if disk.attached_to == provider_instance_id],
        )

    async def list_own_volumes(self) -> Sequence[Volume]:
        return await self._call(
            "list_own_volumes", lambda: [_volume(disk) for disk in self._disks() if _is_ours(disk.tags)]
        )

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        def find() -> Volume | Absent:
            found = next((disk for disk in self._disks() if disk.id == provider_volume_id), None)
            return _volume(found) if found else Absent()

        try:
            return await self._call("find_volume", find)
        except CloudUnavailableError as unknown:
            return Unknown(str(unknown))

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        def resize() -> None:
            disk = self.truth.disks.get(provider_volume_id)
            if disk is not None:
                disk.size_gb = max(disk.size_gb, size_gb)

        await self._call("resize_volume", resize)

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        return await self._call("create_volume", lambda: _volume(self._put_disk(name, size_gb, "", tags)))

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        def attach() -> None:
            self.truth.disks[provider_volume_id].attached_to = provider_instance_id

        await self._call("attach_volume", attach)

    async def delete_volume(self, provider_volume_id: str) -> None:
        def delete() -> None:
            disk = self.truth.disks.get(provider_volume_id)
            if disk is None or disk.gone_at is not None:
                return
            holder = self.truth.machines.get(disk.attached_to)
            if holder is not None and holder.exists:
                raise CloudUnavailableError(f"volume {disk.id} is in use")
            disk.gone_at = now()

        await self._call("delete_volume", delete)

    async def _call(self, name: str, deed: Callable[[], T]) -> T:
        """Every call of a provider ends here, in its fate."""
        fate = self.fated.pop(name, None) or self._chance.fate()
        await asyncio.sleep(self._chance.between(0.05, 2.0))
        match fate:
            case "well":
                return deed()
            case "fails_before":
                raise CloudUnavailableError("503: no server is available to handle this request")
            case "fails_after":
                _try(deed)
                raise CloudUnavailableError("connection reset by peer")
            case "hangs":
                await asyncio.sleep(CALL_TIMEOUT_S)
                if self._chance.dice.random() < 0.5:
                    _try(deed)
                raise CloudUnavailableError(f"no answer within {CALL_TIMEOUT_S} s")
            case "late":
                self._do_later(deed)
                raise CloudUnavailableError("504: gateway timeout")
            case "doubled":
                result = deed()
                self._again = True
                _try(deed)
                self._again = False
                return result

    def _do_later(self, deed: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(self._chance.between(1.0, LATEST_S))
            _try(deed)

        task: asyncio.Task[object] = asyncio.create_task(wait())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def settle(self) -> None:
        """Waits until nothing is under way any more."""
        while self._later:
            await asyncio.wait(self._later)

    def _create(self, request: ServerRequest) -> Server:
        if (request.zone, request.instance_type) in self.truth.sold_out or self._chance.strikes("out_of_stock"):
            raise CloudRefusedError("PROVIDER_OUT_OF_STOCK", "The resource is out of stock.", "out_of_stock")
        same = [machine for machine in self.truth.machines.values() if machine.request.name == request.name]
        if self.traits.creates_idempotently and same:
            return _server(same[0])
        return _server(self._put(request))

    def _put(self, request: ServerRequest) -> Machine:
        machine = Machine(f"srv-{len(self.truth.machines) + 1}", request, now(), is_double=self._again)
        self.truth.machines[machine.id] = machine
        self._put_disk(f"{request.name}-boot", BOOT_DISK_GB, machine.id, request.tags)
        for watcher in self.truth.watchers:
            watcher.made(machine)
        if _is_ours(request.tags) and not self._forged:
            self._forged = True
            tags = {**request.tags, "signature": "guessed"}
            self._put(ServerRequest(name=FORGED_NAME, tags=tags, zone="z1", instance_type="L", agent_environment={}))
        return machine

    def _put_disk(self, name: str, size_gb: int, attached_to: str, tags: Mapping[str, str]) -> Disk:
        disk = Disk(f"vol-{len(self.truth.disks) + 1}", name, size_gb, attached_to, tags, now())
        self.truth.disks[disk.id] = disk
        return disk

    def _start(self, server_id: str) -> None:
        machine = self._known(server_id, "PROVIDER_START_FAILED")
        place = (machine.request.zone, machine.request.instance_type)
        if place in self.truth.sold_out or self._chance.strikes("out_of_stock"):
            raise CloudRefusedError("PROVIDER_OUT_OF_STOCK", "The resource is out of stock.", "out_of_stock")
        if machine.on_since is None:
            machine.on_since = now()
            for watcher in self.truth.watchers:
                watcher.started(machine)

    def _stop(self, server_id: str) -> None:
        self._known(server_id, "PROVIDER_STOP_FAILED").on_since = None

    def _reinstall(self, server_id: str) -> None:
        machine = self._known(server_id, "PROVIDER_REINSTALL_FAILED")
        machine.reinstalls += 1
        machine.on_since = now()
        for watcher in self.truth.watchers:
            watcher.started(machine)

    def _delete(self, server_id: str) -> None:
        machine = self.truth.machines.get(server_id)
        if machine is not None:
            self.truth.delete(machine)

    def _find(self, name: str, zone: str, server_id: str) -> Existence:
        """Eventually: what is younger than the lag may not be found, even by its id."""
        if server_id:
            found = [machine for machine in self._listed() if machine.id == server_id]
            return Present(_server(found[0])) if found else Absent()
        found = [m for m in self._listed() if m.request.name == name and zone in ("", m.request.zone)]
        return Present(_server(found[0])) if found else Absent()

    def _list(self) -> Sequence[Server]:
        if self._chance.strikes("partial_listing"):
            raise CloudUnavailableError("page 2 of 3 is missing")
        return [_server(machine) for machine in self._listed() if _is_ours(machine.request.tags)]

    def _listed(self) -> list[Machine]:
        """As listings show it: what is young may be missing."""
        at, lag_s = now(), self.traits.list_lag_s
        return [m for m in self.truth.living() if (at - m.made_at).total_seconds() >= self._chance.between(0, lag_s)]

    def _disks(self) -> list[Disk]:
        return [disk for disk in self.truth.disks.values() if disk.gone_at is None]

    def _known(self, server_id: str, code: str) -> Machine:
        machine = self.truth.machines.get(server_id)
        if machine is None or not machine.exists:
            raise CloudRefusedError(code, f"server {server_id} not found", "not_found")
        return machine


def _try(deed: Callable[[], object]) -> None:
    try:
        deed()
    except (CloudRefusedError, CloudUnavailableError):
        return  # nobody hears of it


def _is_ours(tags: Mapping[str, str]) -> bool:
    return tags.get("platform") == PLATFORM_TAG


def _server(machine: Machine) -> Server:
    on_s = (now() - machine.on_since).total_seconds() if machine.on_since else 0.0
    return Server(
        provider_instance_id=machine.id,
        name=machine.request.name,
        tags=machine.request.tags,
        running=machine.on_since is not None,
        ip_address=f"10.0.0.{machine.id.removeprefix('srv-')}" if on_s >= ADDRESS_AFTER_S else "",
        zone=machine.request.zone,
        created_at=machine.made_at,
    )


def _volume(disk: Disk) -> Volume:
    return Volume(
        provider_volume_id=disk.id,
        name=disk.name,
        volume_type="block",
        size_gb=disk.size_gb,
        is_boot=disk.name.endswith("-boot"),
        attached_to=disk.attached_to,
        tags=disk.tags,
        created_at=disk.made_at,
    )
