"""A rehearsal shows what a reaction would do, beside what was done; and can do nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from domain.instance import INSTANCE
from domain.instance_commands import ArchiveInstance, RequestTermination
from domain.message import Context
from handlers.advance_instance import ACTOR, advance_instance
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger
from handlers.subscriptions import REACTIONS, Reaction
from infra.ledgered_doors import ledgered
from infra.replay import rehearse
from infra.replay.dry_clouds import Deed
from infra.replay.rehearse import Rehearsal, Rehearsed, TooManyWakingsError, verdict_of
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import INSTANCE_1, WORKER, World, heartbeat

ADVANCE = next(reaction for reaction in REACTIONS if reaction.name == "advance_instance")
CREATED = Deed("event", "ServerCreated", "instance/1")
GONE = Deed("event", "ServerSeenGone", "instance/1")
CREATE = Deed("call", "create_server", "server-1")
DELETE = Deed("call", "delete_server", "server-1")


async def lived(**wish: str) -> World:
    """An instance came up, got ready, and was terminated; each deed in the ledger, as the runtime has it."""

    async def advance(trigger: Trigger, doors: Doors) -> Outcome:
        return await advance_instance(trigger, ledgered(doors, ADVANCE.name, trigger))

    world = World()
    world.doors = replace(world.doors, clouds=FixedClouds({wish.get("provider", "local"): world.cloud}))
    await world.request_instance(**wish)
    await world.settle(advance)
    for command in (WORKER, heartbeat(queue_depth=0), RequestTermination(reason="user")):
        world.later(1)
        await world.command(INSTANCE, INSTANCE_1, command)
        await world.settle(advance)
    return world


async def perform(
    world: World, reaction: Reaction = ADVANCE, *, ledger: bool = True, first: int = 1, last: int | None = None
) -> list[Rehearsed]:
    async def calls_of(event_ids: Sequence[str]) -> Mapping[str, Sequence[Deed]]:
        calls: dict[str, list[Deed]] = {}
        for effect in [row.effect for row in world.ledger.kept.rows if ledger]:
            calls.setdefault(effect.event_id, []).append(Deed("call", effect.name, effect.key))
        return {event_id: calls.get(event_id, []) for event_id in event_ids}

    providers = ["local", "scaleway"]
    rehearsal = Rehearsal(reaction, world.log, calls_of, settings=world.doors.settings, providers=providers)
    return [waking async for waking in rehearsal.perform(first=first, last=last, advance=lambda _: None)]


def shown(wakings: Sequence[Rehearsed]) -> list[tuple[str, str]]:
    return [("+".join(waking.events), waking.verdict) for waking in wakings]


def differing(wakings: Sequence[Rehearsed]) -> list[tuple[str, str]]:
    return [(events, verdict) for events, verdict in shown(wakings) if verdict != "same"]


async def test_the_same_handler_would_do_the_same() -> None:
    wakings = await perform(await lived())
    assert differing(wakings) == []
    assert [waking.events[0] for waking in wakings][:4] == [
        "InstanceRequested",
        "ServerCreateIntended",
        "ServerCreated",
        "ServerStarted",
    ]


async def test_what_it_would_do_stands_beside_what_was_done() -> None:
    world = await lived()
    (requested, intended) = (await perform(world))[:2]
    on = f"instance/{INSTANCE_1}"
    assert requested.would == requested.did == (Deed("event", "ServerCreateIntended", on),)
    call = Deed("call", "create_server", world.cloud.requests[0].name)
    assert intended.would == (call,)
    assert set(intended.did) == {call, Deed("event", "ServerCreated", on)}


async def test_a_machine_that_is_given_credentials_is_seen_to_be_rented_without_them() -> None:
    intended = (await perform(await lived(provider="scaleway", engine="vllm")))[1]
    assert [deed.name for deed in intended.would] == ["create_server"]


async def test_events_of_one_command_are_one_waking_for_no_look_sees_them_apart() -> None:
    assert ("AddressAssigned+InstanceBooted", "same") in shown(await perform(await lived()))


async def test_what_a_timer_brought_about_is_rehearsed_at_its_time() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    world.later(300)
    await world.settle()
    booted = next(w for w in await perform(world, ledger=False) if "InstanceBooted" in w.events)
    assert [deed.name for deed in booted.would] == ["InstanceStartupFailed"], "the startup's deadline passed"
    assert booted.verdict == "same"


async def test_a_handler_that_does_nothing_any_more_is_told_what_is_missing() -> None:
    async def rest(trigger: Trigger, _doors: Doors) -> Outcome:
        return Done(version=trigger.version)

    found = differing(await perform(await lived(), replace(ADVANCE, react=rest)))
    assert ("InstanceRequested", "missing") in found
    assert {verdict for _, verdict in found} == {"missing"}


async def test_a_handler_that_does_something_else_is_told_where() -> None:
    async def give_up(trigger: Trigger, doors: Doors) -> Outcome:
        context = Context(actor=ACTOR, correlation="", cause=trigger.cause)
        command = RequestTermination(reason="user")
        await doors.dispatch(INSTANCE, trigger.organization, trigger.id, command, context)
        raise AssertionError("the look ends where the next event's begins")

    first = (await perform(await lived(), replace(ADVANCE, react=give_up)))[0]
    assert first.verdict == "different"
    assert [deed.name for deed in first.would] == ["TerminationRequested", "InstanceTerminated"]


async def test_a_handler_that_raises_is_told_so() -> None:
    async def fail(_trigger: Trigger, _doors: Doors) -> Outcome:
        raise KeyError("bug")

    wakings = await perform(await lived(), replace(ADVANCE, react=fail))
    assert {(waking.verdict, waking.fault) for waking in wakings} == {("failed", "KeyError: 'bug'")}


async def test_a_refused_command_is_no_fault() -> None:
    async def archive(trigger: Trigger, doors: Doors) -> Outcome:
        context = Context(actor=ACTOR, correlation="", cause=trigger.cause)
        await doors.dispatch(INSTANCE, trigger.organization, trigger.id, ArchiveInstance(), context)
        return Done(version=trigger.version)

    first = (await perform(await lived(), replace(ADVANCE, react=archive)))[0]
    assert (first.verdict, first.fault) == ("missing", "")


async def test_calls_that_no_ledger_confirms_are_unverified_and_no_difference() -> None:
    found = differing(await perform(await lived(), ledger=False))
    assert {verdict for _, verdict in found} == {"unverified"}
    assert "ServerCreateIntended" in {events for events, _ in found}


async def test_a_part_of_the_log_can_be_rehearsed_with_the_state_as_it_was() -> None:
    world = await lived()
    everything = await perform(world)
    assert await perform(world, first=3, last=4) == everything[2:4]
    assert await perform(world, first=999) == []


async def test_an_empty_log_wakes_nobody() -> None:
    assert await perform(World()) == []


async def test_too_many_wakings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "MAX_WAKINGS", 2)
    with pytest.raises(TooManyWakingsError):
        await perform(await lived())


async def test_every_reaction_can_be_rehearsed() -> None:
    world = await lived()
    for reaction in REACTIONS:
        assert all(waking.verdict == "same" for waking in await perform(world, reaction)), reaction.name


async def test_a_rehearsal_does_nothing() -> None:
    world = await lived()
    head, done, servers = await world.log.head(), list(world.effects.names), dict(world.cloud.servers)
    assert await perform(world)
    assert await world.log.head() == head
    assert world.effects.names == done, "neither the cloud nor dispatch nor the ledger was touched"
    assert world.cloud.servers == servers


@pytest.mark.parametrize(
    ("would", "did", "asked", "verdict"),
    [
        ([], [], False, "same"),
        ([CREATED], [CREATED], False, "same"),
        ([CREATED], [GONE], False, "different"),
        ([CREATED, CREATED], [CREATED], False, "different"),
        ([CREATED], [], False, "new"),
        ([], [CREATED], False, "missing"),
        ([], [CREATED], True, "same"),
        ([CREATE], [CREATE, CREATED], True, "same"),
        ([CREATE], [DELETE, CREATED], True, "different"),
        ([CREATE], [CREATED], True, "unverified"),
        ([CREATE], [], True, "new"),
        ([CREATED, CREATE], [GONE, CREATE], True, "different"),
    ],
)
def test_verdicts(would: list[Deed], did: list[Deed], asked: bool, verdict: str) -> None:
    assert verdict_of(would, did, asked=asked) == verdict
