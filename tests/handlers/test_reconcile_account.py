"""A look at an account: what the provider has and nobody wants goes, and each lock has its control."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace as replaced
from typing import Any

import pytest
from msgspec.structs import replace

from domain.ids import OrganizationId
from domain.message import Context
from domain.provider_account import (
    BREAKER_FLOOR,
    BREAKER_WINDOW_S,
    PROVIDER_ACCOUNT,
    provider_account_id_of,
)
from domain.provider_account_commands import RequestReconciliation
from handlers.advance_instance import advance_instance
from handlers.cloud_ports import (
    Account,
    Cloud,
    CloudRefusedError,
    Server,
)
from handlers.cloud_ports import CloudUnavailableError as Unavailable
from handlers.keep_servers_matching_records import keep_servers_matching_records
from handlers.reconcile_account import GRACE_S, reconcile
from handlers.reconcile_account_on_reconciliation_requested import reconcile_account_on_reconciliation_requested
from tests.handlers.accounts import (
    account,
    ended_world,
    look,
    looks,
    running_world,
    server,
    told,
)
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import ACME, INSTANCE_1, Fault, When, World


async def test_a_server_that_its_ended_instance_left_is_deleted_after_two_sightings_and_the_grace() -> None:
    world = await ended_world(server(9))
    await look(world)
    await look(world, after_s=GRACE_S - 1)
    assert world.cloud.deleted == []
    await look(world, after_s=1)
    assert world.cloud.deleted == ["srv-9"]
    await look(world, after_s=20)
    assert await told(world) == [
        "StraySeen",
        "ReconciliationCompleted",
        "StrayDeleteIntended",
        "StrayCleared",
        "ReconciliationCompleted",
    ]


async def test_a_deletion_is_on_record_before_the_provider_is_told() -> None:
    world = await ended_world(server(9))
    await look(world)
    seen: list[list[str]] = []
    delete = world.cloud._delete

    async def watched(server_id: str) -> None:
        seen.append(await told(world))
        await delete(server_id)

    world.cloud._delete = watched  # type: ignore[method-assign] # the moment of the call is what is looked at
    await look(world, after_s=GRACE_S)
    assert [types[-1] for types in seen] == ["StrayDeleteIntended"]


async def test_a_restart_forgets_nothing() -> None:
    """The memory is the log: any process may take the next look."""
    world = await ended_world(server(9))
    await look(world)
    world.dispatcher = type(world.dispatcher)(world.log, *_parts(world))
    world.doors = replaced(world.doors, dispatch=world.dispatcher, load=world.dispatcher.load)
    await look(world, after_s=GRACE_S)
    assert world.cloud.deleted == ["srv-9"]


def _parts(world: World) -> tuple[Any, Any, Any]:
    return (world.dispatcher._codec, world.clock, world.dispatcher._new_id)


async def test_a_deletion_that_fails_is_tried_again_until_the_server_is_gone() -> None:
    world = await ended_world(server(9))
    await look(world)
    delete = world.cloud._delete

    async def refuse(server_id: str) -> None:
        raise CloudRefusedError("PROVIDER_DELETE_FAILED", "you may not", "auth")

    world.cloud._delete = refuse  # type: ignore[method-assign] # a provider that refuses
    await looks(world, 3)
    failed = (await account(world)).troubles["delete_server"]
    assert failed.kind == "auth"
    world.cloud._delete = delete  # type: ignore[method-assign] # and thinks better of it
    await look(world, after_s=20)
    assert world.cloud.deleted == ["srv-9"]
    await look(world, after_s=20)
    assert (await account(world)).troubles == {}


async def test_still_busy_is_no_news_at_first() -> None:
    world = await ended_world(server(9))
    await look(world)

    async def busy(server_id: str) -> None:
        raise Unavailable("still stopping")

    world.cloud._delete = busy  # type: ignore[method-assign] # a provider that switches off first
    await look(world, after_s=GRACE_S)
    assert (await account(world)).troubles == {}
    await looks(world, 3)
    assert (await account(world)).troubles.keys() == {"delete_server"}


async def test_a_server_that_its_instance_owns_is_left_alone() -> None:
    world = await running_world()
    await looks(world)
    assert world.cloud.deleted == []
    assert (await account(world)).strays == {}


async def test_a_second_server_of_the_same_attempt_is_a_stray() -> None:
    world = await running_world()
    world.cloud.servers["srv-2"] = server(2)
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-2"]


async def test_a_server_of_an_earlier_attempt_is_a_stray_and_the_present_one_is_not() -> None:
    world = await running_world()
    world.cloud.servers["srv-2"] = server(2, attempt=0)
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-2"]


async def test_a_server_that_appears_after_its_creation_certainly_failed_is_a_stray() -> None:
    world = World()
    world.cloud.refuses_create = CloudRefusedError("PROVIDER_CREATE_FAILED", "no", "permanent")
    await world.request_instance()
    await world.settle()
    world.cloud.servers["srv-9"] = server(9)
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-9"]


async def test_while_the_outcome_of_a_creation_is_unknown_its_server_is_wanted() -> None:
    world = World()
    world.cloud.unknown = "503"
    await world.request_instance()
    await world.tell(advance_instance, "instance", INSTANCE_1)
    world.cloud.unknown = ""
    world.cloud.servers["srv-9"] = server(9)
    await looks(world)
    assert world.cloud.deleted == []


@pytest.mark.parametrize("forged", [{"signature": "forged"}, {"instance": "another"}, {"platform": ""}])
async def test_what_is_not_signed_by_us_is_never_touched(forged: dict[str, str]) -> None:
    stranger = replace(server(9), tags={**server(9).tags, **forged})
    world = await ended_world(stranger)
    await looks(world)
    assert world.cloud.deleted == []
    assert "StraySeen" not in await told(world)


async def test_a_lost_log_costs_no_server_and_is_told() -> None:
    world = World()
    world.cloud.servers = {f"srv-{n}": server(n, instance_id=f"instance-{n}") for n in range(3)}
    await looks(world)
    assert world.cloud.deleted == []
    assert (await told(world)).count("UnrecordedServerSeen") == 3


async def test_a_log_without_its_tail_costs_no_server() -> None:
    """The record knows one attempt, the server was made for the second: the log has forgotten, not the server."""
    world = await ended_world(server(9, attempt=2))
    await looks(world)
    assert world.cloud.deleted == []
    assert (await account(world)).unrecorded.keys() == {"server/srv-9"}


async def test_records_that_lag_behind_the_log_conclude_nothing() -> None:
    world = await ended_world(server(9))
    await look(world)
    world.records_behind = True
    await looks(world)
    assert world.cloud.deleted == []
    assert (await account(world)).troubles["read_records"].kind == "records_behind"
    world.records_behind = False
    await look(world)
    assert world.cloud.deleted == ["srv-9"], "the control: with records up to date it goes"


@pytest.mark.parametrize(
    "fault", [Unavailable("503"), CloudRefusedError("AUTH", "401", "auth"), Unavailable("429", "rate_limited", 30)]
)
async def test_a_listing_without_answer_changes_nothing_and_is_told_once(fault: Exception) -> None:
    world = await running_world()
    world.cloud.servers["srv-9"] = server(9)
    await look(world)
    list_servers = world.cloud.list_servers

    async def fail() -> Sequence[Server]:
        raise fault

    world.cloud.list_servers = fail  # type: ignore[method-assign] # a provider without an answer
    before = await world.instance()
    await looks(world)
    assert (world.cloud.deleted, await world.instance()) == ([], before)
    assert (await told(world)).count("ReconciliationFailed") == 1
    world.cloud.list_servers = list_servers  # type: ignore[method-assign] # the control: it answers again
    await look(world)
    assert world.cloud.deleted == ["srv-9"]


async def test_the_breaker_stops_mass_deletion() -> None:
    world = await ended_world(*(server(n) for n in range(30)))
    await looks(world)
    assert len(world.cloud.deleted) == BREAKER_FLOOR
    await look(world, after_s=BREAKER_WINDOW_S)
    assert len(world.cloud.deleted) == 2 * BREAKER_FLOOR, "as many more, in the next window"
    assert "DeletionHalted" in await told(world)


async def test_one_account_away_does_not_stop_the_look_at_another() -> None:
    world, away, silent = await ended_world(server(9)), World(), World()
    await look(world)
    world.later(GRACE_S)
    away.cloud.unknown = "401"
    silent.cloud.list_servers = asyncio.Event().wait  # type: ignore[method-assign,assignment] # answers never
    gone, delete = asyncio.Event(), world.cloud._delete

    async def watched(server_id: str) -> None:
        await delete(server_id)
        gone.set()

    world.cloud._delete = watched  # type: ignore[method-assign] # its end is what is waited for
    clouds: dict[str, Cloud] = {"away": away.cloud, "silent": silent.cloud, "local": world.cloud}
    duty = asyncio.create_task(keep_servers_matching_records(replaced(world.doors, clouds=FixedClouds(clouds))))
    await asyncio.wait_for(gone.wait(), timeout=5)
    duty.cancel()
    assert world.cloud.deleted == ["srv-9"]


async def test_a_neighbours_servers_in_a_shared_account_are_the_neighbours_business() -> None:
    world = await ended_world(server(9))
    theirs = Account(OrganizationId("globex"), "local")
    for _ in range(3):
        await reconcile(theirs, world.doors)
        world.later(GRACE_S)
    assert world.cloud.deleted == []
    found = await world.log.read(f"evt.globex.provider_account.{provider_account_id_of(theirs.organization, 'local')}")
    assert [recorded.envelope.type for recorded in found] == ["ReconciliationCompleted"]
    assert INSTANCE_1.encode() not in b"".join(recorded.payload for recorded in found)


async def ask(world: World, of: Account) -> str:
    """Somebody asks for a look at the account; returns its id."""
    account_id = provider_account_id_of(of.organization, of.provider)
    command, context = RequestReconciliation(provider=of.provider), Context(actor="user:alice", correlation="now")
    await world.dispatcher(PROVIDER_ACCOUNT, of.organization, account_id, command, context)
    return account_id


async def test_who_asks_is_answered_by_a_look_of_its_own() -> None:
    world = await running_world()
    of = Account(ACME, "local")
    account_id = await ask(world, of)
    await world.settle(reconcile_account_on_reconciliation_requested, "provider_account", account_id)
    first, last = await world.envelopes("provider_account", account_id)
    assert (first.type, last.type, last.correlation) == ("ReconciliationRequested", "ReconciliationCompleted", "now")


async def test_a_request_for_an_account_without_credentials_is_answered_too() -> None:
    world = World()
    account_id = await ask(world, Account(ACME, "scaleway"))
    await world.settle(reconcile_account_on_reconciliation_requested, "provider_account", account_id)
    assert await world.types("provider_account", account_id) == ["ReconciliationRequested", "ReconciliationFailed"]
    state = (await world.dispatcher.load(PROVIDER_ACCOUNT, ACME, account_id)).state
    assert (state.reconciliation_requested_at, state.troubles["open_account"].kind) == (None, "auth")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whatever_fails_once_the_request_is_answered_and_only_the_stray_is_deleted(when: When) -> None:
    """Each effect in turn: a dispatch, a call of the provider, a note of the ledger."""
    number, struck = 0, True
    while struck:
        number += 1
        world = await ended_world(server(9))
        of = Account(ACME, "local")
        account_id = await ask(world, of)
        react = reconcile_account_on_reconciliation_requested
        await world.settle(react, "provider_account", account_id)
        world.later(GRACE_S)
        await ask(world, of)
        world.effects.names.clear()
        world.effects.fault = Fault(number, when, Unavailable("cut off"))
        await world.settle(react, "provider_account", account_id)
        struck = len(world.effects.names) >= number
        world.effects.fault = None
        for _ in range(3):
            world.later(GRACE_S)
            await reconcile(of, world.doors)
        assert set(world.cloud.deleted) == {"srv-9"}, f"effect {number}"
        state = (await world.dispatcher.load(PROVIDER_ACCOUNT, ACME, account_id)).state
        assert (state.reconciliation_requested_at, state.strays) == (None, {}), f"effect {number}"
    assert number > 2
