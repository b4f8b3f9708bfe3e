"""A new password by a link: told to nobody, once, within an hour."""

from datetime import timedelta

import httpx
import pytest

from domain.ids import PLATFORM, UserId
from domain.user import USER
from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World
from web.api.password_reset import SENT
from web.reset_requests import LINK_LASTS, MAX_WAITING, TOKEN_KIND
from web.sign_in_rules import FREE_FAILURES, MAX_ADDRESS_FAILURES

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_PASSWORD = "violet teapots sing"


async def wished(world: World, email: str) -> httpx.Response:
    async with world.client() as client:
        reply = await client.post("/auth/password-reset/request", json={"email": email})
    await world.app.state.reset_requests.settled()
    return reply


async def mailed_token(world: World, user_id: UserId) -> str:
    """As the handler that sends the mail derives it."""
    link = (await world.services.load(USER, PLATFORM, user_id)).state.reset
    assert link is not None
    return world.services.one_time_tokens.token(TOKEN_KIND, f"{user_id}/{link.expires_at.isoformat()}")


async def reset(world: World, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    await world.visible()
    async with world.client() as client:
        return await client.post("/auth/password-reset/reset", json={"token": token, "new_password": password})


async def test_a_link_sets_a_new_password_and_ends_every_session(world: World) -> None:
    user_id = await world.person("rita")
    async with world.signed_in("rita", PERSON_PASSWORD) as rita:
        assert (await wished(world, " RITA@example.org ")).status_code == 200
        token = await mailed_token(world, user_id)
        assert (await reset(world, token)).status_code == 200
        assert refusal(await rita.get("/auth/me")) == (401, "session_invalid_or_expired")
    assert await world.token("rita", NEW_PASSWORD)
    assert token.encode() not in world.everything_written()


async def test_everybody_is_answered_alike_and_nothing_is_looked_up_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.person("rolf")
    asked: list[str] = []
    genuine = world.services.read

    def read(*names: str, **more: object) -> object:
        asked.append("read")
        return genuine(*names, **more)  # type: ignore[arg-type]  # what the endpoint passed

    object.__setattr__(world.services, "read", read)
    monkeypatch.setattr(world.vault, "digest", lambda *_: asked.append("digest"))
    monkeypatch.setattr(world.app.state.reset_requests, "add", lambda *_, **__: asked.append("queued"))
    try:
        known, unknown = await wished(world, "rolf@example.org"), await wished(world, "nobody@example.org")
    finally:
        object.__setattr__(world.services, "read", genuine)
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json()) == (200, {"message": SENT})
    assert asked == ["queued", "queued"]


async def test_an_address_that_nobody_has_leaves_no_trace(world: World) -> None:
    head = await world.log.head()
    await wished(world, "nobody@example.org")
    await wished(world, "not even an address")
    assert await world.log.head() == head


async def test_a_link_works_once(world: World) -> None:
    user_id = await world.person("rosa")
    await wished(world, "rosa@example.org")
    token = await mailed_token(world, user_id)
    assert (await reset(world, token)).status_code == 200
    assert refusal(await reset(world, token, "another violet teapot")) == (404, "token_not_found_or_expired")
    assert await world.token("rosa", NEW_PASSWORD)


async def test_a_link_works_for_an_hour(world: World) -> None:
    user_id = await world.person("ralf")
    await wished(world, "ralf@example.org")
    token = await mailed_token(world, user_id)
    world.clock.ahead = LINK_LASTS
    try:
        assert refusal(await reset(world, token)) == (404, "token_not_found_or_expired")
    finally:
        world.clock.ahead = timedelta()
    assert await world.token("ralf", PERSON_PASSWORD)


async def test_a_weak_password_does_not_use_the_link_up(world: World) -> None:
    user_id = await world.person("ruth")
    await wished(world, "ruth@example.org")
    token = await mailed_token(world, user_id)
    assert refusal(await reset(world, token, "short")) == (400, "password_too_short")
    assert refusal(await reset(world, token, "ruth@example.org")) == (400, "password_too_common")
    assert (await reset(world, token)).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"token": "x"}, {"new_password": NEW_PASSWORD}, {"token": " ", "new_password": "x"}]
)
async def test_both_are_needed(world: World, body: dict[str, str]) -> None:
    async with world.client() as client:
        reply = await client.post("/auth/password-reset/reset", json=body)
    assert refusal(reply) == (400, "token_and_password_required")


async def test_a_made_up_token_finds_nobody(world: World) -> None:
    assert refusal(await reset(world, "a" * 32)) == (404, "token_not_found_or_expired")


async def test_who_was_locked_out_gets_in_by_the_link(world: World) -> None:
    user_id = await world.person("remy")
    async with world.client() as client:
        wrong = {"email": "remy", "password": "wrong"}
        for _ in range(FREE_FAILURES):
            assert refusal(await client.post("/auth/login", json=wrong)) == (401, "invalid_credentials")
        assert refusal(await client.post("/auth/login", json=wrong)) == (429, "too_many_logins")
        await wished(world, "remy@example.org")
        assert (await reset(world, await mailed_token(world, user_id))).status_code == 200
        right = await client.post("/auth/login", json={"email": "remy", "password": NEW_PASSWORD})
        assert right.status_code == 200


async def test_one_address_asks_twenty_times_a_minute(world: World) -> None:
    async with world.client() as client:
        replies = [
            await client.post("/auth/password-reset/request", json={"email": "x@example.org"})
            for _ in range(MAX_ADDRESS_FAILURES + 1)
        ]
    assert [reply.status_code for reply in replies] == [200] * MAX_ADDRESS_FAILURES + [429]
    assert int(replies[-1].headers["retry-after"]) > 0


async def test_a_full_queue_answers_the_same(world: World) -> None:
    requests = world.app.state.reset_requests
    for _ in range(MAX_WAITING * 2):
        requests.add("nobody@example.org", at=world.clock(), correlation="c")
    assert requests._waiting.qsize() <= MAX_WAITING
    assert (await wished(world, "nobody@example.org")).json() == {"message": SENT}
