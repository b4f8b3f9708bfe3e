"""What a provider does not answer, answers late, or refuses; and hosts that are installed by SSH."""

import asyncio
from dataclasses import replace as with_doors
from datetime import timedelta

import pytest
from msgspec.structs import replace

from domain.instance import INSTANCE, OVERDUE_S
from domain.instance_commands import RecordBootstrapPhase, RequestReinstall, RequestTermination
from domain.instance_state import CREATE_UNANSWERED, RATE_LIMITED, TRIES_IN_ONE_PLACE
from domain.instance_steps import ATTEMPT_LIMIT_S, BOOTSTRAP_RETRY_S, SSH_FALLBACK_S, SSH_LIMIT_S
from domain.setting import SETTING, SetSetting, settings_id_of
from handlers import install_by_ssh
from handlers.advance_instance import NO_ACCOUNT_PAUSE_S, advance_instance
from handlers.cloud_ports import CloudRefusedError, CloudTraits, CloudUnavailableError, CommandRun, RefusalKind
from handlers.instance_steps_in_cloud import CREATE_SETTLES_S
from handlers.outcome import Done, Outcome, RetryAfter
from tests.given import NOON
from tests.handlers.fake_cloud import FakePorts
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.test_instance_flows import HERE, THERE, ended, rented_world, wanted
from tests.handlers.world import ACME, INSTANCE_1, Fault, Killed, World

CREATE = 3
"""The number of the effect that creates: after a look for the provider, and the intent."""


async def look(world: World) -> Outcome:
    return await world.tell(advance_instance, "instance", INSTANCE_1)


async def names(world: World) -> list[str]:
    return [request.name[-2:] for request in world.cloud.requests]


@pytest.mark.parametrize("lag_s", [0.0, 5.0])
async def test_a_create_that_takes_effect_late_is_waited_for_and_not_repeated(lag_s: float) -> None:
    world = rented_world(lag_s=lag_s)
    world.cloud.late_s = CREATE_SETTLES_S - 5
    await wanted(world)
    assert (await names(world), list(world.cloud.servers)) == (["-1"], ["srv-1"])
    assert (await world.instance()).status == "booting"


async def test_a_create_that_takes_effect_later_still_is_an_extra_of_an_attempt_that_is_over() -> None:
    world = rented_world()
    world.cloud.late_s = CREATE_SETTLES_S + 60
    await world.request_instance(zone=HERE)
    await look(world)
    world.cloud.late_s = 0.0
    await world.settle()
    world.later(120)
    await world.cloud.list_servers()
    state = await world.instance()
    assert await names(world) == ["-1", "-2"], "each create under a name of its own"
    assert (state.attempt, state.provider_instance_id) == (2, "srv-2")
    assert sorted(world.cloud.servers) == ["srv-1", "srv-2"], "srv-1 belongs to attempt 1: the sweep's"


async def test_creates_that_are_never_answered_end_and_no_name_is_used_twice() -> None:
    world = rented_world()
    world.cloud.late_s = 1e9
    await world.request_instance(zone=HERE)
    await world.settle()
    state = await world.instance()
    assert (state.status, state.error_code) == ("provisioning_failed", CREATE_UNANSWERED)
    assert await names(world) == ["-1", "-2", "-3"][: TRIES_IN_ONE_PLACE[CREATE_UNANSWERED]]


async def test_a_killed_create_is_never_called_again_for_its_intent() -> None:
    world = World(Fault(CREATE, "before", Killed()))
    await world.request_instance()
    await world.settle()
    assert await names(world) == ["-2"]
    assert world.now - NOON >= timedelta(seconds=CREATE_SETTLES_S)


async def test_where_the_provider_itself_makes_one_of_two_the_create_is_repeated_at_once() -> None:
    world = World(Fault(CREATE, "before", Killed()))
    world.cloud.traits = CloudTraits(creates_idempotently=True)
    await world.request_instance()
    await world.settle()
    assert await names(world) == ["-1"]
    assert world.now - NOON < timedelta(seconds=5)


async def test_a_create_that_was_turned_away_at_the_door_is_tried_again_when_the_provider_says() -> None:
    busy = CloudUnavailableError("429 too many requests", "rate_limited", retry_after_s=7)
    world = World(Fault(CREATE, "before", busy))
    await world.request_instance()
    first = await look(world)
    assert isinstance(first, RetryAfter)
    assert first.seconds == 7
    assert (await world.instance()).error_code == RATE_LIMITED
    await world.settle()
    assert (await names(world), (await world.instance()).status) == (["-2"], "booting")


async def test_a_repeated_create_that_is_turned_away_says_nothing_of_the_first_one() -> None:
    world = World(Fault(CREATE, "after", CloudUnavailableError("504")))
    world.cloud.traits = CloudTraits(creates_idempotently=True)
    await world.request_instance()
    await look(world)
    world.cloud.blind = True  # its list lags
    busy = CloudUnavailableError("429", "rate_limited")
    world.effects.fault = Fault(len(world.effects.names) + 2, "before", busy)
    await look(world)
    assert world.effects.names[-2:] == ["create_server", "dispatch RecordProviderTrouble"]
    assert (await world.instance()).error_code == "", "the first create may have made a server"
    world.cloud.blind = False
    await world.settle()
    assert (await names(world), (await world.instance()).status) == (["-1"], "booting")


async def test_a_repeated_create_that_is_refused_says_nothing_of_the_first_one() -> None:
    world = World(Fault(CREATE, "after", CloudUnavailableError("504")))
    world.cloud.traits = CloudTraits(creates_idempotently=True, list_lag_s=30)
    await world.request_instance()
    await look(world)
    world.cloud.blind = True  # its list lags
    none_left = CloudRefusedError("PROVIDER_OUT_OF_STOCK", "None left.", "out_of_stock")
    world.effects.fault = Fault(len(world.effects.names) + 2, "before", none_left)
    outcome = await look(world)
    assert isinstance(outcome, RetryAfter), "the first create may have made a server"
    assert (await world.instance()).error_code == ""
    world.cloud.blind = False
    world.later(31)  # now it shows
    await world.settle()
    assert (await names(world), (await world.instance()).status) == (["-1"], "booting")


async def test_a_provider_that_asks_for_a_pause_gets_it() -> None:
    world = World(Fault(1, "before", CloudUnavailableError("503", retry_after_s=40)))
    await world.request_instance()
    outcome = await look(world)
    assert isinstance(outcome, RetryAfter)
    assert outcome.seconds == 40


async def test_an_unknown_provider_is_not_given_attempts_to_burn() -> None:
    world = World()
    world.cloud.unknown = "503"
    await world.request_instance()
    for attempt in range(10):
        await world.tell(advance_instance, "instance", INSTANCE_1, attempt=attempt)
    assert await world.types() == ["InstanceRequested", "ProviderCallFailed"]
    world.cloud.unknown = ""
    await world.settle()
    assert ((await world.instance()).attempt, (await world.instance()).status) == (1, "booting")


@pytest.mark.parametrize(
    ("kind", "adapters", "told"),
    [
        ("out_of_stock", "", "PROVIDER_OUT_OF_STOCK"),
        ("quota", "QUOTAS", "PROVIDER_QUOTA_EXCEEDED"),
        ("auth", "DENIED", "PROVIDER_AUTH_FAILED"),
        ("permanent", "DISKLESS_BOOT_IMAGE_REQUIRED", "DISKLESS_BOOT_IMAGE_REQUIRED"),
        ("permanent", "", "PROVIDER_CREATE_FAILED"),
    ],
)
async def test_a_refusal_has_the_code_of_its_kind(kind: RefusalKind, adapters: str, told: str) -> None:
    world = World()
    world.cloud.refuses_create = CloudRefusedError(adapters, "no", kind)
    await world.request_instance()
    await world.settle()
    assert ((await world.instance()).status, (await world.instance()).error_code) == ("provisioning_failed", told)


async def test_a_server_without_address_is_given_up_at_its_attempts_deadline_to_the_second() -> None:
    world = rented_world()
    world.cloud.has_address = False
    await world.request_instance(zone=HERE, alternatives=(THERE,), startup_timeout_s=3600)
    for attempt in range(60):
        outcome = await world.tell(advance_instance, "instance", INSTANCE_1, attempt=attempt)
        if (await world.instance()).discarding:
            break
        assert isinstance(outcome, RetryAfter)
        world.later(outcome.seconds)
    assert world.now - NOON == timedelta(seconds=ATTEMPT_LIMIT_S)
    world.cloud.has_address = True
    await world.settle()
    assert [server.zone for server in world.cloud.servers.values()] == ["z2"]


async def test_what_failed_is_ended_half_an_hour_later() -> None:
    world = rented_world()
    await wanted(world)
    world.later(3600)
    await world.settle()
    assert (await world.instance()).status == "startup_failed"
    world.later(1800)
    await world.settle()
    state = await world.instance()
    assert (state.status, state.termination_reason) == ("terminated", "startup_failed_cleanup")
    assert (state.error_code, world.cloud.servers) == ("STARTUP_TIMEOUT", {})


async def test_a_refused_deletion_is_insisted_on_and_told_to_be_overdue_once() -> None:
    world = rented_world()
    await wanted(world)
    world.cloud.refuses_delete = CloudRefusedError("DENIED", "the key was revoked", "auth")
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    for _ in range(40):
        outcome = await look(world)
        assert isinstance(outcome, RetryAfter), "never parked, never forgotten"
        world.later(30)
    assert world.now - NOON > timedelta(seconds=OVERDUE_S)
    assert (await world.types()).count("TerminationOverdue") == 1
    world.cloud.refuses_delete = None
    await world.settle()
    assert ((await world.instance()).status, world.cloud.servers) == ("terminated", {})


async def test_a_provider_that_does_not_reinstall_gives_another_server() -> None:
    world = rented_world()
    world.cloud.refuses_reinstall = CloudRefusedError("PROVIDER_REINSTALL_FAILED", "not offered", "permanent")
    await wanted(world)
    await world.command(INSTANCE, INSTANCE_1, RequestReinstall())
    await world.settle()
    state = await world.instance()
    assert (state.status, state.attempt, list(world.cloud.servers)) == ("booting", 2, ["srv-2"])


async def test_a_reinstall_that_is_refused_for_now_has_failed() -> None:
    world = rented_world()
    world.cloud.refuses_reinstall = CloudRefusedError("", "the key was revoked", "auth")
    await wanted(world)
    await world.command(INSTANCE, INSTANCE_1, RequestReinstall())
    await world.settle()
    assert (await world.instance()).error_code == "PROVIDER_AUTH_FAILED"


async def test_credentials_that_are_gone_are_waited_for() -> None:
    world = rented_world()
    await wanted(world)
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    world.doors = with_doors(world.doors, clouds=FixedClouds({}))
    outcome = await look(world)
    assert isinstance(outcome, RetryAfter)
    assert outcome.seconds == NO_ACCOUNT_PAUSE_S


async def set_setting(world: World, key: str, value: int | bool) -> None:
    command = SetSetting(key=key, value=value, provider="local")
    await world.command(SETTING, settings_id_of(ACME, "local"), command)


async def test_an_organisations_settings_reach_its_servers() -> None:
    world = rented_world()
    await set_setting(world, "WORKER_DEAD_MAN_S", 120)
    await set_setting(world, "WORKER_HEALTH_PORT", 9090)
    await wanted(world)
    environment = world.cloud.requests[0].agent_environment
    assert (environment["WORKER_DEAD_MAN_S"], environment["WORKER_HEALTH_PORT"]) == ("120", "9090")
    assert isinstance(world.cloud.ports, FakePorts)
    assert world.cloud.ports.opened == [("srv-1", (22, 9090, 8000))]


async def test_ports_stay_shut_where_the_settings_say_so() -> None:
    world = rented_world()
    await set_setting(world, "WORKER_EXPOSE_PORTS", False)
    await wanted(world)
    assert isinstance(world.cloud.ports, FakePorts)
    assert (world.cloud.ports.opened, (await world.types())[-1]) == ([], "PortsOpened")


async def test_a_refused_firewall_fails_the_start() -> None:
    world = rented_world()
    assert isinstance(world.cloud.ports, FakePorts)
    world.cloud.ports.refuses = CloudRefusedError("", "no such group")
    await wanted(world)
    assert (await world.instance()).error_code == "PROVIDER_SECURITY_GROUP_FAILED"


def host_world() -> World:
    """A provider whose servers are installed by SSH."""
    world = rented_world()
    world.cloud.traits = CloudTraits(installs_itself=False)
    return world


async def test_a_host_is_reached_and_then_installed() -> None:
    world = host_world()
    await wanted(world)
    assert world.shell.scripts == ["true", f"install {INSTANCE_1}"]
    assert (await world.types())[-2:] == ["SshReached", "BootstrapPhaseDone"]
    assert (await world.instance()).status == "starting"


async def test_a_machine_that_says_nothing_is_installed_by_ssh_after_a_while() -> None:
    world = rented_world()
    await wanted(world)
    assert world.shell.scripts == []
    world.later(SSH_FALLBACK_S)
    await world.settle()
    assert world.shell.scripts == ["true", f"install {INSTANCE_1}"]


async def test_a_host_that_cannot_be_reached_has_failed_in_time() -> None:
    world = host_world()
    world.shell.answers = [CloudUnavailableError("no route to host")]
    await wanted(world)
    assert ((await world.instance()).error_code, (await world.instance()).status) == (
        "SSH_NOT_ACCESSIBLE",
        "startup_failed",
    )
    assert timedelta(seconds=SSH_LIMIT_S) <= world.now - NOON < timedelta(seconds=SSH_LIMIT_S + 60)


async def test_a_host_with_another_key_is_not_touched() -> None:
    world = host_world()
    world.shell.answers = [CloudRefusedError("HOST_KEY_CHANGED", "another key")]
    await wanted(world)
    assert ((await world.instance()).error_code, len(world.shell.scripts)) == ("HOST_KEY_CHANGED", 1)


async def test_a_failed_installation_is_told_with_its_output_and_tried_again_later() -> None:
    world = host_world()
    done = CommandRun(exit_status=0, output="")
    world.shell.answers = [done, CommandRun(exit_status=1, output="no space left"), done]
    await wanted(world)
    state = await world.instance()
    assert (state.status, state.error_message) == ("installing", "start: no space left")
    world.later(BOOTSTRAP_RETRY_S)
    await world.settle()
    assert (await world.instance()).status == "starting"


async def test_an_installation_that_was_cut_off_is_taken_up_again() -> None:
    world = host_world()
    done = CommandRun(exit_status=0, output="")
    world.shell.answers = [done, CloudUnavailableError("connection lost"), done]
    await wanted(world)
    assert world.shell.scripts == ["true", *[f"install {INSTANCE_1}"] * 2]
    assert (await world.instance()).status == "starting"


async def test_an_installation_that_never_ends_has_failed_after_its_limit() -> None:
    world = host_world()
    await set_setting(world, "WORKER_SSH_BOOTSTRAP_TIMEOUT_S", 60)
    world.shell.answers = [CommandRun(exit_status=0, output=""), CloudUnavailableError("connection lost")]
    await wanted(world)
    assert "BootstrapFailed" in await world.types()


async def test_phases_reported_meanwhile_are_no_reason_to_begin_again() -> None:
    world = host_world()

    async def report(script: str) -> None:
        if script != "true":
            for phase in ("start", "done"):
                await world.command(INSTANCE, INSTANCE_1, RecordBootstrapPhase(phase=phase))

    world.shell.meanwhile = report
    await wanted(world)
    assert len(world.shell.scripts) == 2
    assert (await world.types()).count("BootstrapPhaseDone") == 2


@pytest.mark.parametrize("command", [RequestTermination(reason="user"), RequestReinstall()], ids=["end", "reinstall"])
async def test_an_installation_is_let_go_when_the_instance_is_to_end_or_begin_anew(
    monkeypatch: pytest.MonkeyPatch, command: object
) -> None:
    monkeypatch.setattr(install_by_ssh, "CHECK_EVERY_S", 0.01)
    world = host_world()
    let_go = asyncio.Event()

    async def hang(script: str) -> None:
        if script == "true":
            return
        await world.command(INSTANCE, INSTANCE_1, command)
        try:
            await asyncio.Event().wait()
        finally:
            let_go.set()

    world.shell.meanwhile = hang
    await world.request_instance(startup_timeout_s=3600)
    outcome = await asyncio.wait_for(look(world), timeout=10)
    assert let_go.is_set()
    assert isinstance(outcome, RetryAfter | Done)
    world.shell.meanwhile = None
    await ended(world)
    assert world.cloud.servers == {}


async def test_a_worker_that_registered_needs_no_installation() -> None:
    world = rented_world()
    await wanted(world)
    await world.worker_gets_ready()
    world.later(SSH_FALLBACK_S)
    await world.settle()
    assert world.shell.scripts == []
    assert replace(world.cloud.requests[0], zone=HERE) == world.cloud.requests[0]
