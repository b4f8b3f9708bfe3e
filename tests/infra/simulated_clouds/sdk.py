"""The official SDK as our tests use it: real HTTP against a simulated Scaleway, in a thread since it blocks."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from scaleway import Client
from scaleway.block.v1 import BlockV1API
from scaleway.instance.v1 import VolumeServerTemplate, VolumeVolumeType
from scaleway.instance.v1.custom_api import InstanceUtilsV1API
from scaleway_core.api import ScalewayException

from infra.simulated_clouds.scaleway.resources import Account
from infra.simulated_clouds.scaleway.running import SimulatedScaleway

ZONE = "fr-par-2"
GPU_IMAGE = "5c3d28db-33ce-4997-8572-f49506339283"
T = TypeVar("T")


def client_of(scaleway: SimulatedScaleway, account: Account | None = None) -> Client:
    owner = account or scaleway.account
    return Client(
        api_url=scaleway.url,
        access_key=owner.access_key,
        secret_key=owner.secret_key,
        default_project_id=owner.project_id,
        default_organization_id=owner.organization_id,
        default_zone=ZONE,
    )


class Sdk:
    """One account's view: `await sdk.instance("get_server", server_id=...)`."""

    def __init__(self, scaleway: SimulatedScaleway, account: Account | None = None) -> None:
        client = client_of(scaleway, account)
        self.instances = InstanceUtilsV1API(client)
        self.blocks = BlockV1API(client)

    async def instance(self, name: str, /, **arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self.instances, name), **arguments)

    async def block(self, name: str, /, **arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self.blocks, name), **arguments)

    async def create(self, commercial_type: str = "L4-1-24G", **arguments: Any) -> Any:
        """A server, as the SDK shows it."""
        wish = {"commercial_type": commercial_type, "name": "worker", "image": GPU_IMAGE, **arguments}
        return (await self.instance("create_server", **wish)).server

    @staticmethod
    def local_template(size: int) -> VolumeServerTemplate:
        return VolumeServerTemplate(volume_type=VolumeVolumeType.L_SSD, size=size)

    async def server(self, server_id: str) -> Any:
        return (await self.instance("get_server", server_id=server_id)).server

    async def act(self, server_id: str, action: str) -> Any:
        return await self.instance("server_action", server_id=server_id, action=action)

    async def running(self, scaleway: SimulatedScaleway, **arguments: Any) -> Any:
        """A server that runs; the clock must be virtual."""
        server = await self.create(**arguments)
        await self.act(server.id, "poweron")
        scaleway.clock.advance(scaleway.cloud.delays.start_s)
        return await self.server(server.id)


async def refusal(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the SDK's exception; it must raise one."""
    with pytest.raises(ScalewayException) as caught:
        await call()
    response = caught.value.response
    return response.status_code, response.json()
