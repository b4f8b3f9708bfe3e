"""Accounts at a provider for tests of the sweep: servers and volumes signed by us, a world that has ended, looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.ids import PLATFORM, InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import RequestTermination
from domain.provider_account import (
    PROVIDER_ACCOUNT,
    ProviderAccount,
    provider_account_id_of,
)
from handlers.cloud_ports import (
    Absent,
    Account,
    Server,
    Unknown,
    Volume,
)
from handlers.cloud_ports import CloudUnavailableError as Unavailable
from handlers.reconcile_account import GRACE_S, reconcile
from handlers.server_tags import Owner, tags_of
from tests.handlers.world import ACME, INSTANCE_1, Signer, World

HERE = Account(PLATFORM, "local")
ACCOUNT_ID = provider_account_id_of(PLATFORM, "local")


def tags(instance_id: str = INSTANCE_1, attempt: int = 1, organization: str = ACME) -> dict[str, str]:
    return tags_of(Owner(OrganizationId(organization), InstanceId(instance_id), attempt), Signer())


def server(number: int, instance_id: str = INSTANCE_1, attempt: int = 1) -> Server:
    return Server(
        provider_instance_id=f"srv-{number}",
        name=f"s{number}",
        tags=tags(instance_id, attempt),
        running=True,
        ip_address="",
    )


def volume(name: str = "vol-1", *, attached_to: str = "", signed: bool = True) -> Volume:
    return Volume(
        provider_volume_id=name,
        name=name,
        volume_type="sbs_volume",
        size_gb=20,
        is_boot=True,
        attached_to=attached_to,
        tags=tags() if signed else {},
    )


@dataclass
class FakeVolumes:
    """Volumes in memory; those without tags are in no list of our own."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    unknown: str = ""

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        return [one for one in self.volumes.values() if one.attached_to == provider_instance_id]

    async def list_own_volumes(self) -> Sequence[Volume]:
        if self.unknown:
            raise Unavailable(self.unknown)
        return [one for one in self.volumes.values() if one.tags]

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        return Unknown(self.unknown) if self.unknown else self.volumes.get(provider_volume_id, Absent())

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        raise NotImplementedError

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Any) -> Volume:
        raise NotImplementedError

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        raise NotImplementedError

    async def delete_volume(self, provider_volume_id: str) -> None:
        self.deleted.append(provider_volume_id)
        self.volumes.pop(provider_volume_id, None)


async def ended_world(*servers: Server) -> World:
    """Its one instance has ended; these servers are still listed."""
    world = World()
    await world.request_instance()
    await world.settle()
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()
    world.cloud.deleted.clear()
    world.cloud.servers = {s.provider_instance_id: s for s in servers}
    return world


async def running_world() -> World:
    """Its one instance owns srv-1."""
    world = World()
    await world.request_instance()
    await world.settle()
    return world


async def look(world: World, *, after_s: float = 0.0) -> None:
    world.later(after_s)
    await reconcile(HERE, world.doors)


async def looks(world: World, number: int = 4, *, apart_s: float = GRACE_S) -> None:
    for _ in range(number):
        await look(world, after_s=apart_s)


async def account(world: World) -> ProviderAccount:
    return (await world.dispatcher.load(PROVIDER_ACCOUNT, PLATFORM, ACCOUNT_ID)).state


async def told(world: World) -> list[str]:
    found = await world.log.read(f"evt.{PLATFORM}.provider_account.{ACCOUNT_ID}")
    return [recorded.envelope.type for recorded in found]
