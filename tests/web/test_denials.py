"""Refused attempts in the audit log: of whom, how many, and never at the cost of a request."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import structlog
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from domain.access import MAX_RECORDED_PER_MINUTE, WINDOW
from domain.ids import PLATFORM
from tests.given import NOON
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web.denials import MAX_PRINCIPALS, MAX_WAITING, Budget, Denials, Principal, record_denial
from web.tokens import COOKIE

MINUTE_AND_MORE = timedelta(seconds=61)


async def denials_of(world: World) -> list[dict[str, Any]]:
    """Every recorded attempt so far, oldest first: actor and organisation, and the event's fields."""
    await world.app.state.denials.settled()
    async with world.signed_in() as admin:
        page = (await admin.get("/events?all=true&type=AttemptDenied&last=true&limit=500")).json()["events"]
    return [{"actor": e["actor"], "organization": e["organization"], **e["data"]} for e in page]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_member_may_not_do_is_recorded_in_their_organisation(world: World) -> None:
    async with world.team(uma="user", olga="owner") as team:
        assert refusal(await team["uma"].get("/audit")) == (403, "insufficient_permissions")
        assert (await team["uma"].get("/auth/me")).status_code == 200
        await world.app.state.denials.settled()
        await world.visible()
        page = (await team["olga"].get("/audit?type=AttemptDenied")).json()
    (row,) = page["rows"]
    assert row["verb"] == "was refused"
    assert (row["outcome"], row["actor"]["kind"]) == ("failed", "user")
    assert row["actor"]["name"].startswith("uma-")
    assert row["origin"]["kind"] == "session"
    last = (await denials_of(world))[-1]
    assert last["organization"] != PLATFORM
    assert {key: last[key] for key in ("action", "target", "code", "unrecorded")} == {
        "action": "GET /audit",
        "target": "/audit",
        "code": "insufficient_permissions",
        "unrecorded": 0,
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_a_foreign_pages_attempt_is_recorded_for_its_victim(world: World) -> None:
    name = "csrf-victim"
    user_id = await world.person(name)
    token = await world.token(name, "a password that is long")
    async with world.client(cookies={COOKIE: token}) as browser:
        reply = await browser.post("/organizations", json={"name": "Evil"}, headers={"origin": "https://evil.test"})
        assert refusal(reply) == (403, "csrf_check_failed")
    last = (await denials_of(world))[-1]
    assert (last["actor"], last["code"], last["organization"]) == (f"user:{user_id}", "csrf_check_failed", PLATFORM)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_path_tells_ids_and_no_secrets(world: World) -> None:
    """An invitation's token stands in its path, and so may anything that somebody types there."""
    async with world.team(uma="user") as team:
        own = "0192aaaa-0000-7000-8000-000000000001"
        await team["uma"].post(f"/instances/{own}/reinstall")
        await team["uma"].post("/instances/a-secret-of-somebody/reinstall")
        first, second = (await denials_of(world))[-2:]
    assert (first["target"], second["target"]) == (f"/instances/{own}/reinstall", "/instances/*/reinstall")


@pytest.mark.asyncio(loop_scope="module")
async def test_strangers_leave_a_line_and_a_count_but_no_event(world: World) -> None:
    before, counts = await denials_of(world), world.app.state.denials.counts
    strangers = counts.strangers
    async with world.client() as stranger:
        with structlog.testing.capture_logs() as lines:
            assert refusal(await stranger.get("/instances")) == (401, "login_required")
            forged = {"authorization": "Bearer forged"}
            assert refusal(await stranger.get("/instances", headers=forged)) == (401, "invalid_token")
        shown = (await stranger.get("/metrics")).text
    assert await denials_of(world) == before
    assert counts.strangers == strangers + 2
    told = [line for line in lines if line["event"] == "stranger_denied"]
    assert [(line["action"], line["code"]) for line in told] == [
        ("GET /instances", "login_required"),
        ("GET /instances", "invalid_token"),
    ]
    assert f'inventiv_denied_attempts_total{{result="stranger"}} {counts.strangers}' in shown


@pytest.mark.asyncio(loop_scope="module")
async def test_a_flood_is_recorded_by_its_first_drops_and_its_count(world: World) -> None:
    async with world.team(uma="user") as team:
        before = len(await denials_of(world))
        for _ in range(MAX_RECORDED_PER_MINUTE + 15):
            assert (await team["uma"].get("/audit")).status_code == 403
        recorded = (await denials_of(world))[before:]
        assert len(recorded) == MAX_RECORDED_PER_MINUTE
        world.clock.ahead += MINUTE_AND_MORE
        try:
            assert (await team["uma"].get("/audit")).status_code == 403
            assert (await denials_of(world))[-1]["unrecorded"] == 15
        finally:
            world.clock.ahead -= MINUTE_AND_MORE


@pytest.mark.asyncio(loop_scope="module")
async def test_no_request_waits_for_its_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is away: the refusal is answered as ever, and the next record tells what was left out."""
    denials: Denials = world.app.state.denials
    left_out = denials.counts.left_out
    appending = world.log.append

    async def away(*_: object) -> Any:
        raise ConnectionError("no log today")

    async with world.team(uma="user") as team:
        monkeypatch.setattr(world.log, "append", away)
        assert (await team["uma"].get("/audit")).status_code == 403
        await denials.settled()
        assert denials.counts.left_out == left_out + 1
        monkeypatch.setattr(world.log, "append", appending)
        assert (await team["uma"].get("/audit")).status_code == 403
        assert (await denials_of(world))[-1]["unrecorded"] == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_known_accounts_failed_sign_in_is_recorded_once(world: World) -> None:
    """As web/api/sessions.py says it; the layer does not count the same reply again."""
    user_id = await world.person("brute-forced")
    principal = Principal(user_id, f"user:{user_id}")
    counts = world.app.state.denials.counts
    before, strangers = len(await denials_of(world)), counts.strangers
    scope: dict[str, Any] = {"type": "http", "app": world.app, "state": {}, "method": "POST", "headers": []}
    record_denial(Request(scope), principal, action="sign_in", code="invalid_credentials")
    recorded = (await denials_of(world))[before:]
    assert [(one["actor"], one["action"], one["code"]) for one in recorded] == [
        (f"user:{user_id}", "sign_in", "invalid_credentials")
    ]
    assert scope["state"]["witnessed"]
    assert counts.strangers == strangers


async def test_a_full_queue_is_counted_and_nothing_is_awaited(world: World) -> None:
    denials = Denials(world.services)  # nobody runs it, so nothing leaves its queue
    for number in range(MAX_WAITING + 7):
        person = Principal(f"u-{number}", f"user:u-{number}")
        denials.add(person, action="GET /", target="/", code="refused")
    assert denials.counts.left_out == MAX_WAITING + 7 - 100  # the process' share of a minute comes first
    assert denials.counts.recorded == 0


def test_one_principal_does_not_use_up_anothers_share() -> None:
    budget = Budget(most=100, each=10)
    noisy = [budget.admit("noisy", NOON) for _ in range(50)]
    assert noisy == [0] * 10 + [None] * 40
    assert budget.admit("quiet", NOON) == 0
    assert budget.admit("noisy", NOON + WINDOW) == 40


def test_only_so_many_principals_are_remembered() -> None:
    budget = Budget(most=10**9, each=1)
    assert [budget.admit("first", NOON), budget.admit("first", NOON)] == [0, None]
    for number in range(MAX_PRINCIPALS):
        budget.admit(f"u-{number}", NOON)
    assert budget.admit("first", NOON) == 0


@given(
    attempts=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 40)), max_size=300),
    most=st.integers(1, 12),
    each=st.integers(1, 6),
)
def test_every_attempt_is_recorded_or_told(attempts: list[tuple[str, int]], most: int, each: int) -> None:
    """Recorded + told as left out + still to be told = all; and no window holds more than its share."""
    budget, at = Budget(most=most, each=each), NOON
    recorded: list[Any] = []
    told = 0
    for principal, pause_s in attempts:
        at += timedelta(seconds=pause_s)
        unrecorded = budget.admit(principal, at)
        if unrecorded is not None:
            recorded.append(at)
            told += unrecorded
    waiting = sum(budget.admit(p, at + WINDOW) or 0 for p in "abcde") if most >= 5 else None
    if waiting is not None:
        assert len(recorded) + told + waiting == len(attempts)
    for first in recorded:
        assert sum(first <= one < first + WINDOW for one in recorded) <= 2 * most


async def test_records_that_still_wait_at_the_end_are_given_a_moment() -> None:
    class Slow:
        clock = staticmethod(lambda: NOON)
        chance = staticmethod(bytes)

        async def dispatch(self, *_: object) -> Any:
            await asyncio.sleep(0)
            raise ConnectionError("away")

    denials = Denials(Slow())  # type: ignore[arg-type] # the two ports that it needs
    running = asyncio.create_task(denials.run())
    denials.add(Principal("u", "user:u"), action="GET /", target="/", code="refused")
    await denials.settled()
    assert denials.counts.left_out == 1
    running.cancel()
