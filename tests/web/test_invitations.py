"""Invitations over HTTP, from the mail's link to the membership; what a stranger may know, and what nobody may."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest
from uuid_utils import uuid7

from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVITATIONS = "/organizations/current/invitations"


async def invited(world: World, client: httpx.AsyncClient, email: str, **more: Any) -> dict[str, Any]:
    reply = await client.post(INVITATIONS, json={"email": email, **more})
    assert reply.status_code == 201, reply.text
    await world.visible()
    body: dict[str, Any] = reply.json()
    return body


def page_of(invitation: dict[str, Any]) -> str:
    return f"/organizations/invitations/{invitation['token']}"


async def test_who_is_invited_follows_the_link_signs_in_and_is_a_member(world: World) -> None:
    await world.person("invitee")
    async with world.team(olga="owner") as team, world.client() as anyone:
        made = await invited(world, team["olga"], "Invitee@example.org ", role="manager")
        assert (made["email"], made["role"]) == ("Invitee@example.org", "manager")
        page = (await anyone.get(page_of(made))).json()
        organization = (await team["olga"].get("/organizations")).json()[0]
        assert page == {
            "organization_name": organization["name"],
            "role": "manager",
            "email": "Invitee@example.org",
            "expires_at": made["expires_at"],
            "state": "pending",
        }
        async with world.signed_in("invitee", PERSON_PASSWORD) as invitee:
            accepted = await invitee.post(f"{page_of(made)}/accept")
            assert accepted.status_code == 200
            assert (accepted.json()["id"], accepted.json()["role"]) == (organization["id"], "manager")
            assert accepted.json()["member_count"] == organization["member_count"] + 1
            entered = await invitee.put("/organizations/current", json={"organization_id": organization["id"]})
            assert entered.json()["role"] == "manager"
            again = await invitee.post(f"{page_of(made)}/accept")
            assert refusal(again) == (409, "invitation_already_accepted")
        await world.visible()
        assert (await anyone.get(page_of(made))).json()["state"] == "accepted"


async def test_it_lasts_a_week_unless_told_otherwise(world: World) -> None:
    async with world.team(olga="owner") as team:
        for more, days in (({}, 7), ({"expires_in_days": 30}, 30)):
            made = await invited(world, team["olga"], f"days{days}@example.org", **more)
            lasts = datetime.fromisoformat(made["expires_at"]) - world.clock()
            assert abs(lasts - timedelta(days=days)) < timedelta(minutes=1)
        for wrong in (0, 31):
            body = {"email": "days@example.org", "expires_in_days": wrong}
            assert refusal(await team["olga"].post(INVITATIONS, json=body)) == (400, "invalid_request")


async def test_the_list_tells_state_and_address_and_never_the_token(world: World) -> None:
    async with world.team(olga="owner", maria="manager", ursula="user") as team:
        first = await invited(world, team["olga"], "first@example.org")
        second = await invited(world, team["maria"], "second@example.org", role="manager")
        assert (await team["olga"].delete(f"{INVITATIONS}/{first['id']}")).status_code == 200
        await world.visible()
        listed = await team["maria"].get(INVITATIONS)
        assert [(one["id"], one["email"], one["role"], one["state"]) for one in listed.json()] == [
            (second["id"], "second@example.org", "manager", "pending"),
            (first["id"], "first@example.org", "user", "revoked"),
        ]
        for secret in (first["token"], second["token"], sha256(second["token"].encode()).hexdigest()):
            assert secret not in listed.text
        assert refusal(await team["ursula"].get(INVITATIONS)) == (403, "insufficient_permissions_to_invite")


async def test_a_neighbour_neither_sees_nor_revokes_it(world: World) -> None:
    async with world.team(olga="owner") as ours, world.team(eve="owner") as theirs, world.client() as anyone:
        made = await invited(world, ours["olga"], "ours@example.org")
        assert (await theirs["eve"].get(INVITATIONS)).json() == []
        foreign = await theirs["eve"].delete(f"{INVITATIONS}/{made['id']}")
        absent = await theirs["eve"].delete(f"{INVITATIONS}/{uuid7()}")
        await world.visible()
        assert (foreign.status_code, foreign.content) == (absent.status_code, absent.content)
        assert (await anyone.get(page_of(made))).json()["state"] == "pending"
        assert refusal(await theirs["eve"].delete(f"{INVITATIONS}/no-id")) == (404, "invitation_not_found")


async def test_its_token_and_its_address_stay_out_of_the_log(world: World) -> None:
    async with world.team(olga="owner") as team:
        made = await invited(world, team["olga"], "hidden.person@example.org")
    written = world.everything_written()
    assert made["id"].encode() in written
    for secret in (made["token"], "hidden.person"):
        assert secret.encode() not in written


async def test_it_is_for_its_address_alone(world: World) -> None:
    await world.person("thief")
    async with world.team(olga="owner") as team, world.signed_in("thief", PERSON_PASSWORD) as thief:
        made = await invited(world, team["olga"], "victim@example.org", role="owner")
        assert refusal(await thief.post(f"{page_of(made)}/accept")) == (403, "email_mismatch")
        assert (await thief.get("/organizations")).json() == []


async def test_without_signing_in_nobody_accepts(world: World) -> None:
    async with world.team(olga="owner") as team, world.client() as anyone:
        made = await invited(world, team["olga"], "nobody.yet@example.org")
        assert refusal(await anyone.post(f"{page_of(made)}/accept")) == (401, "login_required")


async def test_a_wrong_token_finds_nothing(world: World) -> None:
    await world.person("guesser")
    async with world.client() as anyone, world.signed_in("guesser", PERSON_PASSWORD) as guesser:
        for token in ("a" * 32, "x", "%00", "é" * 40, "t" * 5000):
            assert refusal(await anyone.get(f"/organizations/invitations/{token}")) == (404, "invitation_not_found")
        reply = await guesser.post(f"/organizations/invitations/{'a' * 32}/accept")
        assert refusal(reply) == (404, "invitation_not_found")


async def test_a_revoked_link_opens_nothing(world: World) -> None:
    await world.person("late")
    async with world.team(olga="owner") as team, world.signed_in("late", PERSON_PASSWORD) as late:
        made = await invited(world, team["olga"], "late@example.org")
        await team["olga"].delete(f"{INVITATIONS}/{made['id']}")
        assert refusal(await late.post(f"{page_of(made)}/accept")) == (404, "invitation_not_found")


@pytest.mark.parametrize(
    ("email", "code"),
    [
        ("", "email_required"),
        ("  ", "email_required"),
        ("nobody", "invalid_email_format"),
        ("a@b", "invalid_email_format"),
        ("a b@example.org", "invalid_email_format"),
        ("<a@example.org>", "invalid_email_format"),
        ("a@example.org,b@example.org", "invalid_email_format"),
        ("a@example.org\r\nBcc: b@example.org", "invalid_email_format"),
        ("a@example..org", "invalid_email_format"),
        (f"{'a' * 65}@example.org", "invalid_email_format"),
        (f"a@{'b' * 260}.org", "invalid_email_format"),
    ],
)
async def test_an_address_must_be_one(world: World, email: str, code: str) -> None:
    async with world.team(olga="owner") as team:
        assert refusal(await team["olga"].post(INVITATIONS, json={"email": email})) == (400, code)


async def test_each_refusal_has_its_word(world: World) -> None:
    async with world.team(ada="admin", maria="manager", ursula="user") as team:
        member = (await team["ada"].get("/organizations/current/members")).json()[-1]["username"]
        for by, body, status, code in (
            ("ada", {"email": "x@example.org", "role": "king"}, 400, "invalid_role"),
            ("ada", {"email": "x@example.org", "role": "admin"}, 403, "cannot_invite_owner_or_admin_role"),
            ("maria", {"email": "x@example.org", "role": "owner"}, 403, "cannot_invite_owner_or_admin_role"),
            ("ada", {"email": "x@example.org", "role": "manager"}, 403, "insufficient_permissions_to_invite"),
            ("ursula", {"email": "x@example.org"}, 403, "insufficient_permissions_to_invite"),
            ("maria", {"email": f"{member}@example.org"}, 409, "user_already_member"),
        ):
            assert refusal(await team[by].post(INVITATIONS, json=body)) == (status, code)
        await invited(world, team["ada"], "x@example.org")
        again = await team["maria"].post(INVITATIONS, json={"email": "X@example.org"})
        assert refusal(again) == (409, "invitation_already_exists")


async def test_a_refused_invitation_leaves_no_key_in_the_vault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed: list[str] = []
    genuine = world.vault.seal

    async def seal(person_id: str, name: str, text: str) -> object:
        sealed.append(text)
        return await genuine(person_id, name, text)

    async with world.team(maria="manager") as team:
        monkeypatch.setattr(world.vault, "seal", seal)
        refused = await team["maria"].post(INVITATIONS, json={"email": "x@example.org", "role": "owner"})
        assert refusal(refused) == (403, "cannot_invite_owner_or_admin_role")
        assert sealed == []
        await invited(world, team["maria"], "x@example.org")
        assert sealed == ["x@example.org"]


async def test_a_repeated_request_invites_once(world: World) -> None:
    async with world.team(olga="owner") as team:
        headers = {"idempotency-key": str(uuid7())}
        replies = [
            await team["olga"].post(INVITATIONS, json={"email": "twice@example.org"}, headers=headers) for _ in range(2)
        ]
        assert replies[0].status_code == 201
        assert replies[0].json() == replies[1].json()
        await world.visible()
        assert len((await team["olga"].get(INVITATIONS)).json()) == 1


async def test_an_expired_invitation_says_so_and_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.person("sleeper")
    async with world.team(olga="owner") as team:
        made = await invited(world, team["olga"], "sleeper@example.org", expires_in_days=1)
        name = (await team["olga"].get("/auth/me")).json()["username"]
        monkeypatch.setattr(world.clock, "ahead", timedelta(days=1))
        async with world.signed_in("sleeper", PERSON_PASSWORD) as sleeper, world.client() as anyone:
            assert refusal(await sleeper.post(f"{page_of(made)}/accept")) == (400, "invitation_expired")
            assert (await anyone.get(page_of(made))).json()["state"] == "expired"
            async with world.signed_in(name, PERSON_PASSWORD) as olga:
                renewed = await invited(world, olga, "sleeper@example.org")
            assert (await anyone.get(page_of(made))).json()["state"] == "revoked"
            assert (await sleeper.post(f"{page_of(renewed)}/accept")).status_code == 200
