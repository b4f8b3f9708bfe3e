"""Signing in: a session's row decides about every request, and nothing tells a stranger which names exist."""

import asyncio
import json
from datetime import timedelta

import httpx
import jwt
import pytest

from domain.access import ACCESS, access_id_of
from domain.ids import PLATFORM
from infra.passwords import MAX_WAITING
from infra.vault import PersonForgottenError
from tests.web.world import ADMIN_PASSWORD, PERSON_PASSWORD, World
from web.api.sessions import MAX_SESSIONS, MAX_USER_AGENT_LENGTH
from web.tokens import COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOGIN = {"email": "admin", "password": ADMIN_PASSWORD}


def refusal(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]


async def test_the_admin_signs_in_by_username_or_email(world: World) -> None:
    async with world.client() as client:
        for name in ("admin", " ADMIN ", world.environment.admin_email):
            reply = await client.post("/auth/login", json={"email": name, "password": ADMIN_PASSWORD})
            assert reply.status_code == 200, reply.text
            assert reply.json()["email"] == world.environment.admin_email
            assert reply.json()["role"] == "admin"


async def test_a_wrong_password_and_an_unknown_name_are_told_alike(world: World) -> None:
    async with world.client() as client:
        wrong = await client.post("/auth/login", json={"email": "admin", "password": "wrong"})
        unknown = await client.post("/auth/login", json={"email": "nobody", "password": ADMIN_PASSWORD})
    assert refusal(wrong) == (401, "invalid_credentials")
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())


async def test_an_unknown_name_costs_the_same_verification(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    genuine = world.passwords._matches

    def matches(hashed: str, password: str) -> bool:
        checked.append(hashed[:31])
        return genuine(hashed, password)

    monkeypatch.setattr(world.passwords, "_matches", matches)
    async with world.client() as client:
        await client.post("/auth/login", json={"email": "admin", "password": "wrong"})
        await client.post("/auth/login", json={"email": "nobody", "password": "wrong"})
    assert [one.rpartition("$")[0] for one in checked] == ["$argon2id$v=19$m=47104,t=1,p=1"] * 2


async def test_the_cookie_is_for_the_browser_alone(world: World) -> None:
    async with world.client() as client:
        reply = await client.post("/auth/login", json=LOGIN)
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    assert "password" not in reply.text


async def test_a_session_lives_in_cookie_or_bearer(world: World) -> None:
    token = await world.token()
    async with world.client() as client:
        by_bearer = await client.get("/auth/me", headers={"authorization": f"Bearer {token}"})
        by_cookie = await client.get("/auth/me", headers={"cookie": f"{COOKIE}={token}"})
    assert by_bearer.status_code == by_cookie.status_code == 200
    assert by_bearer.json() == by_cookie.json()
    assert by_bearer.json()["username"] == "admin"
    assert by_bearer.json()["current_organization_name"] == world.environment.organization_name
    assert by_bearer.json()["current_organization_role"] == "owner"


async def test_without_a_credential_one_is_asked_to_sign_in(world: World) -> None:
    async with world.client() as client:
        assert refusal(await client.get("/auth/me")) == (401, "login_required")


async def test_a_forged_token_opens_nothing(world: World) -> None:
    token = await world.token()
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [
        jwt.encode(claims, b"x" * 32, "HS256"),
        jwt.encode(claims, "", "none"),
        token[:-4] + "AAAA",
        "not.a.token",
        "é",
    ]
    async with world.client() as client:
        for one in forged:
            reply = await client.get("/auth/me", headers={b"cookie": f"{COOKIE}={one}".encode()})
            assert refusal(reply) == (401, "invalid_token"), one


async def test_a_token_lies_in_vain_about_role_and_organisation(world: World) -> None:
    """Even well signed, only the session's id counts."""
    await world.person("plain")
    token = await world.token("plain", PERSON_PASSWORD)
    claims = jwt.decode(token, options={"verify_signature": False})
    boasting = jwt.encode({**claims, "role": "admin"}, world.services.settings.token_key, "HS256")
    async with world.client(headers={"authorization": f"Bearer {boasting}"}) as client:
        assert (await client.get("/auth/me")).json()["role"] == "user"
        assert refusal(await client.get("/parked")) == (403, "admin_required")


async def test_logout_ends_the_session_at_once(world: World) -> None:
    async with world.signed_in() as client:
        reply = await client.post("/auth/logout")
        assert reply.status_code == 200
        assert f'{COOKIE}=""' in reply.headers["set-cookie"]
        assert refusal(await client.get("/auth/me")) == (401, "session_invalid_or_expired")


async def test_a_session_expires(world: World) -> None:
    async with world.signed_in() as client:
        world.clock.ahead = timedelta(seconds=world.services.settings.session_ttl_s + 1)
        try:
            assert refusal(await client.get("/auth/me")) == (401, "invalid_token")
        finally:
            world.clock.ahead = timedelta()


async def test_a_person_sees_and_ends_their_own_sessions_only(world: World) -> None:
    await world.person("keeper")
    await world.person("stranger")
    async with (
        world.signed_in("keeper", PERSON_PASSWORD) as first,
        world.signed_in("keeper", PERSON_PASSWORD) as second,
        world.signed_in("stranger", PERSON_PASSWORD) as stranger,
    ):
        sessions = (await first.get("/auth/sessions")).json()
        assert [session["is_current"] for session in sessions] == [False, True]
        other, own = sessions[0]["session_id"], sessions[1]["session_id"]
        assert refusal(await first.post(f"/auth/sessions/{own}/revoke")) == (400, "cannot_revoke_current_session")
        foreign = await stranger.post(f"/auth/sessions/{other}/revoke")
        absent = await stranger.post("/auth/sessions/01890000-0000-7000-8000-000000000000/revoke")
        assert refusal(foreign) == (404, "session_not_found")
        assert foreign.json() == absent.json()
        assert (await first.post(f"/auth/sessions/{other}/revoke")).status_code == 200
        assert refusal(await second.get("/auth/me")) == (401, "session_invalid_or_expired")
        assert (await first.get("/auth/me")).status_code == 200


async def test_a_cookie_alone_changes_nothing(world: World) -> None:
    """A foreign page's form carries the cookie, but can set neither header."""
    await world.person("surfer")
    cookie = {"cookie": f"{COOKIE}={await world.token('surfer', PERSON_PASSWORD)}"}
    async with world.client() as client:
        for origin in ({}, {"origin": "https://evil.example"}, {"origin": "null"}):
            reply = await client.post("/organizations", json={"name": "x"}, headers={**cookie, **origin})
            assert refusal(reply) == (403, "csrf_check_failed")
        for proof in ({"x-requested-with": "console"}, {"origin": "http://api.test"}):
            reply = await client.put(
                "/organizations/current", json={"organization_id": None}, headers={**cookie, **proof}
            )
            assert reply.status_code == 200


async def test_a_form_of_a_foreign_page_cannot_sign_anyone_in(world: World) -> None:
    """Browsers send text/plain and forms across origins without asking; JSON they do not."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        async with world.client(headers={"content-type": content_type}) as client:
            reply = await client.post("/auth/login", content=json.dumps(LOGIN))
            assert refusal(reply) == (400, "invalid_request")


async def test_a_flood_of_logins_is_turned_away_politely(world: World) -> None:
    async with world.client() as client:
        replies = await asyncio.gather(
            *(client.post("/auth/login", json={"email": "nobody", "password": "x"}) for _ in range(MAX_WAITING * 2))
        )
    codes = {refusal(reply) for reply in replies}
    assert codes == {(401, "invalid_credentials"), (429, "too_many_logins")}
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 429)


async def test_login_never_repeats_what_was_typed(world: World) -> None:
    async with world.client() as client:
        reply = await client.post("/auth/login", json={"email": "x", "password": "s3cret" * 40})
        assert refusal(reply) == (400, "invalid_request")
        assert "s3cret" not in reply.text
        reply = await client.post(
            "/auth/login", content=b'{"password": "s3cret', headers={"content-type": "application/json"}
        )
        assert refusal(reply) == (400, "invalid_json")
        assert "s3cret" not in reply.text


async def test_sessions_tell_where_they_come_from(world: World) -> None:
    await world.person("roamer")
    async with world.client(address="203.0.113.9", headers={"user-agent": "Browser/1 " * 60}) as client:
        token = (await client.post("/auth/login", json={"email": "roamer", "password": PERSON_PASSWORD})).cookies[
            COOKIE
        ]
    async with world.client(headers={"authorization": f"Bearer {token}"}) as client:
        [session] = (await client.get("/auth/sessions")).json()
    assert (session["ip"], session["user_agent"]) == ("203.0.113.9", ("Browser/1 " * 60)[:MAX_USER_AGENT_LENGTH])
    assert session["last_used_at"] >= session["created_at"]
    written = world.everything_written()
    assert b"203.0.113.9" not in written
    assert b"Browser/1" not in written


async def test_the_eleventh_login_ends_the_oldest_session(world: World) -> None:
    await world.person("hoarder")
    tokens = [await world.token("hoarder", PERSON_PASSWORD) for _ in range(MAX_SESSIONS + 2)]
    async with world.client() as client:
        replies = [await client.get("/auth/me", headers={"authorization": f"Bearer {token}"}) for token in tokens]
        assert [reply.status_code for reply in replies] == [401] * 2 + [200] * MAX_SESSIONS
        listed = await client.get("/auth/sessions", headers={"authorization": f"Bearer {tokens[-1]}"})
        assert len(listed.json()) == MAX_SESSIONS


async def test_a_new_session_begins_where_the_last_one_left_off(world: World) -> None:
    mover = await world.person("mover")
    first, second = await world.organization("movers-1", mover), await world.organization("movers-2", mover)
    await world.visible()
    for wanted in (second, first, None):
        async with world.signed_in("mover", PERSON_PASSWORD) as client:
            assert (await client.put("/organizations/current", json={"organization_id": wanted})).status_code == 200
        async with world.signed_in("mover", PERSON_PASSWORD) as client:
            assert (await client.get("/auth/me")).json()["current_organization_id"] == wanted


async def test_guessing_is_slowed_down_alike_for_everybody(world: World) -> None:
    await world.person("target")
    told = {}
    for name in ("target", "a name that nobody has"):
        async with world.client() as client:
            replies = [await client.post("/auth/login", json={"email": name, "password": "wrong"}) for _ in range(6)]
        told[name] = [(reply.status_code, reply.json(), reply.headers.get("retry-after")) for reply in replies]
    assert told["target"] == told["a name that nobody has"]
    assert [status for status, _, _ in told["target"]] == [401] * 5 + [429]
    assert told["target"][5][1]["error"] == "too_many_logins"
    assert await world.token("target", PERSON_PASSWORD), "from another network the owner gets in"


async def test_a_known_and_an_unknown_name_take_the_same_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal time by equal work: look-ups, counts and verifications, in the same order."""
    await world.person("watched")
    steps: list[str] = []

    def watched(owner: object, name: str) -> None:
        genuine = getattr(owner, name)

        def noted(*arguments: object, **named: object) -> object:
            steps.append(name)
            return genuine(*arguments, **named)

        monkeypatch.setattr(owner, name, noted)

    watched(world.passwords, "_matches")
    watched(world.services.sign_in_limits, "admit")
    watched(world.services.sign_in_limits, "succeeded")
    watched(world.vault, "digest")
    watched(world.vault, "seal")
    taken: list[list[str]] = []
    async with world.client() as client:
        for name in ("watched", "unwatched"):
            steps.clear()
            await client.post("/auth/login", json={"email": name, "password": "wrong"})
            taken.append(list(steps))
    assert taken[0] == taken[1] == ["digest", "digest", "admit", "_matches"]


async def test_a_full_queue_costs_nobody_a_guess(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.person("patient")
    async with world.client() as client:
        monkeypatch.setattr(world.passwords, "_waiting", MAX_WAITING)
        for _ in range(10):
            reply = await client.post("/auth/login", json={"email": "patient", "password": PERSON_PASSWORD})
            assert refusal(reply) == (429, "too_many_logins")
        monkeypatch.setattr(world.passwords, "_waiting", 0)
        reply = await client.post("/auth/login", json={"email": "patient", "password": PERSON_PASSWORD})
        assert reply.status_code == 200


async def test_failed_sign_ins_of_an_account_are_in_the_audit_log(world: World) -> None:
    user_id = await world.person("audited")
    async with world.client() as client:
        await client.post("/auth/login", json={"email": "audited", "password": "wrong"})
    await world.app.state.denials.settled()
    access = (await world.services.load(ACCESS, PLATFORM, access_id_of(PLATFORM, user_id))).version
    assert access == 1
    last = (await world.log.read(f"evt.{PLATFORM}.access.{access_id_of(PLATFORM, user_id)}"))[-1]
    assert json.loads(bytes(last.envelope.data)) == {
        "action": "sign_in",
        "target": "",
        "code": "invalid_credentials",
        "unrecorded": 0,
    }


async def test_who_is_being_forgotten_signs_in_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's key may go between the look at the password and the seal of the address."""
    await world.person("leaver")

    async def seal(*_: str) -> None:
        raise PersonForgottenError("person was forgotten")

    monkeypatch.setattr(world.vault, "seal", seal)
    async with world.client() as client:
        reply = await client.post("/auth/login", json={"email": "leaver", "password": PERSON_PASSWORD})
    assert refusal(reply) == (404, "user_not_found")
    assert "set-cookie" not in reply.headers
