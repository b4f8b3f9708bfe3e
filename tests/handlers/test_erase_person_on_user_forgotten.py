"""A forgotten person's traces go, in an order that survives being cut off anywhere, and nobody else's."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.api_key import API_KEY
from domain.ids import PLATFORM, ApiKeyId, InvitationId, OrganizationId, SessionId
from domain.organization import ORGANIZATION
from domain.organization_commands import AddMember, CreateOrganization
from domain.session import SESSION, OpenSession
from domain.user import USER, ForgetUser, UpdateProfile
from domain.values import Digest, Sealed
from handlers.erase_person_on_user_forgotten import MAX_ROUNDS, addresses_of, erase_person_on_user_forgotten
from handlers.outcome import Done, RetryAfter
from handlers.person_ports import HeldAddress, PersonTraces
from tests.examples import key_to_issue
from tests.handlers.people import BOB, NAMES, OWNER, founded, invited, signed_up
from tests.handlers.world import ACME, ALICE, Fault, Killed, When, World

SESSION_1 = SessionId("session-1")
KEY_1 = ApiKeyId("key-1")


class TracesInTheLog:
    """What the read models would find, read from the world's aggregates."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.addresses: Sequence[HeldAddress] = ()

    async def __call__(self, user_id: str, addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces:
        assert position > 0
        self.addresses = addresses
        load = self.world.dispatcher.load
        session = (await load(SESSION, PLATFORM, SESSION_1)).state
        key = (await load(API_KEY, ACME, KEY_1)).state
        organization = (await load(ORGANIZATION, ACME, ACME)).state
        digests = {address.email for address in addresses}
        pending = [i for i, one in organization.invitations.items() if one.email_digest in digests]
        return PersonTraces(
            sessions=[SESSION_1] if session.user_id == user_id and not session.revoked else [],
            api_keys=[(ACME, KEY_1)] if key.issued and not key.revoked else [],
            memberships=[ACME] if user_id in organization.members else [],
            pending=[(ACME, invitation_id) for invitation_id in pending],
            invitations=[InvitationId("invitation-bob")],
        )


async def a_life(world: World) -> TracesInTheLog:
    """Bob signed up, is a member with a session and a key, was invited once more, and is to be forgotten."""
    traces = TracesInTheLog(world)
    world.doors = replace(world.doors, find_traces=traces)
    await signed_up(world)
    await founded(world)
    await world.command(ORGANIZATION, ACME, AddMember(user_id=BOB, role="user"))
    await world.command(API_KEY, KEY_1, key_to_issue("bob's"))
    session = OpenSession(
        user_id=BOB,
        organization_id=ACME,
        token_sha256="a" * 64,
        expires_at=world.now + timedelta(hours=1),
        ip=Sealed(f"{BOB}:203.0.113.7"),
        user_agent=Sealed(f"{BOB}:Firefox"),
    )
    await world.dispatcher(SESSION, PLATFORM, SESSION_1, session, ALICE)
    await invited(world, "bob")
    await invited(world, "carol")
    return traces


async def moved(world: World, who: str) -> None:
    """Bob has another e-mail address from now on."""
    clear = {**NAMES, "email": f"{who}@example.org"}
    names: dict[str, Any] = {field: Sealed(f"{BOB}:{text}") for field, text in clear.items()}
    digest = Digest(f"digest-of-{who}@")
    await world.command(USER, BOB, UpdateProfile(**names, username_digest=Digest("digest-of-bob"), email_digest=digest))


async def forget(world: World) -> object:
    await world.command(USER, BOB, ForgetUser())
    return await world.settle(erase_person_on_user_forgotten, "user", BOB)


async def left(world: World) -> PersonTraces:
    traces = world.doors.find_traces
    assert isinstance(traces, TracesInTheLog)
    return await traces(BOB, traces.addresses, position=1)


async def test_everything_that_the_person_had_ends() -> None:
    world = World()
    await a_life(world)
    assert isinstance(await forget(world), Done)
    found = await left(world)
    assert (found.sessions, found.api_keys, found.memberships, found.pending) == ([], [], [], [])
    organization = (await world.dispatcher.load(ORGANIZATION, ACME, ACME)).state
    assert [one.email_digest for one in organization.invitations.values()] == ["digest-of-carol@"]


async def test_replies_are_searched_while_the_address_can_still_be_read_and_the_tables_are_rewritten_last() -> None:
    world = World()
    await a_life(world)
    await world.command(USER, BOB, ForgetUser())
    await world.tell(erase_person_on_user_forgotten, "user", BOB)
    assert world.eraser.steps == [
        ("forget_replies", BOB, "invitation-bob", '"bob"', "bob@example.org"),
        ("forget_sign_ins", BOB),
        ("destroy_keys", BOB, "invitation-bob"),
        ("delete_mails", "digest-of-bob@"),
        ("scrub",),
        ("finish", BOB),
    ]


async def test_nobody_is_erased_who_was_not_forgotten() -> None:
    world = World()
    await a_life(world)
    assert isinstance(await world.settle(erase_person_on_user_forgotten, "user", BOB), Done)
    assert world.eraser.steps == []
    assert (await left(world)).sessions == [SESSION_1]


async def test_an_address_counts_until_the_person_gave_it_up() -> None:
    world = World()
    began = world.now
    await signed_up(world)
    world.later(60)
    await moved(world, "robert")
    world.later(60)
    await world.command(USER, BOB, ForgetUser())
    assert addresses_of(await world.envelopes("user", BOB)) == [
        HeldAddress(Digest("digest-of-bob@"), began + timedelta(seconds=60)),
        HeldAddress(Digest("digest-of-robert@"), began + timedelta(seconds=120)),
    ]


async def test_a_last_owner_stays_as_an_id_and_the_rest_is_erased_all_the_same() -> None:
    world = World()
    await a_life(world)
    globex = OrganizationId("globex")
    owned = CreateOrganization(name="Globex", owner=BOB, fallback_slug="globex")
    await world.dispatcher(ORGANIZATION, globex, globex, owned, ALICE)
    find = world.doors.find_traces

    async def with_ownership(user_id: str, addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces:
        found = await find(user_id, addresses, position=position)
        return PersonTraces(sessions=found.sessions, memberships=[globex, *found.memberships])

    world.doors = replace(world.doors, find_traces=with_ownership)
    assert isinstance(await forget(world), Done)
    assert world.eraser.steps[-1] == ("finish", BOB)
    assert (await world.dispatcher.load(ORGANIZATION, globex, globex)).state.members == {BOB: "owner"}
    assert (await world.dispatcher.load(ORGANIZATION, ACME, ACME)).state.members.keys() == {OWNER}


async def test_who_has_more_than_one_look_ends_is_looked_at_again() -> None:
    world = World()
    await a_life(world)
    looks = 0

    async def ever_more(user_id: str, addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces:
        nonlocal looks
        looks += 1
        return PersonTraces(memberships=[OrganizationId(f"organization-{looks}")])

    world.doors = replace(world.doors, find_traces=ever_more)
    await world.command(USER, BOB, ForgetUser())
    outcome = await world.tell(erase_person_on_user_forgotten, "user", BOB)
    assert isinstance(outcome, RetryAfter)
    assert looks == MAX_ROUNDS + 1
    assert ("finish", BOB) not in world.eraser.steps


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [ConnectionError("away"), ValueError("our bug"), Killed()])
async def test_whichever_line_it_is_cut_off_at_the_erasure_is_finished(when: When, error: BaseException) -> None:
    undisturbed = World()
    await a_life(undisturbed)
    await forget(undisturbed)
    lines = undisturbed.effects.names.index("finish") + 1
    assert lines >= 10, "six steps and four endings"
    for number in range(1, lines + 1):
        world = World(Fault(number, when, error))
        await a_life(world)
        assert isinstance(await forget(world), Done), (number, when)
        found = await left(world)
        assert not any((found.sessions, found.api_keys, found.memberships, found.pending)), (number, when)
        assert BOB in world.vault.forgotten
        steps = [step[0] for step in world.eraser.steps]
        assert {"forget_replies", "forget_sign_ins", "delete_mails", "scrub"} <= set(steps[: steps.index("finish")])
        with_words = [step for step in world.eraser.steps if "bob@example.org" in step]
        assert with_words, "the address was searched before its key went"
