"""Servers at Scaleway: read one, list ours, act on one; and what one of them looks like to us.

The surprising rule: the API's own filters are not trusted with a decision. Its filter by name also gives longer names
that hold it, and a server counts as ours only when our tag stands on it.
"""

from datetime import UTC, datetime
from typing import Any

from handlers.cloud_ports import CloudUnavailableError, Server
from handlers.server_tags import PLATFORM_TAG
from infra.providers.scaleway_api import PAGE_SIZE, ScalewayApi, Sdk
from infra.providers.scaleway_places import joined_id, tags_from

STOPPED = "stopped"
IN_PLACE = ("stopped in place", "stopped_in_place")
"""Off, and still on its hypervisor and on the bill: what a server that shut itself down becomes."""
STARTED = ("running", "starting")


class ScalewayServers:
    """One project's. Every method raises CloudRefusedError or CloudUnavailableError, nothing else."""

    def __init__(self, api: ScalewayApi) -> None:
        self._api = api

    async def get(self, operation: str, zone: str, server_id: str) -> Any:
        answer = await self._api.call(operation, lambda sdk: sdk.instance.get_server(server_id=server_id, zone=zone))
        if answer.server is None or answer.server.id != server_id:
            raise CloudUnavailableError("scaleway: an answer about a server does not hold it")
        return answer.server

    async def act(self, operation: str, zone: str, server_id: str, action: str) -> None:
        await self._api.call(
            operation, lambda sdk: sdk.instance.server_action(server_id=server_id, zone=zone, action=action)
        )

    async def delete(self, operation: str, zone: str, server_id: str) -> None:
        await self._api.call(operation, lambda sdk: sdk.instance.delete_server(server_id=server_id, zone=zone))

    async def listed(self, operation: str, zone: str, name: str | None = None) -> list[Any]:
        """Ours in a zone, the oldest first; with a name, those whose names hold it."""

        def page_of(sdk: Sdk, page: int) -> Any:
            return sdk.instance.list_servers(
                zone=zone, page=page, per_page=PAGE_SIZE, tags=[PLATFORM_TAG], name=name, order="creation_date_asc"
            )

        found = await self._api.pages(operation, "servers", page_of)
        return sorted((server for server in found if PLATFORM_TAG in server.tags), key=age)


def age(server: Any) -> tuple[datetime, str]:
    """Sorts the oldest first, the same for everybody."""
    return server.creation_date or datetime.max.replace(tzinfo=UTC), server.id


def state_of(server: Any) -> str:
    return str(server.state)


def shown(server: Any) -> Server:
    return Server(
        provider_instance_id=joined_id(server.zone, server.id),
        name=server.name,
        tags=tags_from(server.tags),
        running=state_of(server) == "running",
        ip_address=_address(server),
        zone=server.zone,
        created_at=server.creation_date,
    )


def _address(server: Any) -> str:
    """Its first public IPv4 address; `public_ip` is the older field for it."""
    ips = [ip for ip in server.public_ips or () if str(ip.family) == "inet"]
    ip = ips[0] if ips else server.public_ip
    return str(ip.address) if ip is not None and ip.address else ""
