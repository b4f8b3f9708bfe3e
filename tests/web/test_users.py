"""User administration: for platform administrators, down to the last owner."""

from typing import Any

import httpx
import pytest

from domain.ids import PLATFORM
from domain.user import USER
from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World
from web import user_search

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "01890000-0000-7000-8000-000000000000"


def a_user(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.org", "password": PERSON_PASSWORD, **more}


async def made(admin: httpx.AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    reply = await admin.post("/users", json=a_user(name, **more))
    assert reply.status_code == 201, reply.text
    shown: dict[str, Any] = reply.json()
    return shown


async def test_a_created_user_signs_in_and_is_no_administrator(world: World) -> None:
    async with world.signed_in() as admin:
        shown = await made(admin, "ulla", first_name="Ulla", last_name="U")
        assert (shown["role"], shown["account_plan"], shown["has_password"]) == ("user", "free", True)
        assert (await admin.get(f"/users/{shown['id']}")).json() == shown
        assert shown in (await admin.get("/users")).json()
    async with world.signed_in("ulla", PERSON_PASSWORD) as ulla:
        assert (await ulla.get("/auth/me")).json()["first_name"] == "Ulla"
        for method, path in (("GET", ""), ("GET", "/search"), ("POST", ""), ("DELETE", f"/{shown['id']}")):
            assert refusal(await ulla.request(method, f"/users{path}", json={})) == (403, "admin_required")


async def test_the_same_request_again_makes_no_second_user(world: World) -> None:
    async with world.signed_in() as admin:
        headers = {"idempotency-key": "one-umberto"}
        replies = [await admin.post("/users", json=a_user("umberto"), headers=headers) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [201, 201]
    assert replies[0].json() == replies[1].json()


async def test_a_taken_address_or_name_is_refused(world: World) -> None:
    async with world.signed_in() as admin:
        await made(admin, "ursel")
        again = await admin.post("/users", json={**a_user("other"), "email": "URSEL@example.org"})
        assert refusal(again) == (409, "email_already_exists")
        named = await admin.post("/users", json={**a_user("ursel"), "email": "other@example.org"})
        assert refusal(named) == (409, "username_or_email_already_exists")


async def test_without_a_username_the_address_gives_one(world: World) -> None:
    async with world.signed_in() as admin:
        bare = {"email": "uwe@example.org", "password": PERSON_PASSWORD}
        first = (await admin.post("/users", json=bare)).json()
        second = (await admin.post("/users", json={**bare, "email": "uwe@example.com"})).json()
    assert first["username"] == "uwe"
    assert second["username"].startswith("uwe-")
    assert await world.token(second["username"], PERSON_PASSWORD)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"email": "nowhere"}, "invalid_email_format"),
        ({"username": "x@y"}, "invalid_username"),
        ({"password": "short"}, "password_too_short"),
        ({"password": "passwordpassword"}, "password_too_common"),
        ({"role": "owner"}, "invalid_request"),
        ({"id": ABSENT}, "invalid_request"),
    ],
)
async def test_a_user_that_cannot_be_is_refused(world: World, change: dict[str, str], code: str) -> None:
    async with world.signed_in() as admin:
        assert refusal(await admin.post("/users", json={**a_user("unfit"), **change})) == (400, code)


async def test_an_administrator_changes_what_they_give(world: World) -> None:
    async with world.signed_in() as admin:
        user_id = (await made(admin, "uta"))["id"]
        path = f"/users/{user_id}"
        changed = (await admin.put(path, json={"last_name": "Umlaut", "account_plan": "subscriber"})).json()
        assert (changed["username"], changed["last_name"], changed["account_plan"]) == ("uta", "Umlaut", "subscriber")
        assert (await admin.get(path)).json() == changed


async def test_a_new_role_takes_effect_at_once_and_ends_sessions(world: World) -> None:
    async with world.signed_in() as admin:
        user_id = (await made(admin, "urs"))["id"]
        async with world.signed_in("urs", PERSON_PASSWORD) as urs:
            assert (await admin.put(f"/users/{user_id}", json={"account_plan": "subscriber"})).status_code == 200
            assert (await urs.get("/auth/me")).status_code == 200
            assert (await admin.put(f"/users/{user_id}", json={"role": "admin"})).json()["role"] == "admin"
            assert refusal(await urs.get("/auth/me")) == (401, "session_invalid_or_expired")
        async with world.signed_in("urs", PERSON_PASSWORD) as urs:
            assert (await urs.get("/users")).status_code == 200
            assert (await admin.put(f"/users/{user_id}", json={"role": "user"})).status_code == 200
            assert refusal(await urs.get("/users")) == (401, "session_invalid_or_expired")


async def test_a_password_from_an_administrator_ends_sessions(world: World) -> None:
    async with world.signed_in() as admin:
        user_id = (await made(admin, "ugo"))["id"]
        async with world.signed_in("ugo", PERSON_PASSWORD) as ugo:
            changed = await admin.put(f"/users/{user_id}", json={"password": "violet teapots sing"})
            assert changed.status_code == 200
            assert refusal(await ugo.get("/auth/me")) == (401, "session_invalid_or_expired")
    assert await world.token("ugo", "violet teapots sing")


async def test_there_is_always_an_administrator_left(world: World) -> None:
    async with world.signed_in() as admin:
        own = (await admin.get("/auth/me")).json()["user_id"]
        assert refusal(await admin.put(f"/users/{own}", json={"role": "user"})) == (400, "cannot_change_own_role")
        assert refusal(await admin.delete(f"/users/{own}")) == (400, "cannot_delete_self")
        assert (await admin.put(f"/users/{own}", json={"role": "admin"})).status_code == 200


async def test_an_unknown_user_is_not_found_whatever_is_asked(world: World) -> None:
    async with world.signed_in() as admin:
        for user_id in (ABSENT, "nonsense"):
            for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/forgetting")):
                reply = await admin.request(method, f"/users/{user_id}{path}", json={})
                assert refusal(reply) == (404, "user_not_found"), (method, path)


async def test_a_search_finds_parts_wholes_and_nobody(world: World) -> None:
    async with world.signed_in() as admin:
        await made(admin, "xaverine")
        await made(admin, "xaveria")
        page = (await admin.get("/users/search", params={"q": "XAVER", "sort_by": "username"})).json()
        assert [row["username"] for row in page["rows"]] == ["xaveria", "xaverine"]
        assert (page["filtered_count"], page["searched_count"]) == (2, page["total_count"])
        whole = (await admin.get("/users/search", params={"q": "Xaverine@example.org"})).json()
        assert [row["username"] for row in whole["rows"]] == ["xaverine"]
        assert (await admin.get("/users/search", params={"q": "no such person"})).json()["rows"] == []


async def test_a_whole_name_is_found_beyond_what_is_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.signed_in() as admin:
        await made(admin, "yorick-oldest")
        await made(admin, "yorick-newest")
        monkeypatch.setattr(user_search, "MAX_OPENED", 1)
        part = (await admin.get("/users/search", params={"q": "yorick"})).json()
        assert [row["username"] for row in part["rows"]] == ["yorick-newest"]
        assert part["searched_count"] < part["total_count"]
        whole = (await admin.get("/users/search", params={"q": "yorick-oldest"})).json()
        assert [row["username"] for row in whole["rows"]] == ["yorick-oldest"]


async def test_a_search_has_a_row_for_each_organisation(world: World) -> None:
    zoe = await world.person("zoe")
    own = await world.organization("zoes-own", zoe)
    other = await world.organization("zoes-other", await world.person("zoes-friend"))
    await world.join(other, zoe, "manager")
    await world.visible()
    async with world.signed_in() as admin:
        rows = (await admin.get("/users/search", params={"q": "zoe", "sort_by": "organization_name"})).json()["rows"]
        named = [(r["organization_name"], r["organization_role"]) for r in rows if r["id"] == zoe]
        assert named == [("zoes-other", "manager"), ("zoes-own", "owner")]
        owners = await admin.get("/users/search", params={"organization_id": own, "organization_role": "owner"})
        assert [row["id"] for row in owners.json()["rows"]] == [zoe]
        page = (await admin.get("/users/search", params={"q": "zoe", "limit": 1, "offset": 1})).json()
        assert (len(page["rows"]), page["filtered_count"], page["limit"]) == (1, 3, 1)


async def test_forgetting_frees_the_names_and_ends_everything(world: World) -> None:
    async with world.signed_in() as admin:
        user_id = (await made(admin, "vera"))["id"]
        team = await world.organization("veras-team", await world.person("veras-boss"))
        await world.join(team, user_id, "admin")
        await world.visible()
        async with world.signed_in("vera", PERSON_PASSWORD) as vera:
            assert (await admin.delete(f"/users/{user_id}")).status_code == 204
            assert refusal(await vera.get("/auth/me")) == (401, "session_invalid_or_expired")
        await world.visible()
        assert refusal(await admin.get(f"/users/{user_id}")) == (404, "user_not_found")
        assert (await admin.get("/users/search", params={"organization_id": team})).json()["filtered_count"] == 1
        assert (await admin.get(f"/users/{user_id}/forgetting")).json() == {"user_id": user_id, "erased_at": None}
        assert (await made(admin, "vera"))["id"] != user_id
    async with world.client() as client:
        assert (await world.services.load(USER, PLATFORM, user_id)).state.forgotten
        unknown = await client.post("/auth/login", json={"email": "vera", "password": "wrong"})
        assert refusal(unknown) == (401, "invalid_credentials")


async def test_the_only_owner_is_not_forgotten(world: World) -> None:
    walter = await world.person("walter")
    await world.organization("walters-alone", walter)
    shared = await world.organization("walters-shared", walter)
    await world.join(shared, await world.person("walters-friend"), "owner")
    await world.visible()
    async with world.signed_in() as admin:
        refused = await admin.delete(f"/users/{walter}")
        assert refusal(refused) == (409, "last_owner_cannot_be_removed")
        assert "walters-alone" in refused.json()["message"]
        assert "walters-shared" not in refused.json()["message"]
        rows = (await admin.get("/users/search", params={"q": "walter", "sort_by": "organization_name"})).json()["rows"]
        assert sum(row["id"] == walter for row in rows) == 2, "nothing was done by halves"
