"""A provider in memory that can be told how to fail; its volumes, its firewall, and a shell that reaches its servers.

    cloud.refuses_create_in["z1"] = CloudRefusedError(...)      cloud.lag(5)      cloud.creates_late(20)

The surprising rule: unlike a good provider it makes a second server of the same name. So the handlers must look, and
`most_servers_of_one_name` says whether they did.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from msgspec.structs import replace

from domain.ids import OrganizationId
from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    CommandRun,
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

T = TypeVar("T")
BOOT_VOLUME_GB = 20


class Doing(Protocol):
    """Counts effects, and lets a fault strike one of them."""

    async def do(self, name: str, effect: Callable[[], Awaitable[T]]) -> T: ...


@dataclass
class FakeCloud:
    """Servers in memory.

    Attributes:
        refuses_create, refuses_start: in every zone; `..._in` in one.
        late_s: a create gets no answer, and takes effect so many seconds later; for ever after, until set to 0 again.
        blind: a look by name finds nothing.
        hidden_until: server -> when a listing or a look by name shows it; see `lag`.
    """

    effects: Doing
    clock: Callable[[], datetime]
    servers: dict[str, Server] = field(default_factory=dict)
    traits: CloudTraits = field(default_factory=CloudTraits)
    volumes: Volumes | None = None
    ports: Ports | None = None
    offers: Offers | None = None
    requests: list[ServerRequest] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    reinstalled: list[str] = field(default_factory=list)
    refuses_create: CloudRefusedError | None = None
    refuses_start: CloudRefusedError | None = None
    refuses_delete: CloudRefusedError | None = None
    refuses_reinstall: CloudRefusedError | None = None
    refuses_create_in: dict[str, CloudRefusedError] = field(default_factory=dict)
    refuses_start_in: dict[str, CloudRefusedError] = field(default_factory=dict)
    has_address: bool = True
    late_s: float = 0.0
    blind: bool = False
    unknown: str = ""
    hidden_until: dict[str, datetime] = field(default_factory=dict)
    coming: list[tuple[datetime, Server]] = field(default_factory=list)

    def lag(self, seconds: float) -> None:
        self.traits = replace(self.traits, list_lag_s=seconds)

    def with_volumes(self) -> "FakeVolumes":
        """From now on each server is created with a boot volume, and has a firewall."""
        self.volumes = volumes = FakeVolumes(self)
        self.ports = FakePorts(self)
        return volumes

    @property
    def most_servers_of_one_name(self) -> int:
        """Also of those that are gone by now."""
        return max(Counter(request.name for request in self.requests).values(), default=0)

    async def create_server(self, request: ServerRequest) -> Server:
        return await self.effects.do("create_server", lambda: self._create(request))

    async def start_server(self, provider_instance_id: str) -> None:
        await self.effects.do("start_server", lambda: self._start(provider_instance_id))

    async def stop_server(self, provider_instance_id: str) -> None:
        raise NotImplementedError

    async def reinstall_server(self, provider_instance_id: str) -> None:
        async def reinstall() -> None:
            if self.refuses_reinstall:
                raise self.refuses_reinstall
            self.reinstalled.append(provider_instance_id)

        await self.effects.do("reinstall_server", reinstall)

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        async def find() -> Existence:
            self._settle()
            if self.unknown:
                return Unknown(self.unknown)
            if provider_instance_id:
                found = self.servers.get(provider_instance_id)
                return Present(found) if found else Absent()
            wanted = [s for s in self._listed() if s.name == name and zone in (s.zone, "")]
            return Present(wanted[0]) if wanted and not self.blind else Absent()

        return await self.effects.do("find_server", find)

    async def list_servers(self) -> Sequence[Server]:
        self._settle()
        if self.unknown:
            raise CloudUnavailableError(self.unknown)
        return self._listed()

    async def delete_server(self, provider_instance_id: str) -> None:
        await self.effects.do("delete_server", lambda: self._delete(provider_instance_id))

    async def _create(self, request: ServerRequest) -> Server:
        refusal = self.refuses_create or self.refuses_create_in.get(request.zone)
        if refusal:
            raise refusal
        self.requests.append(request)
        server = Server(
            provider_instance_id=f"srv-{len(self.requests)}",
            name=request.name,
            tags=request.tags,
            running=False,
            ip_address="",
            zone=request.zone,
        )
        if self.late_s:
            self.coming.append((self.clock() + timedelta(seconds=self.late_s), server))
            raise CloudUnavailableError("504 no answer")
        self._stand(server)
        return server

    async def _start(self, server_id: str) -> None:
        server = self.servers[server_id]
        refusal = self.refuses_start or self.refuses_start_in.get(server.zone)
        if refusal:
            raise refusal
        address = "127.8.0.1" if self.has_address else ""
        self.servers[server_id] = replace(server, running=True, ip_address=address)

    async def _delete(self, server_id: str) -> None:
        if self.refuses_delete:
            raise self.refuses_delete
        self.deleted.append(server_id)
        self.servers.pop(server_id, None)
        if isinstance(self.volumes, FakeVolumes):
            self.volumes.detach(server_id)

    def _stand(self, server: Server) -> None:
        self.servers[server.provider_instance_id] = server
        self.hidden_until[server.provider_instance_id] = self.clock() + timedelta(seconds=self.traits.list_lag_s)
        if isinstance(self.volumes, FakeVolumes):
            self.volumes.come_with(server)

    def _settle(self) -> None:
        """What was asked for earlier, and takes effect only now."""
        now = self.clock()
        for _, server in [one for one in self.coming if one[0] <= now]:
            self._stand(server)
        self.coming = [one for one in self.coming if one[0] > now]

    def _listed(self) -> list[Server]:
        now = self.clock()
        shown = self.hidden_until
        return [s for s in self.servers.values() if shown.get(s.provider_instance_id, now) <= now]


@dataclass
class FakeVolumes:
    """Volumes of a FakeCloud; they outlive their server, as they do at most providers.

    Attributes:
        sticks: a resize is accepted and does nothing.
        in_use: a delete is answered so this many times more.
    """

    cloud: FakeCloud
    kept: dict[str, Volume] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    refuses_resize: CloudRefusedError | None = None
    sticks: bool = False
    in_use: int = 0

    def come_with(self, server: Server) -> None:
        self.add(f"vol-{server.provider_instance_id}", server.provider_instance_id, tags=server.tags, is_boot=True)

    def add(self, volume_id: str, server_id: str, *, tags: Mapping[str, str], is_boot: bool) -> None:
        self.kept[volume_id] = Volume(
            provider_volume_id=volume_id,
            name=volume_id,
            volume_type="sbs_volume",
            size_gb=BOOT_VOLUME_GB,
            is_boot=is_boot,
            attached_to=server_id,
            tags=tags,
        )

    def detach(self, server_id: str) -> None:
        for known, volume in self.kept.items():
            if volume.attached_to == server_id:
                self.kept[known] = replace(volume, attached_to="")

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        async def look() -> Sequence[Volume]:
            return [volume for volume in self.kept.values() if volume.attached_to == provider_instance_id]

        return await self.cloud.effects.do("list_volumes", look)

    async def list_own_volumes(self) -> Sequence[Volume]:
        return [volume for volume in self.kept.values() if volume.tags]

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        async def find() -> Volume | Absent | Unknown:
            return self.kept.get(provider_volume_id, Absent())

        return await self.cloud.effects.do("find_volume", find)

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        async def resize() -> None:
            if self.refuses_resize:
                raise self.refuses_resize
            if not self.sticks:
                self.kept[provider_volume_id] = replace(self.kept[provider_volume_id], size_gb=size_gb)

        await self.cloud.effects.do("resize_volume", resize)

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        raise NotImplementedError

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        raise NotImplementedError

    async def delete_volume(self, provider_volume_id: str) -> None:
        async def delete() -> None:
            if self.in_use:
                self.in_use -= 1
                raise CloudUnavailableError("resource_still_in_use")
            self.deleted.append(provider_volume_id)
            self.kept.pop(provider_volume_id, None)

        await self.cloud.effects.do("delete_volume", delete)


@dataclass
class FakePorts:
    """A firewall that remembers what it let in."""

    cloud: FakeCloud
    opened: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    refuses: CloudRefusedError | None = None

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        async def open_them() -> None:
            if self.refuses:
                raise self.refuses
            self.opened.append((provider_instance_id, tuple(ports)))

        await self.cloud.effects.do("open_ports", open_them)


@dataclass
class FakeShell:
    """A shell that answers each script with the next of `answers`; the last one for ever."""

    effects: Doing
    scripts: list[str] = field(default_factory=list)
    answers: list[CommandRun | Exception] = field(default_factory=lambda: [CommandRun(exit_status=0, output="")])
    meanwhile: Callable[[str], Awaitable[None]] | None = None

    async def run(
        self, _organization: OrganizationId, _provider: str, _ip_address: str, script: str, *, timeout_s: float
    ) -> CommandRun:
        assert timeout_s > 0

        async def run() -> CommandRun:
            self.scripts.append(script)
            if self.meanwhile:
                await self.meanwhile(script)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return await self.effects.do("run_by_ssh", run)
