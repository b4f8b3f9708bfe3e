"""advance_instance: given events, the effects and commands that follow; and the same end whatever fails on the way."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as structs_replace

from domain.instance import INSTANCE
from domain.instance_commands import RequestReinstall, RequestTermination, StopInstance
from domain.setting import SETTING, SetSetting, settings_id_of
from handlers.advance_instance import advance_instance
from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from handlers.outcome import Done, Outcome, RetryAfter
from handlers.server_tags import Owner, owner_of
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import ACME, INSTANCE_1, Fault, Killed, Signer, When, World, heartbeat

COMING_UP_EVENTS = [
    "InstanceRequested",
    "ServerCreateIntended",
    "ServerCreated",
    "ServerStarted",
    "AddressAssigned",
    "InstanceBooted",
]


async def look(world: World) -> Outcome:
    return await world.tell(advance_instance, "instance", INSTANCE_1)


async def whole_life(world: World) -> None:
    """Requested, ready, ended; settled after each."""
    await world.request_instance()
    await world.settle()
    await world.worker_gets_ready()
    await world.settle()
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()


async def test_a_requested_instance_gets_one_server_that_is_started_and_has_an_address() -> None:
    world = World()
    await world.request_instance()
    settled = await world.settle()
    assert await world.types() == COMING_UP_EVENTS
    assert [request.name for request in world.cloud.requests] == [f"inventiv-worker-{INSTANCE_1}-1"]
    assert isinstance(settled, Done)
    assert settled.again_at is not None, "it looks again when the startup has taken too long"


async def test_the_intent_is_on_record_before_anything_is_created() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    assert world.effects.names[:3] == ["find_server", "dispatch IntendServerCreate", "create_server"]


async def test_the_agent_is_told_all_it_needs_and_the_tags_are_signed() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    request = world.cloud.requests[0]
    assert request.agent_environment == {
        "CONTROL_PLANE_URL": "http://127.0.0.1:8003",
        "INSTANCE_ID": INSTANCE_1,
        "MODEL_ID": "mock-echo-model",
        "WORKER_AUTH_TOKEN": f"wb_{INSTANCE_1}_1",
        "WORKER_DEAD_MAN_S": "0",
        "WORKER_ENGINE": "simulated",
        "WORKER_HEALTH_PORT": "8080",
        "WORKER_HEARTBEAT_INTERVAL_S": "5.0",
        "WORKER_SIMULATE_GPU_COUNT": "1",
        "WORKER_SIMULATE_GPU_VRAM_MB": "2048",
        "WORKER_VLLM_PORT": "8000",
    }
    assert owner_of(request.tags, Signer()) == Owner(ACME, INSTANCE_1, 1)


@pytest.mark.parametrize(
    ("relay_url", "told"),
    [
        ("", {"WORKER_TUNNEL": "1"}),
        ("https://relay.test", {"WORKER_TUNNEL": "1", "WORKER_TUNNEL_URL": "https://relay.test"}),
    ],
)
async def test_an_organisation_whose_hosts_are_behind_nat_has_its_agents_open_tunnels(
    relay_url: str, told: dict[str, str]
) -> None:
    world = World()
    world.doors = replace(world.doors, settings=structs_replace(world.doors.settings, tunnel_url=relay_url))
    setting = SetSetting(key="WORKER_TUNNEL", value=True, provider="local")
    await world.command(SETTING, settings_id_of(ACME, "local"), setting)
    await world.request_instance()
    await world.settle()
    environment = world.cloud.requests[0].agent_environment
    assert {name: value for name, value in environment.items() if "TUNNEL" in name} == told


async def test_a_server_boots_the_image_that_its_organisation_chose_for_the_provider() -> None:
    world = World()
    setting = SetSetting(key="WORKER_BOOT_IMAGE", value="gold", provider="local")
    await world.command(SETTING, settings_id_of(ACME, "local"), setting)
    await world.request_instance()
    await world.settle()
    assert world.cloud.requests[0].image == "gold"
    other = World()
    await other.request_instance()
    await other.settle()
    assert other.cloud.requests[0].image == ""


@pytest.mark.parametrize(("chosen", "told"), [(0, "0"), (5, "60"), (900, "900")])
async def test_the_dead_man_switch_is_off_until_its_owner_chooses_a_bound(chosen: int, told: str) -> None:
    world = World()
    setting = SetSetting(key="WORKER_DEAD_MAN_S", value=chosen, provider="local")
    await world.command(SETTING, settings_id_of(ACME, "local"), setting)
    await world.request_instance()
    await world.settle()
    assert world.cloud.requests[0].agent_environment["WORKER_DEAD_MAN_S"] == told


async def test_each_finding_is_caused_by_the_event_before_it_and_keeps_the_intent() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    envelopes = await world.envelopes()
    assert [e.cause for e in envelopes[1:5]] == [e.event_id for e in envelopes[:4]]
    assert {e.correlation for e in envelopes} == {"the-intent"}
    assert {e.actor for e in envelopes[1:]} == {"system:handlers"}


async def test_a_server_that_exists_by_name_is_adopted_not_created_again() -> None:
    world = World(Fault(3, "after", CloudUnavailableError("no answer")))  # created, but the answer was lost
    await world.request_instance()
    assert isinstance(await look(world), RetryAfter)
    await world.settle()
    assert len(world.cloud.requests) == 1
    assert (await world.instance()).provider_instance_id == "srv-1"


async def test_control_without_looking_first_a_lost_answer_makes_two_servers() -> None:
    world = World(Fault(3, "after", CloudUnavailableError("no answer")))
    world.cloud.blind = True
    await world.request_instance()
    await world.settle()
    assert len(world.cloud.requests) == 2


async def test_an_unknown_existence_creates_nothing() -> None:
    world = World()
    world.cloud.unknown = "429 too many requests"
    await world.request_instance()
    assert await look(world) == RetryAfter(0.25, "find_server: 429 too many requests", version=2)
    assert (world.cloud.requests, await world.types()) == ([], ["InstanceRequested", "ProviderCallFailed"])


async def test_a_refused_creation_fails_the_instance_with_the_providers_words() -> None:
    world = World()
    world.cloud.refuses_create = CloudRefusedError("PROVIDER_OUT_OF_STOCK", "none left")
    await world.request_instance()
    await world.settle()
    instance = await world.instance()
    assert (instance.status, instance.error_code) == ("provisioning_failed", "PROVIDER_OUT_OF_STOCK")


async def test_a_refused_start_cleans_the_server_up() -> None:
    world = World()
    world.cloud.refuses_start = CloudRefusedError("PROVIDER_OUT_OF_STOCK", "none left")
    await world.request_instance()
    await world.settle()
    instance = await world.instance()
    assert (instance.status, instance.termination_reason) == ("terminated", "provider_out_of_stock")
    assert world.cloud.servers == {}


async def test_a_server_without_address_is_asked_again_with_growing_pauses() -> None:
    world = World()
    world.cloud.has_address = False
    await world.request_instance()
    first = await look(world)
    second = await world.tell(advance_instance, "instance", INSTANCE_1, attempt=3)
    assert isinstance(first, RetryAfter)
    assert isinstance(second, RetryAfter)
    assert (first.seconds, second.seconds) == (0.25, 2.0)


async def test_a_server_that_vanished_before_it_had_an_address_ends_the_instance_after_two_sightings() -> None:
    world = World()
    world.cloud.has_address = False
    await world.request_instance()
    await look(world)
    world.cloud.servers.clear()
    await world.settle()
    assert (await world.types())[-2:] == ["ServerSeenGone", "InstanceTerminated"]


async def test_a_worker_that_never_reports_is_given_up_at_the_deadline() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    world.later(300)
    await look(world)
    instance = await world.instance()
    assert (instance.status, instance.error_code) == ("startup_failed", "STARTUP_TIMEOUT")


async def test_a_wanted_reinstall_is_done_once_and_recorded() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, RequestReinstall())
    await world.settle()
    assert world.cloud.reinstalled == ["srv-1"]
    assert (await world.types())[-2:] == ["ReinstallRequested", "ServerReinstalled"]


async def test_a_drained_instance_is_terminated_and_its_server_seen_gone_twice() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, StopInstance(reason="user"))
    world.later(3)
    await world.command(INSTANCE, INSTANCE_1, heartbeat(queue_depth=0))
    await world.settle()
    assert (await world.types())[-6:] == [
        "DrainStarted",
        "WorkerDrained",
        "TerminationRequested",
        "ServerSeenGone",
        "ServerSeenGone",
        "InstanceTerminated",
    ]
    assert world.cloud.servers == {}


async def test_a_drain_ends_at_its_deadline_at_the_latest() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, StopInstance(reason="user", drain_deadline_s=120))
    waiting = await look(world)
    assert isinstance(waiting, Done)
    assert waiting.again_at is not None
    world.now = waiting.again_at
    await world.settle()
    assert (await world.instance()).status == "terminated"


async def test_an_instance_terminated_while_its_creation_is_unanswered_loses_that_server_too() -> None:
    world = World(Fault(3, "after", CloudUnavailableError("no answer")))
    await world.request_instance()
    await look(world)
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()
    assert (await world.instance()).status == "terminated"
    assert world.cloud.servers == {}
    assert world.cloud.deleted[0] == "srv-1"


async def test_an_unknown_provider_is_refused_before_anything_is_intended() -> None:
    world = World()
    await world.request_instance(provider="elsewhere")
    await world.settle()
    assert (await world.instance()).error_code == "MISSING_PROVIDER_CREDENTIALS"
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    assert (await world.instance()).status == "terminated"


async def test_a_server_whose_account_is_gone_is_asked_for_until_the_account_is_back() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    doors = world.doors
    world.doors = replace(doors, clouds=FixedClouds({}))
    for _ in range(3):
        assert isinstance(await look(world), RetryAfter)
    assert (await world.types())[-2:] == ["TerminationRequested", "ProviderCallFailed"]
    world.doors = doors
    await world.settle()
    assert ((await world.instance()).status, world.cloud.servers) == ("terminated", {})


async def effects_of_a_whole_life() -> int:
    world = World()
    await whole_life(world)
    return len(world.effects.names)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [CloudUnavailableError("no answer"), ValueError("our bug"), Killed()])
async def test_whichever_effect_fails_once_the_end_is_the_same_with_exactly_one_server(
    when: When, error: BaseException
) -> None:
    number = 0
    for number in range(1, await effects_of_a_whole_life() + 1):
        world = World(Fault(number, when, error))
        await whole_life(world)
        failed = f"effect {number} ({world.effects.names[number - 1]}) failed {when} it was done"
        assert (await world.instance()).status == "terminated", failed
        assert len(world.cloud.requests) == 1, failed
        assert world.cloud.servers == {}, failed
    assert number >= 12, "a whole life has at least a dozen effects"
