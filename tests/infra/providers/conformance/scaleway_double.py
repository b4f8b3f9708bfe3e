"""Scaleway in the suite: our adapter over real HTTP against the simulated Scaleway, whose clock stands still."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from infra.providers.scaleway import ScalewayCloud
from infra.providers.scaleway_api import ScalewayAccount
from infra.providers.scaleway_places import PLAIN_IMAGE
from infra.simulated_clouds.scaleway.faults import Fault
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway
from tests.infra.providers.conformance.double import Double, Trouble

ZONE = "fr-par-2"
INSTANCE_TYPE = "L4-1-24G"
ZONES = (ZONE, "nl-ams-1")
"""Two of nine: a listing of every zone is the same nine times."""
STEP_S = 5.0
NOBODY = "00000000-0000-4000-8000-000000000000"
ALWAYS = 0


@asynccontextmanager
async def scaleway_double(_folder: Path) -> AsyncIterator[Double]:
    async with simulated_scaleway() as scaleway:
        account = ScalewayAccount(project_id=scaleway.project_id, secret_key=scaleway.secret_key, url=scaleway.url)

        async def pass_time() -> None:
            scaleway.clock.advance(STEP_S)

        async def heal() -> None:
            scaleway.faults.clear()
            scaleway.cloud.stock.pop((ZONE, INSTANCE_TYPE), None)

        async def plant_stranger(name: str) -> None:
            await _plant(scaleway, name)

        async def opened_ports(provider_instance_id: str) -> set[int]:
            return _opened(scaleway, provider_instance_id)

        async def booted_image(provider_instance_id: str) -> str:
            return scaleway.cloud.servers[provider_instance_id.split("/")[1]].image_id

        yield Double(
            new_cloud=lambda: ScalewayCloud(account, lambda _request: "#cloud-config\n", ZONES),
            zone=ZONE,
            instance_type=INSTANCE_TYPE,
            no_server_id=f"{ZONE}/{NOBODY}",
            no_volume_id=f"{ZONE}/{NOBODY}",
            pass_time=pass_time,
            troubles=_troubles(scaleway),
            heal=heal,
            plant_stranger=plant_stranger,
            opened_ports=opened_ports,
            other_image=PLAIN_IMAGE,
            no_image=NOBODY,
            booted_image=booted_image,
            secrets=(scaleway.secret_key,),
        )


def _troubles(scaleway: SimulatedScaleway) -> dict[Trouble, Callable[[], Awaitable[None]]]:
    def adding(*faults: Fault) -> Callable[[], Awaitable[None]]:
        async def add() -> None:
            for fault in faults:
                scaleway.faults.add(fault)

        return add

    async def sell_out() -> None:
        scaleway.cloud.stock[ZONE, INSTANCE_TYPE] = 0

    proxys_page = Fault(kind="status", status=404, type="", message="no such page", times=ALWAYS)
    return {
        "unreachable": adding(Fault(kind="reset", times=ALWAYS)),
        "denied": adding(Fault(kind="denied", times=ALWAYS)),
        "rate_limited": adding(Fault(kind="rate_limited", times=ALWAYS, retry_after_s=7)),
        "server_error": adding(Fault(kind="server_error", times=ALWAYS)),
        "nonsense": adding(proxys_page),
        "partial_page": adding(
            *(Fault(kind="partial_page", operation=name, times=ALWAYS) for name in ("*list_*", "*_availability"))
        ),
        "lost_answer": adding(Fault(kind="done_then_504", operation="create_server")),
        "out_of_stock": sell_out,
        "quota": adding(Fault(kind="quota", operation="create_server", times=ALWAYS)),
    }


async def _plant(scaleway: SimulatedScaleway, name: str) -> None:
    """By the API itself, as its owner would."""
    body = {"name": name, "commercial_type": "DEV1-S", "project": scaleway.project_id, "image": PLAIN_IMAGE}
    async with (
        aiohttp.ClientSession(headers={"X-Auth-Token": scaleway.secret_key}) as session,
        session.post(f"{scaleway.url}/instance/v1/zones/{ZONE}/servers", json=body) as response,
    ):
        assert response.status in {200, 201}, await response.text()


def _opened(scaleway: SimulatedScaleway, provider_instance_id: str) -> set[int]:
    server = scaleway.cloud.servers[provider_instance_id.split("/")[1]]
    group = scaleway.cloud.security_groups[server.group_id]
    assert group.stateful
    assert not group.project_default
    assert (group.inbound, group.outbound) == ("drop", "accept")
    return {
        rule.port_from or 0
        for rule in group.rules
        if rule.editable and (rule.direction, rule.action, rule.ip_range) == ("inbound", "accept", "0.0.0.0/0")
    }
