"""Providers that only note what would be asked of them, and end the look where they would have to answer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NoReturn

import msgspec

from domain.ids import OrganizationId
from handlers.cloud_ports import (
    Absent,
    Account,
    Cloud,
    CloudTraits,
    CommandRun,
    Existence,
    Offers,
    Ports,
    Server,
    ServerRequest,
    Unknown,
    Volume,
    Volumes,
)

WITHOUT_VOLUMES = frozenset({"local", "bare_metal"})
"""Providers that have neither volumes nor a firewall. Every other one is taken to have both."""


class Deed(msgspec.Struct, frozen=True):
    """What a look leads to, or led to.

    Attributes:
        kind: an event in the log, or a call of the outside world.
        name: the event's type, or the call's name.
        on: "<aggregate>/<id>" of an event; of a call which one, e.g. the server's name.
    """

    kind: Literal["event", "call"]
    name: str
    on: str


class LookEnds(BaseException):
    """What comes next is not this look's to say. `asked`: the world would have to answer.

    No fault, and no reaction may catch it, so it is no Exception.
    """

    def __init__(self, *, asked: bool) -> None:
        super().__init__(asked)
        self.asked = asked


class DryClouds:
    """Implements Clouds: every organisation has an account at each of these providers."""

    def __init__(self, deeds: list[Deed], providers: Collection[str]) -> None:
        self._clouds = {one: DryCloud(deeds, rented=one not in WITHOUT_VOLUMES) for one in providers}

    async def of(self, _organization: OrganizationId, provider: str, /) -> Cloud | None:
        return self._clouds.get(provider)

    async def accounts(self) -> Sequence[Account]:
        raise LookEnds(asked=True)


class DryCloud:
    """A provider that knows no server by name, so that one sees what would be created."""

    traits = CloudTraits(creates_idempotently=True)
    offers: Offers | None = None

    def __init__(self, deeds: list[Deed], *, rented: bool) -> None:
        self._deeds = deeds
        self.volumes: Volumes | None = _DryVolumes(deeds) if rented else None
        self.ports: Ports | None = _DryPorts(deeds) if rented else None

    async def create_server(self, request: ServerRequest) -> Server:
        _call(self._deeds, "create_server", request.name)

    async def start_server(self, provider_instance_id: str) -> None:
        _call(self._deeds, "start_server", provider_instance_id)

    async def stop_server(self, provider_instance_id: str) -> None:
        _call(self._deeds, "stop_server", provider_instance_id)

    async def reinstall_server(self, provider_instance_id: str) -> None:
        _call(self._deeds, "reinstall_server", provider_instance_id)

    async def delete_server(self, provider_instance_id: str) -> None:
        _call(self._deeds, "delete_server", provider_instance_id)

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:  # noqa: ARG002 - no name is known
        if provider_instance_id:
            raise LookEnds(asked=True)
        return Absent()

    async def list_servers(self) -> Sequence[Server]:
        raise LookEnds(asked=True)


class _DryVolumes:
    def __init__(self, deeds: list[Deed]) -> None:
        self._deeds = deeds

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def list_own_volumes(self) -> Sequence[Volume]:
        raise LookEnds(asked=True)

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:  # noqa: ARG002 - the port's
        _call(self._deeds, "resize_volume", provider_volume_id)

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:  # noqa: ARG002 - the port's
        _call(self._deeds, "create_volume", name)

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:  # noqa: ARG002 - the port's
        _call(self._deeds, "attach_volume", provider_volume_id)

    async def delete_volume(self, provider_volume_id: str) -> None:
        _call(self._deeds, "delete_volume", provider_volume_id)


class _DryPorts:
    def __init__(self, deeds: list[Deed]) -> None:
        self._deeds = deeds

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:  # noqa: ARG002 - the port's
        _call(self._deeds, "open_ports", provider_instance_id)


class DryShell:
    def __init__(self, deeds: list[Deed]) -> None:
        self._deeds = deeds

    async def run(
        self,
        organization: OrganizationId,  # noqa: ARG002 - the port's
        provider: str,  # noqa: ARG002 - the port's
        ip_address: str,
        script: str,  # noqa: ARG002 - the port's
        *,
        timeout_s: float,  # noqa: ARG002 - the port's
    ) -> CommandRun:
        _call(self._deeds, "run_by_ssh", ip_address)


def _call(deeds: list[Deed], name: str, on: str) -> NoReturn:
    deeds.append(Deed("call", name, on))
    raise LookEnds(asked=True)
