"""What is done to a provider is on record beside the event because of which it was done; nothing is decided there."""

from domain.instance import INSTANCE
from domain.instance_commands import RequestTermination
from handlers.advance_instance import advance_instance
from handlers.cloud_ports import Cloud, CloudRefusedError, CloudTraits, CloudUnavailableError
from handlers.outcome import Outcome
from handlers.ports import Doors, Trigger
from infra.effects import EffectRow
from infra.ledgered_doors import ledgered
from tests.handlers.world import ACME, INSTANCE_1, Fault, World


async def local_of(doors: Doors) -> Cloud:
    cloud = await doors.clouds.of(ACME, "local")
    assert cloud is not None
    return cloud


async def advance(trigger: Trigger, doors: Doors) -> Outcome:
    return await advance_instance(trigger, ledgered(doors, "advance_instance", trigger))


async def live_and_die(world: World) -> None:
    await world.request_instance()
    await world.settle(advance)
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle(advance)


async def causes(world: World) -> dict[str, str]:
    """Deed -> type of the event that it is recorded beside."""
    types = {envelope.event_id: envelope.type for envelope in await world.envelopes()}
    return {row.effect.name: types[row.effect.event_id] for row in world.ledger.kept.rows}  # type: ignore[index] # str


def states(world: World) -> dict[str, str]:
    return {row.effect.name: row.state for row in world.ledger.kept.rows}


def row_of(world: World, name: str) -> EffectRow:
    return next(row for row in world.ledger.kept.rows if row.effect.name == name)


async def test_each_deed_stands_beside_the_event_that_made_it_necessary() -> None:
    world = World()
    await live_and_die(world)
    assert await causes(world) == {
        "create_server": "ServerCreateIntended",
        "start_server": "ServerCreated",
        "delete_server": "ServerSeenGone",
    }
    assert states(world) == dict.fromkeys(["create_server", "start_server", "delete_server"], "done")


async def test_volumes_firewall_and_shell_are_on_record_too() -> None:
    world = World()
    volumes = world.cloud.with_volumes()
    world.cloud.traits = CloudTraits(installs_itself=False)
    await world.request_instance(disk_gb=200)
    await world.settle(advance)
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle(advance)
    assert await causes(world) == {
        "create_server": "ServerCreateIntended",
        "resize_volume": "VolumesListed",
        "start_server": "VolumeResized",
        "open_ports": "InstanceBooted",
        "run_by_ssh": "SshReached",
        "delete_server": "ServerSeenGone",
        "delete_volume": "ServerSeenGone",
    }
    assert world.cloud.requests[0].agent_environment["WORKER_AUTH_TOKEN"] not in repr(world.ledger.kept.rows)
    assert volumes.kept == {}


async def test_no_secret_is_on_record() -> None:
    world = World()
    await live_and_die(world)
    (request,) = world.cloud.requests
    assert request.agent_environment["WORKER_AUTH_TOKEN"] not in repr(world.ledger.kept.rows)
    assert row_of(world, "create_server").effect.key == request.name


async def test_a_deed_without_an_answer_is_unknown_and_the_next_look_finds_its_server() -> None:
    world = World(Fault(4, "after", CloudUnavailableError("no answer")))
    await world.request_instance()
    assert world.effects.names == []
    await world.tell(advance, "instance", INSTANCE_1)
    assert world.effects.names[:4] == [
        "find_server",
        "dispatch IntendServerCreate",
        "intend create_server",
        "create_server",
    ]
    assert states(world) == {"create_server": "unknown"}
    await world.settle(advance)
    assert len(world.cloud.requests) == 1


async def test_a_refusal_is_on_record_by_its_code() -> None:
    world = World()
    world.cloud.refuses_create = CloudRefusedError("PROVIDER_OUT_OF_STOCK", "none left for customer 4711")
    await world.request_instance()
    await world.settle(advance)
    row = row_of(world, "create_server")
    assert (row.state, row.detail) == ("refused", "PROVIDER_OUT_OF_STOCK")


async def test_without_a_ledger_nothing_is_done() -> None:
    world = World(Fault(3, "before", ConnectionError("the ledger is away")))
    await world.request_instance()
    await world.tell(advance, "instance", INSTANCE_1)
    assert world.cloud.requests == []


async def test_a_deed_whose_end_could_not_be_noted_counts_all_the_same() -> None:
    world = World(Fault(5, "before", ConnectionError("the ledger is away")))
    await world.request_instance()
    await world.settle(advance)
    assert world.effects.names[4] == "note create_server done"
    assert states(world)["create_server"] == "intended"
    assert len(world.cloud.requests) == 1


async def test_what_a_duty_does_is_on_record_under_its_name() -> None:
    world = World()
    await (await local_of(ledgered(world.doors, "keep_servers_matching_records"))).delete_server("srv-9")
    (row,) = world.ledger.kept.rows
    assert (row.effect.reaction, row.effect.event_id, row.effect.name, row.effect.key, row.state) == (
        "keep_servers_matching_records",
        "",
        "delete_server",
        "srv-9",
        "done",
    )


async def test_looking_leaves_no_row() -> None:
    world = World()
    doors = ledgered(world.doors, "some_duty")
    await (await local_of(doors)).list_servers()
    await (await local_of(doors)).find_server(name="x")
    assert world.ledger.kept.rows == []
