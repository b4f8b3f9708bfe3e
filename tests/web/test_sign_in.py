"""Signing in: a session's row decides about every request, and nothing tells a stranger which names exist."""

import asyncio
import json
from datetime import timedelta

import httpx
import jwt
import pytest

from infra.passwords import MAX_WAITING
from tests.web.world import ADMIN_PASSWORD, PERSON_PASSWORD, World
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
