"""Invitations and reset links go out by mail: once each, to whom they are for, while they are worth anything."""

from datetime import timedelta

import pytest

from domain.organization import ORGANIZATION
from domain.organization_commands import RevokeInvitation
from domain.user import USER, RecordPasswordSet
from handlers.mails import plain
from handlers.outcome import Done, RetryAfter
from handlers.ports import MailRefusedError, MailUnavailableError
from handlers.send_invitation_on_member_invited import MAX_FAULTS, send_invitation_on_member_invited
from handlers.send_reset_link_on_password_reset_requested import send_reset_link_on_password_reset_requested
from tests.handlers.people import BOB, OWNER, founded, invited, reset_requested, signed_up
from tests.handlers.world import ACME, Fault, Killed, When, World

WHENS: tuple[When, ...] = ("before", "after")
ERRORS = (MailUnavailableError("away"), ValueError("our bug"), Killed())
SENT_LINE = 2
"""Of the effects: intended, sent, noted."""


async def invite_mails(world: World) -> object:
    return await world.settle(send_invitation_on_member_invited, "organization", ACME)


async def reset_mails(world: World) -> object:
    return await world.settle(send_reset_link_on_password_reset_requested, "user", BOB)


def recipients(world: World) -> list[str]:
    return [mail.to for mail in world.mailer.mails]


async def test_an_invitation_is_mailed_with_one_link_that_works() -> None:
    world = World()
    await founded(world)
    invitation_id = await invited(world, "carol")
    await invite_mails(world)
    [mail] = world.mailer.mails
    assert mail.to == "carol@example.org"
    assert f"https://console.test/invitations/invitation-of-{invitation_id}\n" in mail.text
    assert mail.text.count("://") == 1
    assert "Acme GmbH" in mail.text
    assert "manager" in mail.text
    assert mail.message_id == (await world.envelopes("organization", ACME))[-1].event_id


async def test_each_invitation_has_its_own_mail_however_often_it_is_told() -> None:
    world = World()
    await founded(world)
    for who in ("carol", "dave"):
        await invited(world, who)
    await invite_mails(world)
    await invited(world, "eve")
    await invite_mails(world)
    await invite_mails(world)
    assert recipients(world) == ["carol@example.org", "dave@example.org", "eve@example.org"]


async def test_what_was_revoked_or_has_expired_is_not_mailed_any_more() -> None:
    world = World()
    await founded(world)
    revoked = await invited(world, "carol")
    await invited(world, "dave", expires_in=timedelta(minutes=1))
    await invited(world, "eve")
    await world.command(ORGANIZATION, ACME, RevokeInvitation(by=OWNER, invitation_id=revoked))
    world.later(61)
    await invite_mails(world)
    assert recipients(world) == ["eve@example.org"]


async def test_an_address_that_is_refused_for_good_holds_up_nobody() -> None:
    world = World()
    await founded(world)
    await invited(world, "carol")
    world.mailer.error = MailRefusedError("smtp_550")
    await invite_mails(world)
    world.mailer.error = None
    await invited(world, "dave")
    assert isinstance(await invite_mails(world), Done)
    assert recipients(world) == ["dave@example.org"], "and the refused one is not tried again"
    assert sorted((row.state, row.detail) for row in world.ledger.kept.rows) == [("done", ""), ("refused", "smtp_550")]


async def test_a_person_forgotten_meanwhile_gets_no_mail() -> None:
    world = World()
    await founded(world)
    world.vault.forgotten.add(await invited(world, "carol"))
    await invite_mails(world)
    assert recipients(world) == []
    assert [row.detail for row in world.ledger.kept.rows] == ["person_forgotten"]


async def test_a_link_that_would_lead_nowhere_is_not_mailed() -> None:
    world = World()
    await founded(world)
    await invited(world, "carol", token="of another master key")
    await invite_mails(world)
    assert recipients(world) == []
    assert [row.detail for row in world.ledger.kept.rows] == ["token_does_not_fit"]


async def test_one_mail_that_cannot_go_now_does_not_hold_up_the_others() -> None:
    world = World(Fault(SENT_LINE, "before", MailUnavailableError("greylisted")))
    await founded(world)
    for who in ("carol", "dave"):
        await invited(world, who)
    first = await world.tell(send_invitation_on_member_invited, "organization", ACME)
    assert isinstance(first, RetryAfter)
    assert recipients(world) == ["dave@example.org"]
    await invite_mails(world)
    assert recipients(world) == ["dave@example.org", "carol@example.org"]


async def test_a_look_gives_up_when_the_mail_server_is_away() -> None:
    world = World()
    await founded(world)
    for number in range(MAX_FAULTS + 2):
        await invited(world, f"guest{number}")

    world.mailer.error = MailUnavailableError("away")
    assert isinstance(await world.tell(send_invitation_on_member_invited, "organization", ACME), RetryAfter)
    assert world.effects.names.count("send") == MAX_FAULTS


async def invite_two(world: World) -> list[str]:
    await founded(world)
    for who in ("carol", "dave"):
        await invited(world, who)
    await invite_mails(world)
    return sorted(recipients(world))


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("error", ERRORS)
async def test_whichever_line_it_is_cut_off_at_each_invitation_is_mailed_once(when: When, error: BaseException) -> None:
    undisturbed = World()
    await invite_two(undisturbed)
    assert len(undisturbed.effects.names) >= 6
    for number in range(1, len(undisturbed.effects.names) + 1):
        world = World(Fault(number, when, error))
        assert await invite_two(world) == ["carol@example.org", "dave@example.org"], (number, when)


async def test_with_a_server_that_cannot_be_asked_a_mail_that_was_cut_off_comes_twice_and_never_not_at_all() -> None:
    """What was decided for SMTP; the control for the test above, too."""
    doubled = 0
    for number in range(1, 7):
        world = World(Fault(number, "after", Killed()))
        world.mailer.denies = True
        sent = await invite_two(world)
        assert set(sent) == {"carol@example.org", "dave@example.org"}
        doubled += len(sent) - 2
    assert doubled == 2, "killed after each of the two sends, before the ledger heard of it"


async def test_a_reset_link_is_mailed_to_the_address_of_now() -> None:
    world = World()
    await signed_up(world)
    expires_at = await reset_requested(world)
    await reset_mails(world)
    [mail] = world.mailer.mails
    assert mail.to == "bob@example.org"
    link = f"https://console.test/reset-password?token=password_reset-of-{BOB}/{expires_at.isoformat()}\n"
    assert link in mail.text
    assert mail.text.count("://") == 1


async def test_only_the_newest_reset_link_is_mailed() -> None:
    world = World()
    await signed_up(world)
    await reset_requested(world)
    world.later(600)
    expires_at = await reset_requested(world)
    await reset_mails(world)
    [mail] = world.mailer.mails
    assert expires_at.isoformat() in mail.text


async def test_a_reset_that_is_over_or_has_expired_is_not_mailed() -> None:
    world = World()
    await signed_up(world)
    await reset_requested(world)
    world.later(3600)
    await reset_mails(world)
    await reset_requested(world)
    await world.command(USER, BOB, RecordPasswordSet())
    await reset_mails(world)
    assert recipients(world) == []


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("error", ERRORS)
async def test_whichever_line_it_is_cut_off_at_a_reset_link_is_mailed_once(when: When, error: BaseException) -> None:
    for number in range(1, 4):
        world = World(Fault(number, when, error))
        await signed_up(world)
        await reset_requested(world)
        await reset_mails(world)
        assert recipients(world) == ["bob@example.org"], (number, when)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Acme & Sons (Köln)", "Acme & Sons (Köln)"),
        ("win at http://evil.example/x", "win at http evil example x"),
        ("two\r\nlines\tand\x00more", "two lines and more"),
    ],
)
def test_a_name_looks_neither_like_a_link_nor_like_a_line(name: str, shown: str) -> None:
    assert plain(name) == shown
