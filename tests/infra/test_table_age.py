"""How long a gateway trusts its table, by a clock that the test turns: only an answer of the log makes it younger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.aggregates import AGGREGATES
from domain.api_key import ApiKeyRevoked
from gateway.loads import Loads
from infra import routing_feed
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from infra.events.port import LogUnavailableError
from infra.postgres import connect, ensure_schema
from infra.routing_feed import RoutingFeed
from infra.table_age import TableAge
from projections.checkpoint import Move, move
from projections.router import ROUTER
from tests.examples import ACME
from tests.gateway.routing import entries, key, tell
from tests.gateway.served import until
from tests.given import NOON

TRUST_S = 600


@dataclass
class Clock:
    """Both clocks of a process; they go on together, and the wall clock alone survives a restart."""

    now_s: float = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return NOON + timedelta(seconds=self.now_s)


class WaryLog(MemoryLog):
    """Answers nothing while `away`."""

    away = False
    questions = 0

    async def head(self) -> int:
        self.questions += 1
        if self.away:
            raise LogUnavailableError("head of EVENTS: nobody answers")
        return await super().head()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(routing_feed, "PROOF_INTERVAL_S", 0.005)
    monkeypatch.setattr(routing_feed, "TICK_S", 0.005)
    return Clock()


def feed_on(clock: Clock, tmp_path: Path) -> RoutingFeed:
    return RoutingFeed(tmp_path / "routing.json", clock.monotonic_s, trust_s=TRUST_S, utc=clock.utc)


@asynccontextmanager
async def following(feed: RoutingFeed, log: MemoryLog, *, proving: bool = True) -> AsyncIterator[None]:
    """A feed on a connection that says of itself that it lives, whatever the log does."""
    work = [feed.follow(log, Codec(AGGREGATES), lambda: True)]
    work += [feed.keep_proven(log)] if proving else []
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await feed.settle(grace_s=5)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_table_that_is_proven_again_and_again_stays_young(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log):
        for _ in range(5):
            clock.now_s += TRUST_S
            await until(lambda: feed.readiness().age_s == 0)
            assert (feed.readiness().trusted, feed.readiness().log_connected) == (True, True)


async def test_a_connection_that_looks_alive_proves_nothing(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log):
        log.away = True
        told = []
        for elapsed_s in (0, routing_feed.SILENCE_S, 0.1, TRUST_S - routing_feed.SILENCE_S - 0.1, 0.1):
            clock.now_s += elapsed_s
            told.append((feed.readiness().trusted, feed.readiness().log_connected))
        assert told == [(True, True), (True, True), (True, False), (True, False), (False, False)]
        log.away = False
        await until(lambda: feed.readiness().trusted and feed.readiness().log_connected)


async def test_a_feed_that_delivers_nothing_is_not_proven_by_a_log_that_grows(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log, proving=False):
        pass  # the follower has stopped, as one whose consumer is stuck
    proving = asyncio.ensure_future(feed.keep_proven(log))
    clock.now_s += 50
    await until(lambda: feed.readiness().age_s == 0)
    await tell(log, [(ACME, "k1", ApiKeyRevoked())])
    clock.now_s += TRUST_S + 1
    asked = log.questions
    await until(lambda: log.questions > asked + 1)
    assert (feed.readiness().trusted, feed.readiness().age_s) == (False, TRUST_S + 1)
    proving.cancel()
    await asyncio.gather(proving, return_exceptions=True)


async def test_a_restart_makes_no_table_younger(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log):
        log.away = True
        clock.now_s += 400
    await feed.save()
    clock.now_s += 150
    again = feed_on(clock, tmp_path)
    await again.start("")
    await again.settle(grace_s=0.01)
    assert (again.readiness().ready, again.readiness().trusted, again.readiness().age_s) == (True, True, 550)
    clock.now_s += 51
    assert not again.readiness().trusted


async def test_a_wall_clock_that_was_set_back_gives_no_trust_beyond_the_bound(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log):
        pass
    await feed.save()
    clock.now_s -= 900
    again = feed_on(clock, tmp_path)
    await again.start("")
    assert again.readiness().age_s == 0
    clock.now_s += TRUST_S + 1
    assert not again.readiness().trusted


async def test_on_a_quiet_platform_the_age_on_disk_keeps_up(clock: Clock, tmp_path: Path) -> None:
    feed, log = feed_on(clock, tmp_path), WaryLog()
    await tell(log, key())
    async with following(feed, log):
        await feed.save()
        clock.now_s += routing_feed.PROOF_SAVE_INTERVAL_S
        await until(lambda: feed.readiness().age_s == 0)
        saving = asyncio.ensure_future(feed.keep_saved(_loads(clock)))

        async def age_on_disk_s() -> float:
            again = feed_on(clock, tmp_path)
            await again.start("")
            return again.readiness().age_s

        async with asyncio.timeout(5):
            while await age_on_disk_s() > 0:  # noqa: ASYNC110 - a file is looked at
                await asyncio.sleep(0.005)
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)


async def test_the_router_tables_are_as_old_as_their_checkpoint(
    clock: Clock, tmp_path: Path, postgres_url: str
) -> None:
    told = entries(key())
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, ROUTER)
        await connection.execute(f"SET search_path TO {ROUTER.schema}")
        await ROUTER.apply(told, connection)
        await move(connection, [Move(ROUTER, 0, told[-1].position)])
        moved_at = clock.utc() - timedelta(seconds=300)
        await connection.execute("UPDATE platform.checkpoints SET updated_at = %s", (moved_at,))
    feed = feed_on(clock, tmp_path)
    await feed.start(postgres_url)
    assert (feed.readiness().source, feed.readiness().age_s) == ("postgres", 300)
    async with await connect(postgres_url, "test") as connection:
        await connection.execute("UPDATE platform.checkpoints SET shown_from = position + 1")
    being_built = feed_on(clock, tmp_path)
    await being_built.start(postgres_url)
    assert being_built.readiness().source == "log"


def _loads(clock: Clock) -> Loads:
    return Loads(stale_s=lambda: 9, now_s=clock.monotonic_s)


def test_an_answer_counts_from_its_question_and_only_once_it_is_reached() -> None:
    clock = Clock()
    age = TableAge(clock.monotonic_s)
    asked_s = clock.now_s = 1010.0
    clock.now_s = 1013.0
    age.answered(42, asked_s=asked_s)
    age.reached(41)
    assert age.age_s == 13
    age.reached(42)
    assert age.age_s == 3


def test_a_table_that_always_lags_is_proven_as_old_as_it_is() -> None:
    clock = Clock()
    age = TableAge(clock.monotonic_s)
    for second in range(1, 100):
        clock.now_s = 1000.0 + second
        age.answered(10 * second, asked_s=clock.now_s)
        age.reached(10 * (second - 5))
    assert 5 <= age.age_s <= 10


def test_an_answer_from_before_the_log_was_replaced_is_not_waited_for() -> None:
    clock = Clock()
    age = TableAge(clock.monotonic_s)
    age.answered(100, asked_s=clock.now_s)
    clock.now_s += 50
    age.answered(3, asked_s=clock.now_s)
    age.reached(3)
    assert age.age_s == 0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["event", "apply", "ask", "answer"]), st.floats(0, 5, allow_nan=False)), max_size=60
    )
)
def test_whatever_happened_before_the_age_is_in_the_table(steps: list[tuple[str, float]]) -> None:
    clock = Clock(0.0)
    age = TableAge(clock.monotonic_s)
    happened_s: list[float] = []
    applied, question = 0, None
    for what, elapsed_s in steps:
        clock.now_s += elapsed_s
        if what == "event":
            happened_s.append(clock.now_s)
        elif what == "apply" and applied < len(happened_s):
            applied += 1
            age.reached(applied)
        elif what == "ask":
            question = (len(happened_s), clock.now_s)
        elif question is not None:
            age.answered(question[0], asked_s=question[1])
            age.reached(applied)
            question = None
        missing = happened_s[applied:]
        assert all(clock.now_s - age.age_s <= at + 1e-9 for at in missing)
