"""An owner's host is given back before its slot ends: what runs there drains in time, and nothing else is touched."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.host import HOST, ChangeHost, EnrolHost, Slot, WithdrawHost, host_id_of
from domain.instance import INSTANCE
from domain.instance_commands import (
    IntendServerCreate,
    RecordAddress,
    RecordServerCreated,
    RecordServerStarted,
    RequestInstance,
)
from handlers.keep_hosts_within_slots import REASON, keep_hosts_within_slots
from tests.examples import ACME, HOST_FACTS, INSTANCE_1, example
from tests.handlers.world import WORKER, World, heartbeat

HOST_ID = host_id_of(ACME, "192.0.2.7", 22)
NOON_MINUTE = 12 * 60
DEADLINE_MINUTES = 5
"""World's drain deadline is 300 s, and its clock begins at noon."""


def until_minute(minute: int) -> tuple[Slot, ...]:
    """Every day from midnight on."""
    return tuple(Slot(day=day, start_minute=0, end_minute=minute) for day in range(7))


async def serving(world: World, slots: tuple[Slot, ...], *, provider: str = "bare_metal") -> None:
    facts = replace(HOST_FACTS, slots=slots)
    await world.command(HOST, HOST_ID, replace(example(EnrolHost), facts=facts))
    commands: list[Any] = [
        replace(example(RequestInstance), provider=provider),
        example(IntendServerCreate),
        RecordServerCreated(provider_instance_id=f"{HOST_ID}/0123456789abcdef"),
        RecordServerStarted(),
        RecordAddress(ip_address="192.0.2.7"),
        WORKER,
        heartbeat(queue_depth=0),
    ]
    for command in commands:
        await world.command(INSTANCE, INSTANCE_1, command)
    assert (await world.instance()).status == "ready"


async def test_what_runs_on_a_host_drains_before_its_slot_ends() -> None:
    world = World()
    await serving(world, until_minute(NOON_MINUTE + DEADLINE_MINUTES))
    for _ in range(2):
        await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "draining"
    events = await world.envelopes()
    assert REASON.encode() in bytes(events[-1].data)
    assert (await world.types()).count("DrainStarted") == 1


@pytest.mark.parametrize("slots", [until_minute(NOON_MINUTE + DEADLINE_MINUTES + 1), ()])
async def test_while_there_is_time_it_goes_on(slots: tuple[Slot, ...]) -> None:
    world = World()
    await serving(world, slots)
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "ready"
    world.later(60)
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == ("draining" if slots else "ready")


async def test_slots_that_its_owner_changed_count_at_once() -> None:
    world = World()
    await serving(world, ())
    await world.command(HOST, HOST_ID, ChangeHost(facts=replace(HOST_FACTS, slots=until_minute(60))))
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "draining"


async def test_other_providers_know_no_slots() -> None:
    world = World()
    await serving(world, until_minute(60), provider="local")
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "ready"


async def test_a_withdrawn_host_stops_nothing() -> None:
    world = World()
    await serving(world, until_minute(60))
    await world.command(HOST, HOST_ID, WithdrawHost(serves=False))
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "ready"


async def test_an_instance_without_a_server_has_no_host() -> None:
    world = World()
    await world.command(INSTANCE, INSTANCE_1, replace(example(RequestInstance), provider="bare_metal"))
    await keep_hosts_within_slots(world.doors)
    assert (await world.instance()).status == "provisioning"
