"""Doors that write down each deed in the ledger beside the event because of which it is done.

    doors ──> ledgered(doors, reaction, trigger) ──> one look:  dispatch ──> remembers the newest event of the story
                                                                clouds, shell ──> record(deed, because of that event)

The surprising rule: it records and decides nothing. Whether a server is created is decided by the intent in the log and
a look by its fixed name; two truths about one server would be one too many.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from domain.decider import Decider
from domain.ids import OrganizationId
from domain.message import Context, subject_of
from domain.ports import Dispatch, Receipt
from handlers.cloud_ports import (
    Absent,
    Cloud,
    Clouds,
    CommandRun,
    Existence,
    Ports,
    Server,
    ServerRequest,
    Shell,
    Unknown,
    Volume,
    Volumes,
)
from handlers.ports import Doors, Effect, Trigger

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")


def ledgered(doors: Doors, actor: str, trigger: Trigger | None = None) -> Doors:
    """Doors for one look of a reaction, or (without a trigger) for one of a duty, whose deeds no event is behind."""
    story = _Story(doors, actor, trigger)
    return replace(
        doors,
        dispatch=_FollowedDispatch(doors.dispatch, story),
        clouds=_LedgeredClouds(doors.clouds, story),
        shell=_LedgeredShell(doors.shell, story),
    )


class _Story:
    """Which event is the newest cause within one look."""

    def __init__(self, doors: Doors, actor: str, trigger: Trigger | None) -> None:
        self._effects = doors.effects
        self._actor = actor
        self.cause = trigger.cause if trigger else ""
        self.subject = subject_of(trigger.organization, trigger.aggregate, trigger.id) if trigger else ""

    async def record(self, name: str, key: str, act: Callable[[], Awaitable[T]]) -> T:
        effect = Effect(reaction=self._actor, event_id=self.cause, name=name, key=key, subject=self.subject)
        return await self._effects.record(effect, act)


class _FollowedDispatch:
    """A dispatch that lets the story go on with each new event of its own aggregate."""

    def __init__(self, dispatch: Dispatch, story: _Story) -> None:
        self._dispatch = dispatch
        self._story = story

    async def __call__(
        self, decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C, context: Context
    ) -> Receipt[E]:
        receipt = await self._dispatch(decider, organization, aggregate_id, command, context)
        if receipt.event_ids and subject_of(organization, decider.aggregate, aggregate_id) == self._story.subject:
            self._story.cause = receipt.event_ids[-1]
        return receipt


class _LedgeredClouds:
    """Clouds each of which is ledgered."""

    def __init__(self, clouds: Clouds, story: _Story) -> None:
        self._story = story
        self._clouds = clouds
        self.accounts = clouds.accounts

    async def of(self, organization: OrganizationId, provider: str, /) -> Cloud | None:
        cloud = await self._clouds.of(organization, provider)
        return _LedgeredCloud(cloud, self._story) if cloud else None


class _LedgeredCloud:
    """A Cloud whose changing calls are recorded; looking changes nothing, and leaves no row."""

    def __init__(self, cloud: Cloud, story: _Story) -> None:
        self._cloud = cloud
        self._record = story.record
        self.traits = cloud.traits
        self.volumes: Volumes | None = _LedgeredVolumes(cloud.volumes, story) if cloud.volumes else None
        self.ports: Ports | None = _LedgeredPorts(cloud.ports, story) if cloud.ports else None
        self.offers = cloud.offers

    async def create_server(self, request: ServerRequest) -> Server:
        return await self._record("create_server", request.name, lambda: self._cloud.create_server(request))

    async def start_server(self, provider_instance_id: str) -> None:
        await self._record("start_server", provider_instance_id, lambda: self._cloud.start_server(provider_instance_id))

    async def stop_server(self, provider_instance_id: str) -> None:
        await self._record("stop_server", provider_instance_id, lambda: self._cloud.stop_server(provider_instance_id))

    async def reinstall_server(self, provider_instance_id: str) -> None:
        act = self._cloud.reinstall_server
        await self._record("reinstall_server", provider_instance_id, lambda: act(provider_instance_id))

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        return await self._cloud.find_server(name=name, zone=zone, provider_instance_id=provider_instance_id)

    async def list_servers(self) -> Sequence[Server]:
        return await self._cloud.list_servers()

    async def delete_server(self, provider_instance_id: str) -> None:
        act = self._cloud.delete_server
        await self._record("delete_server", provider_instance_id, lambda: act(provider_instance_id))


class _LedgeredVolumes:
    """Volumes whose changing calls are recorded."""

    def __init__(self, volumes: Volumes, story: _Story) -> None:
        self._volumes = volumes
        self._record = story.record
        self.list_volumes = volumes.list_volumes
        self.list_own_volumes = volumes.list_own_volumes

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        return await self._volumes.find_volume(provider_volume_id)

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        act = self._volumes.resize_volume
        await self._record("resize_volume", provider_volume_id, lambda: act(provider_volume_id, size_gb))

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        act = self._volumes.create_volume
        return await self._record("create_volume", name, lambda: act(name=name, zone=zone, size_gb=size_gb, tags=tags))

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        act = self._volumes.attach_volume
        await self._record("attach_volume", provider_volume_id, lambda: act(provider_volume_id, provider_instance_id))

    async def delete_volume(self, provider_volume_id: str) -> None:
        act = self._volumes.delete_volume
        await self._record("delete_volume", provider_volume_id, lambda: act(provider_volume_id))


class _LedgeredPorts:
    def __init__(self, ports: Ports, story: _Story) -> None:
        self._ports = ports
        self._record = story.record

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        act = self._ports.open_ports
        await self._record("open_ports", provider_instance_id, lambda: act(provider_instance_id, ports))


class _LedgeredShell:
    """The script is not on record: it holds a token."""

    def __init__(self, shell: Shell, story: _Story) -> None:
        self._shell = shell
        self._record = story.record

    async def run(
        self, organization: OrganizationId, provider: str, ip_address: str, script: str, *, timeout_s: float
    ) -> CommandRun:
        run = self._shell.run
        return await self._record(
            "run_by_ssh", ip_address, lambda: run(organization, provider, ip_address, script, timeout_s=timeout_s)
        )
