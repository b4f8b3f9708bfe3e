"""Hosts: an organisation's own machines, lent to the platform as servers of the provider `bare_metal`.

    POST /hosts ──> GET /hosts, /hosts/{id} ──> PUT /hosts/{id} ──> DELETE /hosts/{id}

The surprising rule: the API never speaks to a host. Whoever enrols one has seen its key's fingerprint and says it
(`inventiv host add` shows it); the handlers then speak to no host with another key.
"""

from datetime import datetime
from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from domain.host import (
    DEFAULT_ZONE,
    HOST,
    PROVIDER,
    ChangeHost,
    EnrolHost,
    HostFacts,
    HostId,
    WithdrawHost,
    host_id_of,
    open_for_s,
)
from domain.host import Slot as HostSlot
from domain.instance_state import ENDED
from domain.network import Network
from projections.hosts import HostView, find_host, list_hosts
from projections.instances import InstanceView, list_instances
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.intent import Intended
from web.services import Services
from web.shapes import EUR_MICROS, Body, PathId, Reply, euros, uuid_or_404

router = APIRouter(prefix="/hosts", tags=["hosts"])

Viewer = Annotated[Member, Depends(member("hosts.view"))]
Keeper = Annotated[Member, Depends(member("hosts.manage"))]


class Slot(Body):
    """A weekly window in UTC; `day` 0 is Monday, minutes count from midnight, 1440 is the next midnight."""

    day: int
    start_minute: int
    end_minute: int


class Facts(Body):
    """What its owner says of a host; `slots`: when it may serve, always when there are none."""

    name: str
    zone: str = DEFAULT_ZONE
    ssh_user: str = "root"
    host_key_fingerprint: str = Field(description="As `ssh-keygen -lf` shows it: SHA256:...")
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int = 0
    ram_gb: int = 0
    price_eur_per_hour: float = Field(default=0.0, ge=0, le=10_000)
    slots: list[Slot] = Field(default_factory=list, max_length=64)

    @property
    def spoken(self) -> HostFacts:
        """As commands have it."""
        return HostFacts(
            name=self.name,
            zone=self.zone,
            ssh_user=self.ssh_user,
            host_key_fingerprint=self.host_key_fingerprint,
            gpu_count=self.gpu_count,
            vram_per_gpu_gb=self.vram_per_gpu_gb,
            cpu_count=self.cpu_count,
            ram_gb=self.ram_gb,
            price_eur_micros_per_hour=round(self.price_eur_per_hour * EUR_MICROS),
            slots=tuple(HostSlot(**slot.model_dump()) for slot in self.slots),
        )


class NewHost(Facts):
    """`address`: an IP address at which handlers and gateways reach it."""

    address: str
    ssh_port: int = 22


class HostShown(Reply):
    """`instance_type` and `zone` are what a deployment asks for; `instance_id`: what runs on it, null when it is free.

    `open_for_s`: seconds until its slot ends, 0 outside its slots, null without slots.
    """

    id: str
    name: str
    address: str
    ssh_port: int
    ssh_user: str
    host_key_fingerprint: str
    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_per_hour: float
    slots: list[Slot]
    open_for_s: float | None
    instance_id: str | None
    enrolled_at: datetime


@router.get("")
async def hosts(viewer: Viewer, services: Served, position: Position) -> list[HostShown]:
    """By name."""
    async with services.read("hosts", position=position) as connection:
        views = await list_hosts(connection, viewer.organization_id)
    serving = await _serving(services, viewer)
    return [_shown(view, serving, services) for view in views]


@router.get("/{host_id}")
async def host(host_id: PathId, viewer: Viewer, services: Served, position: Position) -> HostShown:
    return await _now(services, viewer, host_id, position)


@router.post("", status_code=201)
async def enrol_host(body: NewHost, keeper: Keeper, services: Served, intent: Intended) -> HostShown:
    """Asking twice is welcome; another wish for the same address is refused."""
    command = EnrolHost(
        address=body.address,
        ssh_port=body.ssh_port,
        facts=body.spoken,
        allowed=may_be_enrolled(body.address, services.settings.host_networks),
    )
    host_id = host_id_of(keeper.organization_id, body.address, body.ssh_port)
    await intent.send(HOST, keeper.organization_id, host_id, command, actor=keeper.caller.actor)
    return await _now(services, keeper, host_id, intent.position)


@router.put("/{host_id}")
async def change_host(
    host_id: PathId, body: Facts, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> HostShown:
    """Replaces what is said of it. What runs on it goes on, as far as its slots let it."""
    known = await _host(services, keeper, host_id, position)
    await intent.send(HOST, keeper.organization_id, known.id, ChangeHost(facts=body.spoken), actor=keeper.caller.actor)
    return await _now(services, keeper, host_id, intent.position)


@router.delete("/{host_id}", status_code=204)
async def withdraw_host(
    host_id: PathId, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> None:
    """Refused (409 host_serves) while an instance is on it; nobody speaks to it afterwards."""
    known = await _host(services, keeper, host_id, position)
    command = WithdrawHost(serves=known.id in await _serving(services, keeper))
    await intent.send(HOST, keeper.organization_id, known.id, command, actor=keeper.caller.actor)


def may_be_enrolled(address: str, allowed: tuple[Network, ...]) -> bool:
    """Not what would be this platform itself, or the machines' own services, unless the operator says so."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return True  # the domain refuses it, and says why
    own = parsed.is_loopback or parsed.is_link_local
    return not own or any(parsed in network for network in allowed)


async def _host(services: Services, who: Member, host_id: str, position: int) -> HostView:
    wanted = uuid_or_404("host", host_id)
    async with services.read("hosts", position=position) as connection:
        view = await find_host(connection, who.organization_id, wanted)
    if view is None:
        raise not_found("host")
    return view


async def _serving(services: Services, who: Member) -> dict[HostId, InstanceView]:
    """What runs on which host: an instance that has not ended may still hold its host."""
    async with services.read("instances") as connection:
        listed = await list_instances(connection, who.organization_id, now=services.clock())
    on_hosts = [one for one in listed if one.provider == PROVIDER and one.status not in ENDED]
    return {HostId(one.provider_instance_id.partition("/")[0]): one for one in on_hosts if one.provider_instance_id}


async def _now(services: Services, who: Member, host_id: str, position: int) -> HostShown:
    view = await _host(services, who, host_id, position)
    return _shown(view, await _serving(services, who), services)


def _shown(view: HostView, serving: dict[HostId, InstanceView], services: Services) -> HostShown:
    facts, on_it = view.facts, serving.get(view.id)
    return HostShown(
        id=view.id,
        name=facts.name,
        address=view.address,
        ssh_port=view.ssh_port,
        ssh_user=facts.ssh_user,
        host_key_fingerprint=facts.host_key_fingerprint,
        zone=facts.zone,
        instance_type=facts.instance_type,
        gpu_count=facts.gpu_count,
        vram_per_gpu_gb=facts.vram_per_gpu_gb,
        cpu_count=facts.cpu_count,
        ram_gb=facts.ram_gb,
        price_eur_per_hour=euros(facts.price_eur_micros_per_hour),
        slots=[Slot(day=s.day, start_minute=s.start_minute, end_minute=s.end_minute) for s in facts.slots],
        open_for_s=open_for_s(facts.slots, services.clock()) if facts.slots else None,
        instance_id=on_it.id if on_it else None,
        enrolled_at=view.enrolled_at,
    )
