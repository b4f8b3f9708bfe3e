"""Enrolled hosts in the suite: our adapter over real SSH, and the real scripts below a folder for each host."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from infra.providers.bare_metal_script import HostRecord, key_of
from tests.infra.providers.bare_metal_hosts import CLOSED, MONDAY_NOON, ZONE, Fleet, fleet
from tests.infra.providers.conformance.double import Double, Trouble
from tests.infra.ssh_hosts import OUR_PRIVATE_KEY, HostTrouble


@asynccontextmanager
async def bare_metal_double(folder: Path) -> AsyncIterator[Double]:
    async with fleet(folder, count=3) as hosts:

        async def pass_time() -> None:
            """A host has no states of passage; the loop gets a turn."""
            await asyncio.sleep(0)

        async def heal() -> None:
            for machine in hosts.machines.values():
                machine.trouble = ""
            hosts.change_all(slots=())

        async def plant_stranger(name: str) -> None:
            _plant(hosts, name)

        yield Double(
            new_cloud=hosts.new_cloud,
            zone=ZONE,
            instance_type=hosts.hosts[0].facts.instance_type,
            no_server_id=f"{hosts.hosts[0].id}/0000000000000000",
            pass_time=pass_time,
            troubles=_troubles(hosts),
            heal=heal,
            plant_stranger=plant_stranger,
            secrets=(OUR_PRIVATE_KEY,),
        )


def _troubles(hosts: Fleet) -> dict[Trouble, Callable[[], Awaitable[None]]]:
    def all_are(trouble: HostTrouble) -> Callable[[], Awaitable[None]]:
        async def make() -> None:
            for machine in hosts.machines.values():
                machine.trouble = trouble

        return make

    async def lose_the_next_claim() -> None:
        for machine in hosts.machines.values():
            machine.trouble = "cut_claim"

    async def close_all_slots() -> None:
        hosts.change_all(slots=CLOSED)

    return {
        "unreachable": all_are("down"),
        "denied": all_are("denied"),
        "server_error": all_are("ill"),
        "nonsense": all_are("nonsense"),
        "lost_answer": lose_the_next_claim,
        "out_of_stock": close_all_slots,
    }


def _plant(hosts: Fleet, name: str) -> None:
    """Holds one host, as a platform that is not ours would."""
    place = hosts.machines[hosts.hosts[0].id].files.root / "var/lib/inventiv-host"
    place.mkdir(parents=True, exist_ok=True)
    record = HostRecord(
        name=name, tags={}, zone=ZONE, instance_type="host:1x24", environment={}, created_at=MONDAY_NOON
    )
    (place / "held").write_text(f"{key_of(name)}\n{msgspec.json.encode(record).decode()}\n")
