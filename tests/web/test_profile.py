"""One's own profile and password."""

from datetime import timedelta

import pytest

from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_PASSWORD = "violet teapots sing"


async def test_a_person_changes_what_they_give_and_the_rest_stays(world: World) -> None:
    await world.person("petra")
    async with world.signed_in("petra", PERSON_PASSWORD) as petra:
        reply = await petra.put("/auth/me", json={"first_name": " Petra ", "email": "Petra@Example.org"})
        assert reply.status_code == 200, reply.text
        assert (reply.json()["first_name"], reply.json()["email"]) == ("Petra", "Petra@Example.org")
        assert (reply.json()["username"], reply.json()["last_name"]) == ("petra", "petra")
        assert (await petra.get("/auth/me")).json() == reply.json()
    assert await world.token("petra@example.org", PERSON_PASSWORD)


async def test_an_old_name_signs_nobody_in_and_is_free_again(world: World) -> None:
    await world.person("pia")
    await world.person("paul")
    async with world.signed_in("pia", PERSON_PASSWORD) as pia, world.signed_in("paul", PERSON_PASSWORD) as paul:
        taken = await paul.put("/auth/me", json={"username": "PIA"})
        assert refusal(taken) == (409, "username_or_email_already_exists")
        assert (await pia.put("/auth/me", json={"username": "pia-two"})).status_code == 200
        assert (await paul.put("/auth/me", json={"username": "pia"})).status_code == 200
        assert (await pia.get("/auth/me")).json()["username"] == "pia-two"


async def test_the_same_again_leaves_no_event(world: World) -> None:
    await world.person("pavel")
    async with world.signed_in("pavel", PERSON_PASSWORD) as pavel:
        profile = (await pavel.get("/auth/me")).json()
        head = await world.log.head()
        same = {name: profile[name] for name in ("username", "first_name", "last_name")}
        assert (await pavel.put("/auth/me", json=same)).json() == profile
        assert await world.log.head() == head


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": ""}, "invalid_username"),
        ({"username": "admin@inventiv.local"}, "invalid_username"),
        ({"username": "x" * 65}, "invalid_username"),
        ({"username": "bell\u0007"}, "invalid_username"),
        ({"email": ""}, "email_required"),
        ({"email": "nowhere"}, "invalid_email_format"),
        ({"role": "admin"}, "invalid_request"),
        ({"account_plan": "subscriber"}, "invalid_request"),
    ],
)
async def test_a_profile_that_cannot_be_is_refused(world: World, change: dict[str, str], code: str) -> None:
    async with world.signed_in() as admin:
        assert refusal(await admin.put("/auth/me", json=change)) == (400, code)


async def test_the_profile_tells_plans_of_person_and_workspace(world: World) -> None:
    async with world.signed_in() as admin:
        profile = (await admin.get("/auth/me")).json()
        assert (profile["account_plan"], profile["current_organization_subscription_plan"]) == ("free", "free")
    await world.person("percy")
    async with world.signed_in("percy", PERSON_PASSWORD) as percy:
        assert (await percy.get("/auth/me")).json()["current_organization_subscription_plan"] is None


async def test_a_new_password_ends_all_other_sessions(world: World) -> None:
    await world.person("pedro")
    change = {"current_password": PERSON_PASSWORD, "new_password": NEW_PASSWORD}
    async with world.signed_in("pedro", PERSON_PASSWORD) as here, world.signed_in("pedro", PERSON_PASSWORD) as there:
        assert (await here.put("/auth/me/password", json=change)).status_code == 200
        assert (await here.get("/auth/me")).status_code == 200
        assert refusal(await there.get("/auth/me")) == (401, "session_invalid_or_expired")
    assert await world.token("pedro", NEW_PASSWORD)
    async with world.client() as client:
        old = await client.post("/auth/login", json={"email": "pedro", "password": PERSON_PASSWORD})
        assert refusal(old) == (401, "invalid_credentials")


async def test_only_who_knows_the_password_changes_it(world: World) -> None:
    await world.person("pola")
    async with world.signed_in("pola", PERSON_PASSWORD) as pola:
        change = {"current_password": "a wrong password", "new_password": NEW_PASSWORD}
        for _ in range(5):
            assert refusal(await pola.put("/auth/me/password", json=change)) == (400, "current_password_invalid")
        throttled = await pola.put("/auth/me/password", json={**change, "current_password": PERSON_PASSWORD})
        assert refusal(throttled) == (429, "too_many_logins")
        world.clock.ahead += timedelta(seconds=2)
        try:
            right = await pola.put("/auth/me/password", json={**change, "current_password": PERSON_PASSWORD})
            assert right.status_code == 200
        finally:
            world.clock.ahead = timedelta()


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_too_short"),
        ("fourteen chars", "password_too_short"),
        ("x" * 129, "password_too_long"),
        ("passwordpassword", "password_too_common"),
        ("admin@inventiv.local", "password_too_common"),
    ],
)
async def test_a_weak_password_is_refused_and_changes_nothing(world: World, password: str, code: str) -> None:
    name = f"pw-{len(password)}-{code[-5:]}"
    await world.person(name)
    async with world.signed_in(name, PERSON_PASSWORD) as person:
        change = {"current_password": PERSON_PASSWORD, "new_password": password}
        reply = await person.put("/auth/me/password", json=change)
        assert refusal(reply) == (400, code)
        assert not password or password not in reply.text
    assert await world.token(name, PERSON_PASSWORD)
