"""The log over HTTP: pages of envelopes, and a live stream that resumes without a gap however it was cut."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from domain.ids import PLATFORM, OrganizationId
from domain.message import Recorded
from domain.model import MODEL, ListModel
from infra.events.memory import MemoryLog
from projections.projection import EVERYTHING
from tests.web import test_deployments
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web import live
from web.live import LiveEvents, event_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60.0


async def test_a_page_of_events_is_the_stored_envelopes(world: World) -> None:
    async with world.team(ann="owner") as team:
        instance = await test_deployments.instance_in(world, team["ann"], test_deployments.READY)
        page = (await team["ann"].get("/events")).json()
        positions = [event["position"] for event in page["events"]]
        assert positions == sorted(positions)
        assert {event["organization"] for event in page["events"]} == {page["events"][0]["organization"]}
        of_it = (await team["ann"].get(f"/events?aggregate=instance&id={instance}")).json()["events"]
        assert of_it == (await team["ann"].get(f"/events/instance/{instance}")).json()["events"]
        assert [event["version"] for event in of_it] == list(range(1, len(of_it) + 1))
        assert set(of_it[0]) == {
            "position", "event_id", "aggregate", "id", "version", "type", "schema", "organization", "actor", "cause",
            "correlation", "at", "previous", "data",
        }  # fmt: skip
        only = (await team["ann"].get("/events?type=InstanceReady")).json()["events"]
        assert [event["type"] for event in only] == ["InstanceReady"]


async def test_pages_follow_one_another_without_gap(world: World) -> None:
    async with world.signed_in() as admin:
        head = await world.log.head()
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            page = (await admin.get("/events", params={"all": True, "after": after, "limit": 7})).json()
            seen += [event["position"] for event in page["events"]]
            after = page["next"]
        assert seen[:head] == list(range(1, head + 1))
        last = (await admin.get("/events?all=true&last=true&limit=3")).json()["events"]
        assert [event["position"] for event in last] == seen[-3:]
        earlier = (await admin.get(f"/events?all=true&before={seen[-3]}&limit=2")).json()["events"]
        assert [event["position"] for event in earlier] == seen[-5:-3]


async def test_one_organisation_does_not_see_anothers_events(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner", uma="user") as theirs:
        await ours["ann"].post("/api_keys", json={"name": "ours"})
        await world.visible()
        seen = (await theirs["eve"].get("/events?limit=500")).json()["events"]
        assert "ApiKeyIssued" not in {event["type"] for event in seen}
        assert refusal(await theirs["eve"].get("/events?all=true")) == (403, "admin_required")
        assert refusal(await theirs["eve"].get("/events/stream?all=true")) == (403, "admin_required")
        assert refusal(await theirs["uma"].get("/events")) == (403, "insufficient_permissions")


async def test_one_event_is_found_by_its_id_within_ones_own_organisation(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs:
        await ours["ann"].post("/api_keys", json={"name": "ours"})
        await world.visible()
        (issued,) = (await ours["ann"].get("/events?type=ApiKeyIssued")).json()["events"]
        query = f"/events?event_id={issued['event_id']}"
        assert (await ours["ann"].get(query)).json()["events"] == [issued]
        assert (await theirs["eve"].get(query)).json()["events"] == []


async def test_an_administrator_may_ask_for_one_organisation(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(eve="owner") as theirs, world.signed_in() as admin:
        organization = (await ours["ann"].get("/auth/me")).json()["current_organization_id"]
        shown = (await admin.get(f"/events?organization={organization}&limit=500")).json()["events"]
        assert {event["organization"] for event in shown} == {organization}
        assert (await ours["ann"].get(f"/events?organization={organization}&limit=500")).json()["events"] == shown
        assert refusal(await theirs["eve"].get(f"/events?organization={organization}")) == (403, "admin_required")


async def test_a_reader_waits_for_the_position_it_knows(world: World) -> None:
    async with world.signed_in() as admin:
        model = ListModel(code="test/new", name="new", required_vram_gb=1, context_length=1, data_volume_gb=1)
        position = await world.dispatch(MODEL, PLATFORM, "0192aaaa-0000-7000-8000-00000000cafe", model)
        for asked in ({"headers": {"event-position": str(position)}}, {"params": {"position": position}}):
            assert "test/new" in {one["code"] for one in (await admin.get("/models", **asked)).json()}
        for bad in ("-1", "x", "1e3", "9" * 30, "²"):
            reply = await admin.get("/models", params={"position": bad})
            assert refusal(reply) == (400, "invalid_position")


async def test_a_position_that_is_not_shown_yet_is_a_503_that_says_when_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def far_ahead() -> int:
        return 2_000_000

    monkeypatch.setattr(world.services.read, "_wait_s", 0.1)
    async with world.signed_in() as admin:
        monkeypatch.setattr(world.services.log, "head", far_ahead)
        reply = await admin.get("/models", headers={"event-position": "1000000"})
        assert refusal(reply) == (503, "not_yet_visible")
        assert reply.headers["retry-after"] == "1"


async def test_a_position_that_the_log_never_had_is_a_bad_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.services.read, "_wait_s", 0.1)
    async with world.signed_in() as admin:
        reply = await admin.get("/models", headers={"event-position": "1000000"})
        assert refusal(reply) == (400, "invalid_position")


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The application on a real socket: an answer without end cannot be had in process."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(world.app, lifespan="off", log_level="error", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # pytest's signals are its own
        serving = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(world: World) -> AsyncIterator[str]:
    async with served(world) as address:
        yield address


class Stream:
    """A client of the live stream that reads event by event."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply = reply
        self._lines = reply.aiter_lines()

    async def next(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        async with asyncio.timeout(WAIT_S):
            async for line in self._lines:
                if not line:
                    if fields:
                        return fields
                    continue
                name, _, value = line.partition(":")
                fields[name or "comment"] = value.strip()
        raise EOFError

    async def positions(self, count: int) -> list[int]:
        return [int((await self.next())["id"]) for _ in range(count)]


@asynccontextmanager
async def streaming(url: str, token: str, **asked: Any) -> AsyncIterator[Stream]:
    headers = {"authorization": f"Bearer {token}", **asked.pop("headers", {})}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers) as client,
        client.stream("GET", "/events/stream", params=asked) as reply,
    ):
        assert reply.status_code == 200
        yield Stream(reply)


async def news(world: World, count: int) -> list[int]:
    """So many events of the platform, one after another."""
    made = []
    for n in range(count):
        code = f"test/{await world.log.head()}-{n}"
        model = ListModel(code=code, name="n", required_vram_gb=1, context_length=1, data_volume_gb=1)
        made.append(await world.dispatch(MODEL, PLATFORM, code.replace("/", "-"), model))
    return made


async def test_events_arrive_as_they_happen(world: World, url: str) -> None:
    token = await world.token()
    async with streaming(url, token, all=True) as stream:
        assert stream.reply.headers["content-type"].startswith("text/event-stream")
        hello = await stream.next()
        assert hello["event"] == "hello"
        assert "id" not in hello
        [position] = await news(world, 1)
        event = await stream.next()
        assert (event["event"], int(event["id"])) == ("ModelListed", position)
        envelope = json.loads(event["data"])
        assert (envelope["position"], envelope["type"], envelope["version"]) == (position, "ModelListed", 1)


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_cut_stream_resumes_without_a_gap(world: World, url: str, how: str) -> None:
    token = await world.token()
    async with streaming(url, token, all=True) as stream:
        await stream.next()
        made = await news(world, 5)
        seen = await stream.positions(3)
    made += await news(world, 5)
    resume: dict[str, Any] = {"headers": {"last-event-id": str(seen[-1])}} if how == "header" else {"after": seen[-1]}
    async with streaming(url, token, all=True, **resume) as stream:
        await stream.next()
        made += await news(world, 2)
        seen += await stream.positions(len(made) - 3)
    assert seen == made


async def test_a_client_from_far_back_reads_the_past_from_the_audit_log(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PAGE_EVENTS", 10)
    world.app.state.live._ring.clear()
    token = await world.token()
    await news(world, 15)
    head = await world.log.head()
    async with streaming(url, token, all=True, after=0) as stream:
        await stream.next()
        assert await stream.positions(head) == list(range(1, head + 1))


async def test_a_stream_shows_its_own_organisation_alone(world: World, url: str) -> None:
    async with world.team(ann="user") as ours, world.team(eve="owner") as theirs:
        token = ours["ann"].headers["authorization"].removeprefix("Bearer ")
        organization = (await ours["ann"].get("/auth/me")).json()["current_organization_id"]
        async with streaming(url, token) as stream:
            await stream.next()
            await theirs["eve"].post("/api_keys", json={"name": "theirs"})
            await news(world, 1)
            await ours["ann"].post("/api_keys", json={"name": "ours"})
            event = json.loads((await stream.next())["data"])
            assert (event["type"], event["organization"]) == ("ApiKeyIssued", organization)
        async with streaming(url, token, after=0) as stream:
            await stream.next()
            organizations = {json.loads((await stream.next())["data"])["organization"] for _ in range(3)}
            assert organizations == {organization}


async def test_a_position_from_another_log_starts_at_the_end(world: World, url: str) -> None:
    token = await world.token()
    async with streaming(url, token, all=True, after=10**9) as stream:
        assert json.loads((await stream.next())["data"])["position"] <= await world.log.head()
        [position] = await news(world, 1)
        assert await stream.positions(1) == [position]


async def test_silence_is_filled_and_a_revoked_session_ends_its_stream(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.1)
    async with world.signed_in() as client:
        token = client.headers["authorization"].removeprefix("Bearer ")
        async with streaming(url, token) as stream:
            await stream.next()
            assert (await stream.next()) == {"comment": "keep-alive"}
            await client.post("/auth/logout")
            with pytest.raises(EOFError):
                await only_comments(stream)
    await until(lambda: world.app.state.live.clients == 0)


async def only_comments(stream: Stream) -> None:
    while True:
        assert "comment" in await stream.next()


async def test_closing_ends_every_stream(world: World) -> None:
    following = LiveEvents(world.log)
    running = asyncio.create_task(following.run())
    chunks = stream_of(following, world)
    assert (await anext(chunks)).startswith(b"event: hello")
    following.close()
    assert [chunk async for chunk in chunks] == []
    running.cancel()


async def test_a_client_too_slow_for_the_ring_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs no memory meanwhile: the ring keeps three events, whoever reads."""
    monkeypatch.setattr(live, "RING_EVENTS", 3)
    following = LiveEvents(world.log)
    running = asyncio.create_task(following.run())
    chunks = stream_of(following, world)
    await anext(chunks)
    made = await news(world, 10)
    await until(lambda: following.position == made[-1])
    assert len(following._ring) == 3
    made += await news(world, 1)
    await until(lambda: following.position == made[-1])
    seen = b""
    while seen.count(b"\nid: ") + seen.startswith(b"id: ") < len(made):
        async with asyncio.timeout(WAIT_S):
            seen += await anext(chunks)
    assert [int(line[4:]) for line in seen.split(b"\n") if line.startswith(b"id: ")] == made
    running.cancel()


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not reached():  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.01)


async def test_one_follower_serves_all_clients(world: World, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_of_these(*_: object, **__: object) -> None:
        raise AssertionError("a client must not follow the log by itself")

    monkeypatch.setattr(MemoryLog, "follow", none_of_these)
    token = await world.token()
    async with streaming(url, token, all=True) as one, streaming(url, token, all=True) as two:
        await one.next()
        await two.next()
        made = await news(world, 3)
        assert await one.positions(3) == await two.positions(3) == made


async def test_following_survives_a_log_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RESTART_DELAY_S", 0.01)
    log = FlakyLog()
    running = asyncio.create_task(LiveEvents(log).run())
    await until(lambda: len(log.asked) > 1)
    assert log.asked[:2] == [7, 7]
    running.cancel()


class FlakyLog:
    def __init__(self) -> None:
        self.asked: list[int] = []

    async def head(self) -> int:
        return 7

    async def read(self, _subject: str, *, after: int = 0) -> list[Recorded]:
        return []

    @asynccontextmanager
    async def follow(self, *, after: int, subjects: Any = (), batch: int = 500) -> AsyncIterator[Any]:
        self.asked.append(after)
        if after >= 0:
            raise ConnectionError("gone")
        yield


def stream_of(following: LiveEvents, world: World) -> AsyncIterator[bytes]:
    async def always() -> bool:
        return True

    read = partial(world.services.read, scope=EVERYTHING)
    return event_stream(following, read, after=None, organization_id=OrganizationId(""), still_allowed=always)
