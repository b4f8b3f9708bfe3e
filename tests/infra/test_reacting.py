"""The runtime of reactions on a real NATS and a real Postgres: competing processes, timers, duties, restarts."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from domain.decider import Rejected
from domain.message import Recorded, subject_of
from handlers.outcome import Done, Outcome, Park, RetryAfter
from handlers.ports import Doors, Effect, Trigger, Waking
from handlers.subscriptions import Duty
from infra.effects import EffectLedger, MemoryEffectRows
from infra.embedded.nats import EmbeddedNats
from tests.handlers.fake_cloud import FakeCloud
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import Effects
from tests.infra.house import ACME, House, Looks, open_house, until
from tests.infra.reacting_worker import TABLE

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def house(nats_server: EmbeddedNats, postgres_url: str) -> AsyncIterator[House]:
    async with open_house(nats_server.url, postgres_url) as opened:
        yield opened


@contextlib.asynccontextmanager
async def worker(nats_url: str, postgres_url: str, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.infra.reacting_worker", nats_url, postgres_url, *flags, cwd=ROOT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def both_work(looks: psycopg.AsyncConnection) -> bool:
    cursor = await looks.execute("SELECT count(DISTINCT pid) FROM looks")
    return await cursor.fetchall() == [(2,)]


async def all_looked_at(looks: psycopg.AsyncConnection, wanted: dict[str, int]) -> bool:
    cursor = await looks.execute("SELECT id, max(version) FROM looks WHERE phase = 'end' GROUP BY id")
    return {key: version for key, version in await cursor.fetchall()} == wanted  # noqa: C416 - rows to a typed dict


def overlaps(rows: Sequence[tuple[str, int, int, str]], killed_pid: int | None) -> int:
    """Looks at one aggregate that began while another process's look had not ended."""
    open_looks: dict[str, int] = {}
    count = 0
    for key, _version, pid, phase in rows:
        if phase == "end":
            open_looks.pop(key, None)
            continue
        holder = open_looks.get(key)
        count += holder is not None and holder != killed_pid
        open_looks[key] = pid
    return count


async def compete(house: House, nats_url: str, postgres_url: str, *flags: str, kill: bool) -> int:
    """Two processes work on thirty aggregates; one is killed in the middle. Returns the overlapping looks."""
    keys = [f"key-{n}" for n in range(30)]
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as looks:
        await looks.execute(TABLE)
        async with worker(nats_url, postgres_url, *flags) as first, worker(nats_url, postgres_url, *flags) as second:
            rounds = 0

            async def change_all() -> None:
                nonlocal rounds
                await asyncio.gather(*(house.change(key, f"name {rounds}") for key in keys))
                rounds += 1

            async def both_were_seen_working() -> bool:
                await change_all()
                return await both_work(looks)

            await until(both_were_seen_working, "both processes work")
            await change_all()
            if kill:
                first.send_signal(signal.SIGKILL)
            await until(lambda: all_looked_at(looks, dict.fromkeys(keys, rounds)), "every newest version was seen")
            assert second.returncode is None
            killed_pid = first.pid if kill else None
        rows = await (await looks.execute("SELECT id, version, pid, phase FROM looks ORDER BY n")).fetchall()
    ended: dict[str, list[int]] = {}
    for key, version, _pid, phase in rows:
        if phase == "end":
            ended.setdefault(key, []).append(version)
    if not flags:
        assert all(a <= b for versions in ended.values() for a, b in pairwise(versions)), "in order, per aggregate"
    return overlaps(rows, killed_pid)


async def test_two_processes_never_look_at_one_aggregate_together_and_a_killed_one_loses_nothing(
    house: House, nats_server: EmbeddedNats, postgres_url: str
) -> None:
    assert await compete(house, nats_server.url, postgres_url, kill=True) == 0


async def test_control_without_the_gate_they_do(house: House, nats_server: EmbeddedNats, postgres_url: str) -> None:
    assert await compete(house, nats_server.url, postgres_url, "no-gate", kill=False) > 0


async def test_a_settled_version_is_not_looked_at_again(house: House) -> None:
    looks = Looks()
    await house.change("key-1", "first")
    async with house.reacting(looks):
        await until(lambda: looks.has_seen("key-1", 1), "the first event was looked at")
    again = Looks()
    async with house.reacting(again) as reactor:
        await house.change("key-1", "second")
        await until(lambda: again.has_seen("key-1", 2), "the new event was looked at")
        await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "key-1"))
    assert again.seen["key-1"] == [2, 2], "once for the event, once for the wish; never for the settled first"


async def test_a_wish_to_look_again_comes_true_by_a_timer(house: House) -> None:
    looks: list[float] = []

    async def wait_once(trigger: Trigger, doors: Doors) -> Outcome:
        looks.append(asyncio.get_running_loop().time())
        again_at = doors.clock() + timedelta(seconds=0.5) if len(looks) == 1 else None
        return Done(version=trigger.version, again_at=again_at)

    async def twice() -> bool:
        return len(looks) == 2

    async with house.reacting(wait_once):
        await house.change("key-1", "first")
        await until(twice, "the timer woke it")
    assert looks[1] - looks[0] >= 0.5


async def test_a_retry_keeps_nobody_else_waiting(house: House) -> None:
    healthy = Looks()

    async def put_off(trigger: Trigger, doors: Doors) -> Outcome:
        return RetryAfter(60, "not yet") if trigger.id.startswith("ill") else await healthy(trigger, doors)

    async with house.reacting(put_off):
        await asyncio.gather(*(house.change(f"ill-{n}", "first") for n in range(40)))
        await house.change("key-1", "first")
        await until(lambda: healthy.has_seen("key-1", 1), "forty that wait do not stop one that can go on")


async def test_a_server_killed_and_restarted_loses_no_wake_up(house: House, nats_server: EmbeddedNats) -> None:
    looks = Looks()
    async with house.reacting(looks):
        await house.change("key-1", "first")
        await until(lambda: looks.has_seen("key-1", 1), "it works before")
        await nats_server.kill()
        await nats_server.start()
        await house.change("key-1", "second")
        await until(lambda: looks.has_seen("key-1", 2), "it works afterwards")


async def test_a_duty_wakes_whom_it_names(house: House) -> None:
    looks = Looks()
    await house.change("key-1", "first")

    async def perform(_doors: Doors) -> Sequence[Waking]:
        return [Waking("look_on_api_key", ACME, "api_key", "key-1")]

    async with house.reacting(looks, [Duty(name="keep_looking", period_s=0.1, perform=perform)]):

        async def often() -> bool:
            return len(looks.seen.get("key-1", [])) >= 4

        await until(often, "each period, although nothing happens")


async def test_a_duty_that_failed_is_soon_repeated(house: House) -> None:
    looks: list[str] = []

    async def perform(_doors: Doors) -> Sequence[Waking]:
        looks.append("looked")
        if len(looks) < 3:
            raise ConnectionError("the read model is away")
        return ()

    async def kept() -> bool:
        return len(looks) == 3

    async with house.reacting(Looks(), [Duty(name="keep_looking", period_s=3600, perform=perform)]):
        await until(kept, "without waiting for an hour")


async def test_a_log_that_ends_before_what_was_seen_stops_the_reaction(house: House) -> None:
    looks = Looks()
    await house.change("key-1", "first")
    async with house.gate.hold("look_on_api_key", "api_key", "key-1") as held:
        assert held is not None
        await held.settle(type(held.standing)(version=9))
    reactor = house.reactor(looks)
    for _ in range(2):
        with pytest.raises(Exception, match=r"lost\?|look_on_api_key"):
            await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "key-1"))
    assert looks.seen == {}


async def test_a_look_that_had_to_wait_for_its_turn_is_no_sign_of_a_lost_log(house: House) -> None:
    looks = Looks()
    await house.change("key-1", "first")
    reactor, asked = house.reactor(looks), asyncio.Event()
    read_last = house.stores.log.last

    async def last(subject: str) -> Recorded | None:
        newest = await read_last(subject)
        asked.set()
        return newest

    house.stores.log.last = last  # type: ignore[method-assign]  # to know when it has been read
    async with house.gate.hold("look_on_api_key", "api_key", "key-1") as held:
        waking = asyncio.create_task(reactor.wake(Waking("look_on_api_key", ACME, "api_key", "key-1")))
        await asyncio.wait_for(asked.wait(), 10)  # version 1 was the newest; now it waits for us
        await house.change("key-1", "second")
        assert held is not None
        await held.settle(type(held.standing)(version=2))
    await asyncio.wait_for(waking, 10)
    assert looks.seen == {"key-1": [2]}


class Told:
    """A reaction that notes what it is told to be done, and answers as it is told to."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.answers = list(answers)
        self.done: list[int] = []

    async def __call__(self, trigger: Trigger, doors: Doors) -> Outcome:
        self.done.append(trigger.done)
        answer = self.answers.pop(0) if self.answers else Done(version=trigger.version)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("answer", [RetryAfter(60, "not yet", 2), ConnectionError("away"), Rejected("no"), Park("ill")])
async def test_only_an_answer_of_done_counts_as_done(house: House, answer: Outcome | Exception) -> None:
    told = Told(Done(version=1), answer)
    reactor = house.reactor(told)
    for name in ("first", "second"):
        await house.change("key-1", name)
        await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "key-1"))
    await house.parking.retry("look_on_api_key.api_key.key-1")
    for _ in range(2):
        await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "key-1"))
    assert told.done == [0, 1, 1, 2], "what was put off, refused or parked is still to be done"


async def test_deeds_are_on_record_under_the_reaction_and_its_event(house: House) -> None:
    ledger = MemoryEffectRows(house.doors.clock)
    effects = Effects()
    cloud = FakeCloud(effects, house.doors.clock)
    house.doors = replace(house.doors, effects=EffectLedger(ledger), clouds=FixedClouds({"local": cloud}))

    async def delete(trigger: Trigger, doors: Doors) -> Outcome:
        cloud = await doors.clouds.of(ACME, "local")
        assert cloud is not None
        await cloud.delete_server("srv-1")
        return Done(version=trigger.version)

    await house.change("key-1", "first")
    await house.reactor(delete).wake(Waking("look_on_api_key", ACME, "api_key", "key-1"))
    newest = await house.log.last(subject_of(ACME, "api_key", "key-1"))
    assert newest is not None
    (row,) = ledger.rows
    assert row.effect == Effect(
        reaction="look_on_api_key",
        event_id=newest.envelope.event_id,
        name="delete_server",
        key="srv-1",
        subject=newest.subject,
    )
    assert effects.names == ["delete_server"]
