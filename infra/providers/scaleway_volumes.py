"""Disks at Scaleway: block storage (sbs) by the Block API, local ones (l_ssd, scratch) by the Instance API.

    server ─> its volumes: id and type ─┬─ sbs_volume ─> Block API: size, tags, who holds it
                                        └─ the others ─> Instance API

A volume that Scaleway makes with a server carries no tags of ours until tag_boot_volume has written the server's on it.
The surprising rule: a volume is gone when both APIs say so, each in its own 404; the one does not know the other's.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.cloud_ports import Absent, CloudRefusedError, CloudUnavailableError, Unknown, Volume
from handlers.server_tags import PLATFORM_TAG
from infra.providers.calling import StillBusyError
from infra.providers.scaleway_api import PAGE_SIZE, ScalewayApi, Sdk
from infra.providers.scaleway_places import joined_id, split_id, tags_from, tags_to

GB = 10**9
"""The API's granularity of a block volume."""
DATA_VOLUME_IOPS = 5_000
"""The slower of Scaleway's two classes; a model is read once, in large pieces."""
SBS = "sbs_volume"
BOOT_SLOT = "0"
"""A server boots from the volume in its first slot; the field `boot` of a volume says something else."""
MOVING = ("creating", "resizing", "updating", "snapshotting", "deleting")


class ScalewayVolumes:
    """Implements handlers.cloud_ports.Volumes for one project."""

    def __init__(self, api: ScalewayApi, zones: Sequence[str]) -> None:
        self._api = api
        self._zones = zones

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        zone, server_id = split_id(provider_instance_id, "look")
        server = await self._server("look", zone, server_id)
        return [await self._attached("look", zone, server, slot, held) for slot, held in server.volumes.items()]

    async def list_own_volumes(self) -> Sequence[Volume]:
        return [volume for volumes in await asyncio.gather(*map(self._own, self._zones)) for volume in volumes]

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        try:
            zone, volume_id = split_id(provider_volume_id, "look")
            return await self._find("look", zone, volume_id) or Absent()
        except CloudRefusedError as refused:
            return Unknown(refused.message)
        except CloudUnavailableError as trouble:
            return Unknown(str(trouble))

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        operation = "resize_volume"
        zone, volume_id = split_id(provider_volume_id, operation)
        found = await self._require(operation, zone, volume_id)
        if found.volume_type != SBS:
            text = f"{found.name} is a local volume ({found.volume_type}): Scaleway resizes block storage alone."
            raise CloudRefusedError("PROVIDER_VOLUME_RESIZE_FAILED", text)
        if found.size_gb >= size_gb:
            return
        await self._api.call(
            operation, lambda sdk: sdk.block.update_volume(volume_id=volume_id, zone=zone, size=size_gb * GB)
        )

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        """Of several under one name the oldest is the one."""
        operation = "create_volume"
        named = [volume for volume in await self._tagged_block(zone, name) if volume.name == name]
        if named:
            return _shown(zone, named[0])

        def create(sdk: Sdk) -> Any:
            from scaleway.block.v1 import CreateVolumeRequestFromEmpty  # noqa: PLC0415 - slow to import

            size = CreateVolumeRequestFromEmpty(size=size_gb * GB)
            return sdk.block.create_volume(
                zone=zone,
                name=name,
                project_id=self._api.project_id,
                perf_iops=DATA_VOLUME_IOPS,
                from_empty=size,
                tags=tags_to(tags),
            )

        return _shown(zone, await self._api.call(operation, create))

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        operation = "attach_volume"
        zone, volume_id = split_id(provider_volume_id, operation)
        server_zone, server_id = split_id(provider_instance_id, operation)
        if zone != server_zone:
            text = f"A volume of {zone} cannot be attached to a server of {server_zone}."
            raise CloudRefusedError("PROVIDER_VOLUME_ATTACH_FAILED", text)
        server = await self._server(operation, zone, server_id)
        if volume_id in {volume.id for volume in server.volumes.values()}:
            return
        await self._api.call(
            operation,
            lambda sdk: sdk.instance.attach_server_volume(
                zone=zone, server_id=server_id, volume_id=volume_id, volume_type=SBS
            ),
        )

    async def delete_volume(self, provider_volume_id: str) -> None:
        operation = "delete_volume"
        zone, volume_id = split_id(provider_volume_id, operation)
        found = await self._find(operation, zone, volume_id)
        if found is None:
            return
        if found.attached_to:
            raise StillBusyError(f"Scaleway: the volume {found.name} is still attached to a server")
        try:
            if found.volume_type == SBS:
                await self._api.call(operation, lambda sdk: sdk.block.delete_volume(volume_id=volume_id, zone=zone))
            else:
                await self._api.call(operation, lambda sdk: sdk.instance.delete_volume(volume_id=volume_id, zone=zone))
        except CloudRefusedError as refused:
            if refused.kind != "not_found":
                raise

    async def tag_boot_volume(self, operation: str, server: Any) -> None:
        """Writes a server's tags on the block volume that was made with it, also before it is deleted.

        On no other: what somebody attached by hand would lose its own tags, and be taken for ours once it is loose.

        Raises:
            StillBusyError: the volume cannot be changed yet.
        """
        made = server.volumes.get(BOOT_SLOT)
        if made is None or str(made.volume_type) != SBS:
            return
        volume = await self._block(operation, server.zone, made.id)
        if volume is None or str(volume.status) in MOVING:
            raise StillBusyError(f"Scaleway: the boot volume of {server.name} is still being made")
        if sorted(volume.tags) != sorted(server.tags):
            await self._api.call(
                operation,
                lambda sdk: sdk.block.update_volume(volume_id=volume.id, zone=server.zone, tags=list(server.tags)),
            )

    async def _own(self, zone: str) -> list[Volume]:
        block = [_shown(zone, volume) for volume in await self._tagged_block(zone)]
        return block + [_shown_local(zone, volume) for volume in await self._tagged_local(zone)]

    async def _server(self, operation: str, zone: str, server_id: str) -> Any:
        answer = await self._api.call(operation, lambda sdk: sdk.instance.get_server(server_id=server_id, zone=zone))
        return answer.server

    async def _attached(self, operation: str, zone: str, server: Any, slot: str, attached: Any) -> Volume:
        """One of a server's volumes. The server says whether it boots from it, the volume's own API the rest."""
        found = await self._find(operation, zone, attached.id)
        if found is None:
            raise CloudUnavailableError(f"scaleway: {server.name} has a volume that is not known by itself")
        return Volume(
            provider_volume_id=found.provider_volume_id,
            name=found.name,
            volume_type=str(attached.volume_type),
            size_gb=found.size_gb,
            is_boot=slot == BOOT_SLOT,
            attached_to=joined_id(zone, server.id),
            tags=found.tags,
            created_at=found.created_at,
        )

    async def _require(self, operation: str, zone: str, volume_id: str) -> Volume:
        found = await self._find(operation, zone, volume_id)
        if found is None:
            text = f"Scaleway has no volume {volume_id} in {zone}."
            raise CloudRefusedError("PROVIDER_VOLUME_RESIZE_FAILED", text, "not_found")
        return found

    async def _find(self, operation: str, zone: str, volume_id: str) -> Volume | None:
        """None: neither API has it."""
        block = await self._block(operation, zone, volume_id)
        if block is not None and str(block.status) != "deleted":
            return _shown(zone, block)
        local = await _unless_not_found(
            self._api.call(operation, lambda sdk: sdk.instance.get_volume(volume_id=volume_id, zone=zone))
        )
        return _shown_local(zone, local.volume) if local is not None else None

    async def _block(self, operation: str, zone: str, volume_id: str) -> Any | None:
        return await _unless_not_found(
            self._api.call(operation, lambda sdk: sdk.block.get_volume(volume_id=volume_id, zone=zone))
        )

    async def _tagged_block(self, zone: str, name: str | None = None) -> list[Any]:
        def page_of(sdk: Sdk, page: int) -> Any:
            return sdk.block.list_volumes(
                include_deleted=False,
                zone=zone,
                page=page,
                page_size=PAGE_SIZE,
                tags=[PLATFORM_TAG],
                name=name,
                order_by="created_at_asc",
            )

        listed = await self._api.pages("look", "volumes", page_of)
        return [volume for volume in listed if PLATFORM_TAG in volume.tags]

    async def _tagged_local(self, zone: str) -> list[Any]:
        def page_of(sdk: Sdk, page: int) -> Any:
            return sdk.instance.list_volumes(zone=zone, page=page, per_page=PAGE_SIZE, tags=[PLATFORM_TAG])

        listed = await self._api.pages("look", "volumes", page_of)
        return [volume for volume in listed if PLATFORM_TAG in volume.tags]


async def _unless_not_found(call: Any) -> Any | None:
    try:
        return await call
    except CloudRefusedError as refused:
        if refused.kind != "not_found":
            raise
        return None


def _shown(zone: str, volume: Any) -> Volume:
    """A block volume; a reference is who holds it, also while it is let go."""
    holders = [held.product_resource_id for held in volume.references if str(held.status) != "detached"]
    return Volume(
        provider_volume_id=joined_id(zone, volume.id),
        name=volume.name,
        volume_type=SBS,
        size_gb=volume.size // GB,
        is_boot=False,
        attached_to=joined_id(zone, holders[0]) if holders else "",
        tags=tags_from(volume.tags),
        created_at=volume.created_at,
    )


def _shown_local(zone: str, volume: Any) -> Volume:
    return Volume(
        provider_volume_id=joined_id(zone, volume.id),
        name=volume.name,
        volume_type=str(volume.volume_type),
        size_gb=volume.size // GB,
        is_boot=False,
        attached_to=joined_id(zone, volume.server.id) if volume.server is not None else "",
        tags=tags_from(volume.tags),
        created_at=volume.creation_date,
    )
