"""The laws of `Idempotency-Key`: one key, one effect, one reply; asked twice, at once, after a crash, or wrongly."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from uuid_utils import uuid7

from domain.ports import Receipt
from infra.events.port import LogUnavailableError
from infra.idempotency import LEASE_S
from tests.web.test_deployments import MODEL, READY, instance_in
from tests.web.test_sign_in import LOGIN, refusal
from tests.web.world import World
from web.services import Services
from web.tokens import COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="module")


def key() -> dict[str, str]:
    return {"idempotency-key": str(uuid7())}


async def count_of(world: World, client: httpx.AsyncClient, path: str) -> int:
    await world.visible()
    return len((await client.get(path)).json())


async def test_the_same_request_twice_has_one_effect_and_one_reply(world: World) -> None:
    async with world.team(ann="admin") as team:
        for path, body in (("/api_keys", {"name": "once"}), ("/deployments", {"model": MODEL})):
            headers = key()
            first = await team["ann"].post(path, json=body, headers=headers)
            second = await team["ann"].post(path, json=body, headers=headers)
            assert first.json() == second.json()
            assert first.status_code == second.status_code
            assert first.headers["event-position"] == second.headers["event-position"]
            assert "idempotent-replayed" not in first.headers
            assert second.headers["idempotent-replayed"] == "true"
            assert await count_of(world, team["ann"], path) == 1


async def test_without_a_key_each_request_counts(world: World) -> None:
    """The control: what the key prevents."""
    async with world.team(ann="admin") as team:
        for _ in range(2):
            await team["ann"].post("/api_keys", json={"name": "twice"})
        assert await count_of(world, team["ann"], "/api_keys") == 2


async def test_of_many_at_once_one_runs(world: World) -> None:
    async with world.team(ann="admin") as team:
        headers = key()
        replies = await asyncio.gather(
            *(team["ann"].post("/api_keys", json={"name": "race"}, headers=headers) for _ in range(12))
        )
        assert {reply.status_code for reply in replies} <= {201, 409}
        in_flight = [reply for reply in replies if reply.status_code == 409]
        assert all(refusal(reply) == (409, "idempotency_key_in_flight") for reply in in_flight)
        assert all(reply.headers["retry-after"] for reply in in_flight)
        assert len({reply.text for reply in replies if reply.status_code == 201}) == 1
        assert await count_of(world, team["ann"], "/api_keys") == 1


async def test_another_body_or_path_under_the_key_is_told_so(world: World) -> None:
    async with world.team(ann="admin") as team:
        headers = key()
        await team["ann"].post("/api_keys", json={"name": "one"}, headers=headers)
        for path, body in (
            ("/api_keys", {"name": "two"}),
            ("/deployments", {"model": MODEL}),
            ("/api_keys?x=1", {"name": "one"}),
        ):
            reply = await team["ann"].post(path, json=body, headers=headers)
            assert refusal(reply) == (422, "idempotency_key_reused")


async def test_a_key_belongs_to_its_caller(world: World) -> None:
    async with world.team(ann="admin", bob="admin") as team:
        headers = key()
        ann = await team["ann"].post("/api_keys", json={"name": "x"}, headers=headers)
        bob = await team["bob"].post("/api_keys", json={"name": "x"}, headers=headers)
        assert ann.status_code == bob.status_code == 201
        assert ann.json()["api_key"] != bob.json()["api_key"]


async def test_a_refusal_is_replayed_too(world: World) -> None:
    async with world.team(ann="admin") as team:
        headers = key()
        first = await team["ann"].post("/deployments", json={"model": "none"}, headers=headers)
        second = await team["ann"].post("/deployments", json={"model": "none"}, headers=headers)
        assert refusal(first) == (400, "INVALID_MODEL")
        assert (first.text, second.headers["idempotent-replayed"]) == (second.text, "true")
        assert await count_of(world, team["ann"], "/deployments") == 1


async def test_a_caller_who_was_turned_away_may_try_again_with_the_key(world: World) -> None:
    async with world.client() as stranger, world.team(ann="admin") as team:
        headers = key()
        assert refusal(await stranger.post("/api_keys", json={"name": "x"}, headers=headers))[0] == 401
        assert (await team["ann"].post("/api_keys", json={"name": "x"}, headers=headers)).status_code == 201
        cookie = {"cookie": f"{COOKIE}={await world.token()}", **key()}
        assert refusal(await stranger.post("/organizations", json={"name": "Door"}, headers=cookie))[0] == 403
        again = await stranger.post(
            "/organizations", json={"name": "Door"}, headers={**cookie, "x-requested-with": "x"}
        )
        assert again.status_code == 201


async def test_a_login_can_be_repeated_with_its_key(world: World) -> None:
    async with world.client() as client:
        headers = key()
        first = await client.post("/auth/login", json=LOGIN, headers=headers)
        second = await client.post("/auth/login", json=LOGIN, headers=headers)
        assert first.headers["set-cookie"] == second.headers["set-cookie"]
        wrong = await client.post("/auth/login", json={**LOGIN, "password": "wrong"}, headers=headers)
        assert refusal(wrong) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("bad", ["", "x" * 256, "é", "a\tb"])
async def test_a_key_out_of_form_is_refused(world: World, bad: str) -> None:
    async with world.signed_in() as client:
        reply = await client.post("/api_keys", json={"name": "x"}, headers={b"idempotency-key": bad.encode()})
        assert refusal(reply) == (400, "invalid_idempotency_key")


class DyingDispatch:
    """The process dies right before, or right after, its n-th command took effect."""

    def __init__(self, services: Services, *, dies_at: int, after: bool) -> None:
        self._dispatch = services.dispatch
        self.left = dies_at
        self._after = after

    async def __call__(self, *command: Any) -> Receipt[Any]:
        self.left -= 1
        if self.left == 0 and not self._after:
            raise _Died
        receipt = await self._dispatch(*command)
        if self.left == 0:
            raise _Died
        return receipt


class _Died(BaseException):
    """No handler of ours may swallow it, as none could answer a kill."""


async def crashed(
    world: World, client: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str], death: dict[str, Any]
) -> None:
    """One attempt that never answers and never tidies up."""
    dying = DyingDispatch(world.services, **death)
    release = world.services.idempotency.release
    object.__setattr__(world.services, "dispatch", dying)
    object.__setattr__(world.services.idempotency, "release", _nothing)
    try:
        with pytest.raises(_Died):
            await client.post(path, json=body, headers=headers)
    finally:
        object.__setattr__(world.services, "dispatch", world.dispatcher)
        object.__setattr__(world.services.idempotency, "release", release)


async def _nothing(*_: object, **__: object) -> None:
    pass


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "dies_at", "listed"),
    [
        ("/api_keys", {"name": "crash"}, 1, "/api_keys"),
        ("/deployments", {"model": MODEL}, 1, "/deployments"),
        ("/organizations", {"name": "crash"}, 1, "/organizations"),
        ("/organizations", {"name": "crash"}, 2, "/organizations"),
    ],
)
async def test_a_request_that_died_half_way_is_finished_by_its_retry(
    world: World, path: str, body: dict[str, str], dies_at: int, listed: str, *, after: bool
) -> None:
    async with world.team(ann="admin") as team:
        ann, headers = team["ann"], key()
        body = {"model": MODEL} if path == "/deployments" else {"name": f"crash {uuid7()}"}
        before = await count_of(world, ann, listed)
        await crashed(world, ann, path, body, headers, {"dies_at": dies_at, "after": after})
        assert refusal(await ann.post(path, json=body, headers=headers)) == (409, "idempotency_key_in_flight")
        world.clock.ahead += timedelta(seconds=LEASE_S + 1)
        first = await ann.post(path, json=body, headers=headers)
        assert first.status_code in {201, 202}, first.text
        assert (await ann.post(path, json=body, headers=headers)).text == first.text
        assert await count_of(world, ann, listed) == before + 1


async def test_a_command_that_repeats_is_not_repeated_by_a_retry(world: World) -> None:
    """Reinstalling is no creation: there is no id to recognise it by, only the request's correlation in the log."""
    async with world.team(ann="admin") as team:
        instance = await instance_in(world, team["ann"], READY)
        headers = key()
        path = f"/instances/{instance}/reinstall"
        await crashed(world, team["ann"], path, None, headers, {"dies_at": 1, "after": True})
        world.clock.ahead += timedelta(seconds=LEASE_S + 1)
        reply = await team["ann"].post(path, headers=headers)
        assert reply.status_code == 202
        history = (await team["ann"].get(f"/instances/{instance}")).json()["history"]
        assert [one["type"] for one in history].count("ReinstallRequested") == 1


async def test_a_log_that_is_away_frees_the_key(world: World) -> None:
    async def away(*_: object) -> Receipt[Any]:
        raise LogUnavailableError("append: no answer")

    async with world.team(ann="admin") as team:
        headers = key()
        object.__setattr__(world.services, "dispatch", away)
        reply = await team["ann"].post("/api_keys", json={"name": "later"}, headers=headers)
        object.__setattr__(world.services, "dispatch", world.dispatcher)
        assert refusal(reply) == (503, "unavailable")
        assert reply.headers["retry-after"]
        assert (await team["ann"].post("/api_keys", json={"name": "later"}, headers=headers)).status_code == 201
        assert await count_of(world, team["ann"], "/api_keys") == 1


async def test_a_store_that_is_away_is_a_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise ConnectionError("no vault")

    async with world.team(ann="admin") as team:
        monkeypatch.setattr(world.services.idempotency, "claim", away)
        assert refusal(await team["ann"].post("/api_keys", json={"name": "x"}, headers=key())) == (503, "unavailable")


async def test_a_reply_that_could_not_be_kept_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise ConnectionError("no vault")

    async with world.team(ann="admin") as team:
        headers = key()
        with monkeypatch.context() as broken:
            broken.setattr(world.services.idempotency, "finish", away)
            first = await team["ann"].post("/api_keys", json={"name": "x"}, headers=headers)
        assert first.status_code == 201
        world.clock.ahead += timedelta(seconds=LEASE_S + 1)
        again = await team["ann"].post("/api_keys", json={"name": "x"}, headers=headers)
        assert again.json() == first.json()
        assert await count_of(world, team["ann"], "/api_keys") == 1
