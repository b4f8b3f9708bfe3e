"""The provider Scaleway: GPU instances of one project, by the official SDK. See SPEC 4.2 to 4.7.

    create: scaleway_creation.py      start: local volumes? ─> tags on its disk ─> power on      stop: power off
    delete: power off ─> "still stopping" ... stopped ─> tags on its disk ─> DELETE              disks: by themselves

A server is created switched off, with its bootstrap as cloud-init user data, so it installs itself when it is powered
on. Ids are "<zone>/<uuid>". Servers are created only in zones that are also listed. The surprising rule: nothing here
waits for a state. What takes seconds answers StillBusyError, and the caller, whose patience is durable, asks again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    Existence,
    Present,
    Server,
    ServerRequest,
    Unknown,
)
from infra.providers.calling import StillBusyError
from infra.providers.scaleway_api import SCALEWAY_URL, ScalewayAccount, ScalewayApi
from infra.providers.scaleway_creation import Bootstrap, ScalewayCreation
from infra.providers.scaleway_offers import ScalewayOffers
from infra.providers.scaleway_places import ZONES, is_diskless, split_id
from infra.providers.scaleway_ports import ScalewayPorts
from infra.providers.scaleway_servers import IN_PLACE, STARTED, STOPPED, ScalewayServers, age, shown, state_of
from infra.providers.scaleway_volumes import ScalewayVolumes


class ScalewayCloud:
    """Implements handlers.cloud_ports.Cloud for one project.

    Args:
        zones: looked into and created in; others do not exist here.
    """

    traits = CloudTraits(
        list_lag_s=5.0,  # nothing is promised; seconds were seen between a creation and its listing
        creates_idempotently=False,  # the API has no key for it: two calls with one name make two servers
        installs_itself=True,
        stops_billing_when_off=False,  # one that shuts itself down is "stopped in place", and goes on costing
    )

    def __init__(self, account: ScalewayAccount, bootstrap: Bootstrap, zones: Sequence[str] = ZONES) -> None:
        self._api = ScalewayApi(account)
        self._zones = tuple(zones)
        self._servers = ScalewayServers(self._api)
        self.volumes = ScalewayVolumes(self._api, self._zones)
        self.ports = ScalewayPorts(self._api)
        self.offers = ScalewayOffers(self._api, self._zones)
        parts = (self._servers, self.ports, self.volumes)
        self._creation = ScalewayCreation(self._api, parts, bootstrap, self.delete_server)

    async def create_server(self, request: ServerRequest) -> Server:
        if request.zone not in self._zones:
            raise CloudRefusedError("MISSING_ZONE", f"Scaleway has no zone {request.zone!r} that is looked after here.")
        return await self._creation.create(request)

    async def start_server(self, provider_instance_id: str) -> None:
        """Asks for power; whoever waits for the server looks for its address."""
        operation = "start_server"
        zone, server_id = split_id(provider_instance_id, operation)
        server = await self._servers.get(operation, zone, server_id)
        if state_of(server) in STARTED:
            return
        if state_of(server) == "stopping":
            raise StillBusyError(f"Scaleway: {server.name} is still stopping")
        _require_no_local_volume(server)
        await self.volumes.tag_boot_volume(operation, server)
        await self._servers.act(operation, zone, server_id, "poweron")

    async def stop_server(self, provider_instance_id: str) -> None:
        """Gives the hypervisor's place back; its block volumes go on costing."""
        operation = "stop_server"
        zone, server_id = split_id(provider_instance_id, operation)
        server = await self._servers.get(operation, zone, server_id)
        if state_of(server) == "starting":
            raise StillBusyError(f"Scaleway: {server.name} is still starting")
        if state_of(server) in {"running", *IN_PLACE}:
            await self._servers.act(operation, zone, server_id, "poweroff")

    async def reinstall_server(self, provider_instance_id: str) -> None:
        """Refused: the API has no call that gives an Instance a fresh system disk.

        A replacement, which is another server under the next attempt's name, does the same.
        """
        operation = "reinstall_server"
        zone, server_id = split_id(provider_instance_id, operation)
        await self._servers.get(operation, zone, server_id)
        text = "Scaleway cannot reinstall an Instance; let it be replaced."
        raise CloudRefusedError("PROVIDER_REINSTALL_FAILED", text)

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        """Absent only when Scaleway itself says so: in its own 404, or by complete lists of every zone in question."""
        try:
            if provider_instance_id:
                at, server_id = split_id(provider_instance_id, "look")
                return Present(shown(await self._servers.get("look", at, server_id)))
            found = await self._named(name, [zone] if zone else self._zones)
        except CloudRefusedError as refused:
            return Absent() if refused.kind == "not_found" and provider_instance_id else Unknown(refused.message)
        except CloudUnavailableError as trouble:
            return Unknown(str(trouble))
        return Present(shown(found)) if found is not None else Absent()

    async def list_servers(self) -> Sequence[Server]:
        """Those that are not complete too, under their unfinished names."""
        zones = await asyncio.gather(*(self._servers.listed("look", zone) for zone in self._zones))
        return [shown(server) for listed in zones for server in listed]

    async def delete_server(self, provider_instance_id: str) -> None:
        """Never by the action `terminate`: it deletes local volumes without telling which."""
        operation = "delete_server"
        zone, server_id = split_id(provider_instance_id, operation)
        try:
            server = await self._servers.get(operation, zone, server_id)
            if state_of(server) in {"running", *IN_PLACE}:
                await self._servers.act(operation, zone, server_id, "poweroff")
            if state_of(server) != STOPPED:
                raise StillBusyError(f"Scaleway: {server.name} is still stopping (it was {server.state})")
            await self.volumes.tag_boot_volume(operation, server)  # what outlives its server must be known by its tags
            await self._servers.delete(operation, zone, server_id)
        except CloudRefusedError as refused:
            if refused.kind != "not_found":
                raise

    async def _named(self, name: str, zones: Sequence[str]) -> Any | None:
        """The oldest of ours with exactly this name; None: certainly none."""
        listed = await asyncio.gather(*(self._servers.listed("look", zone, name) for zone in zones))
        return min((one for found in listed for one in found if one.name == name), key=age, default=None)


def scaleway_cloud(credentials: Mapping[str, str], *, bootstrap: Bootstrap, url: str = "") -> ScalewayCloud:
    """An adapter for an organisation's credentials (domain.provider_credentials.EXPECTED)."""
    account = ScalewayAccount(
        project_id=credentials.get("project_id", ""),
        secret_key=credentials.get("secret_key", ""),
        url=url or SCALEWAY_URL,
    )
    return ScalewayCloud(account, bootstrap)


def _require_no_local_volume(server: Any) -> None:
    """SPEC 4.2: its start is refused, and the lifecycle then deletes server and volumes."""
    local = [volume for volume in server.volumes.values() if str(volume.volume_type) == "l_ssd"]
    if local and is_diskless(server.commercial_type):
        size_gb = sum(volume.size or 0 for volume in local) // 10**9
        text = (
            f"{server.commercial_type} boots from block storage alone: Scaleway wants the total size of its local "
            f"volumes (l_ssd) to be 0 GB, and it has {size_gb} GB. Choose an image with a block storage (sbs) root."
        )
        raise CloudRefusedError("DISKLESS_BOOT_IMAGE_REQUIRED", text)
