"""Many writers in one batch: each gets its own answer, whatever becomes of the batch."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import nats
import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events import group_commit
from infra.events.connection import connect_writer, disconnect
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.events.port import Append, Conflict, LogUnavailableError
from infra.events.reads import leader_next
from tests.faults import FaultProxy, fault_proxy
from tests.infra.events.envelopes import append_of, payload

WRITERS = 12
REPLY_TIMEOUT_S = 0.3
WAIT_S = 60.0
CRASHES, EVENTS_EACH = 3, 25


class WatchedLog(JetStreamLog):
    """Counts what went in groups and what went alone."""

    groups: int = 0
    alone: int = 0

    async def append_once(self, appends: Sequence[Append]) -> int:
        self.groups += 1
        return await super().append_once(appends)

    async def append(self, appends: Sequence[Append]) -> int:
        self.alone += 1
        return await super().append(appends)


@pytest.fixture
async def writer(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await connect_writer(nats_server.url, "writer")
    yield connection
    await disconnect(connection)


@pytest.fixture
async def proxy(nats_server: EmbeddedNats) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(nats_server.port) as between:
        yield between


def subject(number: int) -> str:
    return f"evt.acme.instance.w{number}"


def grouping(log: JetStreamLog) -> GroupCommitLog:
    """The first goes alone; whoever comes meanwhile goes with it in one batch."""
    return GroupCommitLog(log, alone_max=1, group_appends_min=2)


def first_events(count: int = WRITERS) -> list[list[Append]]:
    return [[append_of(subject(number), f"e{number}")] for number in range(count)]


async def stored_batches(nc: Client, end: int) -> dict[str, list[int]]:
    """Batch id -> number of each stored message in its batch, in the order of the stream."""
    batches: dict[str, list[int]] = defaultdict(list)
    for position in range(1, end + 1):
        message = await leader_next(nc, "EVENTS", ">", position, timeout_s=WAIT_S)
        assert message is not None
        headers = dict(line.split(": ", 1) for line in message.headers.decode().split("\r\n") if ": " in line)
        if "Nats-Batch-Id" in headers:
            batches[headers["Nats-Batch-Id"]].append(int(headers["Nats-Batch-Sequence"]))
            if "Nats-Batch-Commit" in headers:
                batches[headers["Nats-Batch-Id"]].append(0)
    return batches


async def test_writers_who_come_together_share_a_batch_and_learn_their_own_positions(writer: Client) -> None:
    watched = WatchedLog(writer)
    log = grouping(watched)
    positions = await asyncio.gather(*(log.append(appends) for appends in first_events()))
    assert (watched.alone, watched.groups) == (1, 1)
    found = [await log.last(subject(number)) for number in range(WRITERS)]
    assert [(f.position, f.envelope.event_id) for f in found if f] == [(p, f"e{n}") for n, p in enumerate(positions)]


async def test_a_lone_writer_never_waits_for_company(writer: Client) -> None:
    watched = WatchedLog(writer)
    log, expected = GroupCommitLog(watched, alone_max=1, group_appends_min=1), 0
    for number in range(10):
        expected = await log.append([append_of(subject(0), f"e{number}", expected=expected)])
    assert (watched.alone, watched.groups) == (10, 0)


async def test_appends_of_several_messages_and_subjects_stay_whole_in_a_group(writer: Client) -> None:
    watched = WatchedLog(writer)
    log = grouping(watched)
    pairs = [[append_of(f"uniq.name.{n}", f"u{n}"), append_of(subject(n), f"x{n}", f"y{n}")] for n in range(WRITERS)]
    ends = await asyncio.gather(*(log.append(pair) for pair in pairs))
    assert watched.groups == 1
    for number, end in enumerate(ends):
        found = [*await log.read(f"uniq.name.{number}"), *await log.read(subject(number))]
        assert [message.position for message in found] == [end - 2, end - 1, end]


async def test_two_appends_to_one_subject_never_share_a_batch(writer: Client) -> None:
    watched = WatchedLog(writer)
    log = grouping(watched)
    events = [append_of(subject(n % 4), f"e{n}") for n in range(8)]
    results = await asyncio.gather(
        log.append([append_of(B, "b")]), *(log.append([e]) for e in events), return_exceptions=True
    )
    assert [type(result) for result in results] == [int] * 5 + [Conflict] * 4
    assert watched.groups >= 1
    assert await log.head() == 5


B = "evt.acme.instance.before"


async def test_one_stale_member_spoils_the_batch_but_not_the_others(writer: Client) -> None:
    watched = WatchedLog(writer)
    log = grouping(watched)
    await log.append([append_of(subject(5), "earlier")])
    results = await asyncio.gather(*(log.append(appends) for appends in first_events()), return_exceptions=True)
    assert watched.groups == 1
    assert [n for n, result in enumerate(results) if isinstance(result, Conflict)] == [5]
    assert await log.head() == WRITERS
    await asyncio.gather(*(log.append([append_of(f"{subject(n)}-x", f"x{n}")]) for n in range(WRITERS)))
    assert watched.groups == 1, "grouping rests after a failure"


async def test_grouping_begins_again_after_its_rest(writer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "FIRST_REST_S", 0.0)
    watched = WatchedLog(writer)
    log = grouping(watched)
    for round_number in range(2):
        await asyncio.gather(*(log.append(appends) for appends in first_events()), return_exceptions=True)
        assert watched.groups == 1 + round_number


async def test_lost_replies_give_each_member_its_own_position_and_double_nothing(
    nats_server: EmbeddedNats, proxy: FaultProxy, writer: Client
) -> None:
    class LosingLog(JetStreamLog):
        async def append_once(self, appends: Sequence[Append]) -> int:
            proxy.swallowing = True
            return await super().append_once(appends)

    faulty = await connect_writer(nats_server.url.replace(f":{nats_server.port}", f":{proxy.port}"), "faulty")
    log, straight = grouping(LosingLog(faulty, reply_timeout_s=REPLY_TIMEOUT_S)), JetStreamLog(writer)
    appending = asyncio.gather(*(log.append(appends) for appends in first_events()))
    async with asyncio.timeout(WAIT_S):
        while b'"batch"' not in proxy.lost:  # noqa: ASYNC110 - the state lies in a socket
            await asyncio.sleep(0.001)
    proxy.swallowing = False
    proxy.cut()
    positions = await appending
    assert await straight.head() == WRITERS
    for number, position in enumerate(positions):
        [found] = await straight.read(subject(number))
        assert (found.position, found.envelope.event_id) == (position, f"e{number}")
    await disconnect(faulty)


@pytest.mark.parametrize("atomic", [True, False], ids=["as we send it", "control: without the batch headers"])
async def test_a_group_that_arrived_by_half_is_not_stored_at_all(
    writer: Client, monkeypatch: pytest.MonkeyPatch, *, atomic: bool
) -> None:
    log = JetStreamLog(writer)

    async def lost(*_args: object, **_more: object) -> None:
        raise nats.errors.TimeoutError

    publish = writer.publish

    async def stripped(subject: str, payload: bytes, **more: object) -> None:
        await publish(subject, payload)

    monkeypatch.setattr(writer, "request", lost)
    if not atomic:
        monkeypatch.setattr(writer, "publish", stripped)
    with pytest.raises(nats.errors.TimeoutError):
        await log.append_once([append for appends in first_events() for append in appends])
    monkeypatch.undo()
    assert await log.append([append_of(B, "next")]) == (1 if atomic else WRITERS)


async def test_who_gives_up_waiting_stores_nothing_and_holds_up_nobody(writer: Client) -> None:
    log = grouping(WatchedLog(writer))
    tasks = [asyncio.create_task(log.append(appends)) for appends in first_events()]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for n, result in enumerate(results) if n != 3] == [int] * (WRITERS - 1)
    assert isinstance(results[3], asyncio.CancelledError)
    assert await log.last(subject(3)) is None


async def test_large_appends_go_alone(writer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MEMBER_BYTES_MAX", 600)
    watched = WatchedLog(writer)
    log = grouping(watched)
    large = Append(subject(99), 0, (("large", payload("large", data=b'"' + b"x" * 1000 + b'"')),))
    await asyncio.gather(*(log.append(appends) for appends in [*first_events(), [large]]))
    assert (watched.alone, watched.groups) == (2, 1)


async def test_more_than_may_wait_are_told_at_once(writer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "WAITING_APPENDS_MAX", 3)
    log = grouping(JetStreamLog(writer))
    results = await asyncio.gather(*(log.append(appends) for appends in first_events()), return_exceptions=True)
    assert sum(isinstance(result, LogUnavailableError) for result in results) == WRITERS - 1 - 3


async def test_a_closed_connection_is_told_to_every_member(writer: Client) -> None:
    log = grouping(JetStreamLog(writer))
    await disconnect(writer)
    results = await asyncio.gather(*(log.append(appends) for appends in first_events()), return_exceptions=True)
    assert [type(result) for result in results] == [LogUnavailableError] * WRITERS


Crash = Callable[[], Awaitable[None]]


async def write_through(log: GroupCommitLog, crash: Crash, crashes: int) -> dict[int, str]:
    """Position -> event id of all that was acknowledged, while the server or its leader is killed again and again."""
    acked: dict[int, str] = {}

    async def write(number: int) -> None:
        expected = 0
        for event in range(EVENTS_EACH):
            event_id = f"{number}-{event}"
            expected = await log.append([append_of(subject(number), event_id, expected=expected)])
            assert expected not in acked
            acked[expected] = event_id

    async def crash_now_and_then() -> None:
        for number in range(1, crashes + 1):
            while len(acked) < number * WRITERS * EVENTS_EACH // (crashes + 1):  # noqa: ASYNC110 - a dict tells of no growth
                await asyncio.sleep(0.002)
            await crash()

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(crash_now_and_then(), *(write(number) for number in range(WRITERS)))
    return acked


async def check_nothing_is_lost_doubled_or_halved(nc: Client, acked: dict[int, str]) -> None:
    log = JetStreamLog(nc)
    end = await log.head()
    assert end == len(acked) == WRITERS * EVENTS_EACH
    for number in range(WRITERS):
        found = await log.read(subject(number))
        assert [message.envelope.event_id for message in found] == [f"{number}-{event}" for event in range(EVENTS_EACH)]
        assert all(acked[message.position] == message.envelope.event_id for message in found)
    batches = await stored_batches(nc, end)
    assert batches
    assert all(numbers == [*range(1, len(numbers)), 0] for numbers in batches.values()), "a group is whole or absent"


async def test_crashes_under_load_lose_double_and_halve_nothing(nats_server: EmbeddedNats, writer: Client) -> None:
    async def crash() -> None:
        await nats_server.kill()
        await nats_server.start()

    log = GroupCommitLog(JetStreamLog(writer, reply_timeout_s=REPLY_TIMEOUT_S), alone_max=2, group_appends_min=2)
    await check_nothing_is_lost_doubled_or_halved(writer, await write_through(log, crash, CRASHES))


async def test_a_leader_that_dies_under_load_loses_doubles_and_halves_nothing(
    nats_cluster: EmbeddedNatsCluster,
) -> None:
    async def crash() -> None:
        leader = await nats_cluster.leader("EVENTS")
        await leader.kill()
        await leader.start()

    writer = await connect_writer(nats_cluster.url, "writer")
    log = GroupCommitLog(JetStreamLog(writer), alone_max=2, group_appends_min=2)
    await check_nothing_is_lost_doubled_or_halved(writer, await write_through(log, crash, 1))
    await disconnect(writer)
