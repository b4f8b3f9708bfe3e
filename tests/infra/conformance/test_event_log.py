"""What every event log must do. Runs on the one in memory, on JetStream, and on JetStream with group commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from domain.message import Recorded
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.events.memory import MemoryLog
from infra.events.port import (
    FOLLOWS,
    Append,
    AppendRefusedError,
    Conflict,
    EventLog,
    GapError,
    UnreadableMessageError,
)
from tests.infra.events.envelopes import append_of, payload

A, B, C = "evt.acme.instance.a", "evt.acme.instance.b", "evt.other.organization.c"
RACERS = 16
ROUNDS = 10
WAIT_S = 60.0


@pytest.fixture
async def jetstream_log(nats_server: EmbeddedNats) -> AsyncIterator[JetStreamLog]:
    connection = await connect_writer(nats_server.url, "test")
    yield JetStreamLog(connection)
    await connection.close()


@pytest.fixture
async def group_commit_log(jetstream_log: JetStreamLog) -> EventLog:
    """Groups whenever two appends meet, so that every law of the suite is put to groups too."""
    return GroupCommitLog(jetstream_log, alone_max=1, group_appends_min=2)


@pytest.fixture
def memory_log() -> EventLog:
    return MemoryLog()


@pytest.fixture(params=["memory_log", "jetstream_log", "group_commit_log"])
def log(request: pytest.FixtureRequest) -> EventLog:
    chosen: EventLog = request.getfixturevalue(request.param)
    return chosen


def ids(messages: Sequence[Recorded]) -> list[str]:
    return [message.envelope.event_id for message in messages]


async def collect(log: EventLog, count: int, *, after: int = 0, subjects: Sequence[str] = ()) -> list[Recorded]:
    found: list[Recorded] = []
    async with asyncio.timeout(WAIT_S), log.follow(after=after, subjects=subjects) as batches:
        async for batch in batches:
            assert batch, "batches are never empty"
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError("follow ended")


async def test_an_empty_log_has_nothing(log: EventLog) -> None:
    assert (await log.head(), await log.read(A), await log.last(A)) == (0, [], None)


async def test_what_is_appended_reads_back_byte_for_byte(log: EventLog) -> None:
    position = await log.append([append_of(A, "e1", "e2")])
    first, second = await log.read(A)
    assert (position, first.position, second.position) == (2, 1, 2)
    assert (first.subject, first.payload, second.payload) == (A, payload("e1"), payload("e2"))
    assert await log.last(A) == second
    assert await log.head() == 2


async def test_reading_after_a_position_leaves_out_what_is_known(log: EventLog) -> None:
    await log.append([append_of(A, "e1", "e2", "e3")])
    await log.append([append_of(B, "other")])
    assert ids(await log.read(A, after=1)) == ["e2", "e3"]
    assert await log.read(A, after=3) == []


async def test_a_long_history_reads_back_whole_and_in_order(log: EventLog) -> None:
    expected = 0
    for start in range(0, 2500, 500):
        expected = await log.append([append_of(A, *(f"e{n}" for n in range(start, start + 500)), expected=expected)])
    assert ids(await log.read(A)) == [f"e{n}" for n in range(2500)]


async def test_a_subject_moves_on_from_its_own_last_position(log: EventLog) -> None:
    first = await log.append([append_of(A, "e1")])
    await log.append([append_of(B, "other")])
    assert await log.append([append_of(A, "e2", expected=first)]) == 3


@pytest.mark.parametrize("events", [("late",), ("late", "later")])
@pytest.mark.parametrize("expected", [0, 1, 99])
async def test_a_writer_that_missed_something_is_told_and_stores_nothing(
    log: EventLog, events: tuple[str, ...], expected: int
) -> None:
    await log.append([append_of(A, "e1")])
    await log.append([append_of(A, "e2", expected=1)])
    with pytest.raises(Conflict) as conflict:
        await log.append([append_of(A, *events, expected=expected)])
    assert conflict.value.subjects == (A,)
    assert ids(await log.read(A)) == ["e1", "e2"]


async def test_a_writer_that_expects_messages_of_an_empty_subject_is_told(log: EventLog) -> None:
    with pytest.raises(Conflict):
        await log.append([append_of(A, "e1", expected=7)])
    assert await log.head() == 0


async def test_several_subjects_are_stored_together(log: EventLog) -> None:
    await log.append([append_of(B, "b1")])
    assert await log.append([append_of(A, "a1", "a2"), append_of(B, "b2", expected=1), append_of(C, "c1")]) == 5
    assert [ids(await log.read(subject)) for subject in (A, B, C)] == [["a1", "a2"], ["b1", "b2"], ["c1"]]


async def test_one_subject_in_conflict_keeps_all_from_being_stored(log: EventLog) -> None:
    await log.append([append_of(B, "b1")])
    with pytest.raises(Conflict) as conflict:
        await log.append([append_of(A, "a1", "a2"), append_of(B, "b2", expected=0), append_of(C, "c1")])
    assert conflict.value.subjects == (B,)
    assert await log.head() == 1


async def test_of_racing_writers_exactly_one_wins_each_round(log: EventLog) -> None:
    expected = 0
    for number in range(ROUNDS):
        size = 1 + number % 2
        results = await asyncio.gather(
            *(
                log.append([append_of(A, *(f"{number}-{racer}-{n}" for n in range(size)), expected=expected)])
                for racer in range(RACERS)
            ),
            return_exceptions=True,
        )
        [won] = [result for result in results if isinstance(result, int)]
        assert [type(result) for result in results if result != won] == [Conflict] * (RACERS - 1)
        assert won == expected + size
        expected = won
    assert await log.head() == expected


async def test_a_batch_stays_together_among_other_writers(log: EventLog) -> None:
    async def write(writer: int) -> list[int]:
        subject, expected, ends = f"evt.acme.instance.w{writer}", 0, []
        for number in range(10):
            events = [f"{writer}-{number}-{n}" for n in range(1 + 2 * (number % 2))]
            expected = await log.append([append_of(subject, *events, expected=expected)])
            ends.append(expected)
        return ends

    ends = await asyncio.gather(*(write(writer) for writer in range(8)))
    messages = await collect(log, 8 * 20)
    assert [message.position for message in messages] == list(range(1, 8 * 20 + 1))
    at = {message.position: message.envelope.event_id for message in messages}
    for writer, positions in enumerate(ends):
        for number, end in enumerate(positions):
            size = 1 + 2 * (number % 2)
            assert [at[end - size + 1 + n] for n in range(size)] == [f"{writer}-{number}-{n}" for n in range(size)]


@pytest.mark.parametrize("events", [("e1",), ("e1", "e2", "e3")])
async def test_repeating_a_stored_append_gives_its_position_again(log: EventLog, events: tuple[str, ...]) -> None:
    await log.append([append_of(B, "before")])
    again = [append_of(A, *events), append_of(C, "c1")]
    position = await log.append(again)
    assert await log.append(again) == position
    assert await log.head() == position


async def test_a_stored_append_is_recognised_under_what_others_wrote_since(log: EventLog) -> None:
    mine = [append_of(A, "mine-1", "mine-2")]
    position = await log.append(mine)
    await log.append([append_of(A, "theirs", expected=position)])
    assert await log.append(mine) == position
    assert ids(await log.read(A)) == ["mine-1", "mine-2", "theirs"]


@pytest.mark.parametrize(
    "appends",
    [
        [],
        [Append(A, 0, ())],
        [append_of(A, "e1"), append_of(A, "e2")],
        [append_of("evt.acme.*.a", "e1")],
        [append_of("evt.acme.>", "e1")],
        [append_of("evt..a", "e1")],
        [append_of(A, *(f"e{n}" for n in range(1001)))],
        [Append(A, 0, (("large", payload("large", data=b'"' + b"x" * 300_000 + b'"')),))],
        [Append(A, 0, (("small", payload("small")), ("large", payload("large", data=b'"' + b"x" * 300_000 + b'"'))))],
    ],
    ids=["nothing", "no message", "subject twice", "star", "rest", "empty token", "too many", "large", "one large"],
)
async def test_what_no_log_can_store_is_refused_at_once(log: EventLog, appends: list[Append]) -> None:
    with pytest.raises(AppendRefusedError):
        await log.append(appends)
    assert await log.head() == 0


async def test_messages_that_alternate_between_subjects_keep_their_order(log: EventLog) -> None:
    alternating = [append_of(A, "a1"), append_of(B, "b1"), append_of(A, "a2", expected=FOLLOWS)]
    assert await log.append(alternating) == 3
    assert ids(await collect(log, 3)) == ["a1", "b1", "a2"]
    assert await log.append(alternating) == 3, "the same once more"
    with pytest.raises(Conflict):
        await log.append([append_of(A, "a3", expected=3), append_of(B, "b2"), append_of(A, "a4", expected=FOLLOWS)])
    with pytest.raises(AppendRefusedError):
        await log.append([append_of(A, "a5", expected=FOLLOWS)])
    assert await log.head() == 3


async def test_following_from_the_middle_gives_what_came_after(log: EventLog) -> None:
    await log.append([append_of(A, "e1", "e2", "e3", "e4")])
    assert ids(await collect(log, 2, after=2)) == ["e3", "e4"]


async def test_a_filter_lets_only_its_subjects_pass(log: EventLog) -> None:
    await log.append([append_of(A, "a1"), append_of(C, "c1"), append_of(B, "b1")])
    await log.append([append_of("uniq.name.abc", "u1"), append_of(A, "a2", expected=1)])
    assert ids(await collect(log, 3, subjects=["evt.acme.>"])) == ["a1", "b1", "a2"]
    assert ids(await collect(log, 2, subjects=["evt.*.organization.*", "uniq.>"])) == ["c1", "u1"]
    assert ids(await collect(log, 2, subjects=[A])) == ["a1", "a2"]


async def test_batches_are_no_larger_than_asked(log: EventLog) -> None:
    await log.append([append_of(A, *(f"e{n}" for n in range(10)))])
    sizes: list[int] = []
    async with asyncio.timeout(WAIT_S), log.follow(after=0, batch=3) as batches:
        async for batch in batches:
            sizes.append(len(batch))
            if sum(sizes) == 10:
                break
    assert max(sizes) <= 3


async def test_a_follower_hears_what_is_appended_while_it_waits(log: EventLog) -> None:
    async with asyncio.timeout(WAIT_S), log.follow(after=0) as batches:
        for number in range(5):
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            position = await log.append([append_of(f"{A}{number}", f"e{number}")])
            [heard] = await waiting
            assert (heard.position, heard.envelope.event_id) == (position, f"e{number}")


async def test_two_followers_hear_the_same_in_the_same_order(log: EventLog) -> None:
    both = asyncio.gather(collect(log, 50), collect(log, 50))
    await asyncio.gather(*(log.append([append_of(f"{A}{number}", f"e{number}")]) for number in range(50)))
    first, second = await both
    assert first == second
    assert [message.position for message in first] == list(range(1, 51))


async def test_a_follower_ahead_of_the_log_is_stopped(log: EventLog) -> None:
    await log.append([append_of(A, "e1")])
    with pytest.raises(GapError, match="ends at 1, but position 5 has been seen"):
        await collect(log, 1, after=5)


async def test_a_message_that_is_no_envelope_is_named(log: EventLog) -> None:
    await log.append([Append(A, 0, (("e1", b"not an envelope"),))])
    with pytest.raises(UnreadableMessageError, match="position 1"):
        await log.read(A)
