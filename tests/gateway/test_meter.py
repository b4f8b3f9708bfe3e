"""Accounts reach the stream exactly once, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OrganizationId
from domain.usage import UsageRecord
from gateway import meter as metering
from gateway.meter import Meter, Posting
from infra.running_journal import MAX_TAIL_BYTES, SLOTS, RunningJournal, left_running
from infra.spool import FileSpool
from tests.gateway.records import account
from tests.gateway.served import until


def record(number: int) -> UsageRecord:
    return UsageRecord(
        request_id=f"r{number}",
        organization_id=OrganizationId("acme"),
        api_key_id=ApiKeyId("k1"),
        deployment_id=DeploymentId("d1"),
        instance_id=InstanceId("i1"),
        model_code="m",
        endpoint="/v1/completions",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        streamed=False,
        outcome="completed",
        status_code=200,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=2,
        cached_tokens=0,
        counted_by="engine",
        ttft_ms=1.0,
        duration_ms=2.0,
    )


class Stream:
    """USAGE as the gateway sees it: it may be away, and it recognises a message id that it has."""

    def __init__(self) -> None:
        self.away = False
        self.forgets_to_answer = False
        self.stored: dict[str, Posting] = {}
        self.batches = 0

    async def publish(self, postings: Sequence[Posting]) -> None:
        self.batches += 1
        if self.away:
            raise ConnectionError("no stream")
        for posting in postings:
            self.stored.setdefault(posting.message_id, posting)
        if self.forgets_to_answer:
            self.forgets_to_answer = False
            raise TimeoutError("no answer")


class SpoolOfNothing:
    """The control: no disk at all."""

    is_full = False

    def append(self, records: Sequence[bytes]) -> None:
        pass

    def sync(self) -> None:
        pass

    def oldest(self, limit: int) -> Sequence[bytes]:
        return []

    def remove(self, count: int) -> None:
        pass


@asynccontextmanager
async def running(meter: Meter) -> AsyncIterator[Meter]:
    task = asyncio.ensure_future(meter.run())
    try:
        yield meter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(metering, "RETRY_LONGEST_S", 0.02)
    monkeypatch.setattr(metering, "SYNC_DELAY_S", 0.01)


async def test_a_record_reaches_its_subject_under_its_request_id(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(msgspec.json.encode(record(1)))
        await until(lambda: "r1" in stream.stored)
        await until(lambda: spool.size_bytes == 0)
    assert stream.stored["r1"].subject == "use.acme.d1"
    spool.close()


async def test_many_records_travel_in_few_batches(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    async with running(Meter(spool, stream.publish)) as meter:
        for number in range(300):
            meter.record(msgspec.json.encode(record(number)))
        await until(lambda: len(stream.stored) == 300)
    assert stream.batches <= 10
    spool.close()


async def test_while_the_stream_is_away_records_wait_on_disk(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    stream.away = True
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(msgspec.json.encode(record(1)))
        await until(lambda: stream.batches >= 3)
        assert (stream.stored, spool.size_bytes > 0, meter.accepting) == ({}, True, True)
        stream.away = False
        await until(lambda: "r1" in stream.stored)
        await until(lambda: spool.size_bytes == 0)
    spool.close()


async def test_a_lost_acknowledgement_does_not_double(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    stream.forgets_to_answer = True
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(msgspec.json.encode(record(1)))
        await until(lambda: spool.size_bytes == 0)
    assert (stream.batches, list(stream.stored)) == (2, ["r1"])
    spool.close()


async def test_what_a_crash_left_is_published_at_the_next_start(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    Meter(spool, stream.publish).record(msgspec.json.encode(record(1)))
    spool.close()  # the process is gone before anything was published
    assert stream.stored == {}

    reopened = FileSpool(tmp_path)
    async with running(Meter(reopened, stream.publish)):
        await until(lambda: "r1" in stream.stored)
        await until(lambda: reopened.size_bytes == 0)
    assert stream.batches == 1
    reopened.close()


async def test_without_a_spool_a_crash_would_lose_the_record() -> None:
    stream = Stream()
    Meter(SpoolOfNothing(), stream.publish).record(msgspec.json.encode(record(1)))
    again = Meter(SpoolOfNothing(), stream.publish)
    await again.flush()
    assert stream.stored == {}


async def test_an_unreadable_line_does_not_stop_the_others(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    spool.append([b"not a record"])
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(msgspec.json.encode(record(1)))
        await until(lambda: "r1" in stream.stored)
        await until(lambda: spool.size_bytes == 0)
    spool.close()


async def test_a_full_disk_stops_new_requests_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, stream = FileSpool(tmp_path), Stream()

    def full(_: Sequence[bytes]) -> None:
        raise OSError("no space left")

    async with running(Meter(spool, stream.publish)) as meter:
        with monkeypatch.context() as patched:
            patched.setattr(spool, "append", full)
            meter.record(msgspec.json.encode(record(1)))
            assert not meter.accepting
        await until(lambda: meter.accepting)
        await until(lambda: "r1" in stream.stored)
    spool.close()


async def test_a_stopping_gateway_publishes_what_it_can(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    meter = Meter(spool, stream.publish)
    meter.record(msgspec.json.encode(record(1)))
    await meter.flush()
    assert list(stream.stored) == ["r1"]
    stream.away = True
    meter.record(msgspec.json.encode(record(2)))
    await meter.flush()
    spool.close()
    reopened = FileSpool(tmp_path)
    assert len(reopened.oldest(10)) == 1
    reopened.close()


@dataclass
class Covered:
    """A meter with a journal, whose files a next one finds."""

    folder: Path
    spool: FileSpool
    journal: RunningJournal
    meter: Meter

    def left(self) -> dict[str, UsageRecord]:
        """What a kill at this moment would leave in the journal."""
        return dict(left_running(self.folder / "running"))

    def spooled(self) -> list[str]:
        return [msgspec.json.decode(line, type=UsageRecord).request_id for line in self.spool.oldest(10)]


@pytest.fixture
def covered(tmp_path: Path) -> Iterator[Covered]:
    spool, journal = FileSpool(tmp_path), RunningJournal(tmp_path / "running")
    yield Covered(tmp_path, spool, journal, Meter(spool, Stream().publish, journal))
    journal.close()
    spool.close()


def draft(number: int, **changes: Any) -> UsageRecord:
    return msgspec.structs.replace(record(number), outcome="gateway_died", completion_tokens=0, **changes)


def test_a_request_is_accounted_for_from_its_opening_to_its_record(covered: Covered) -> None:
    slot = covered.meter.open(msgspec.json.encode(draft(1)))
    assert covered.left() == {"r1": draft(1)}
    covered.meter.progress(slot, b'"usage":{"prompt_tokens":3,"completion_tokens":5}')
    assert covered.left()["r1"].completion_tokens == 5
    covered.meter.record(msgspec.json.encode(record(1)), slot)
    assert covered.left() == {"r1": record(1)}


def test_a_request_needs_no_more_than_its_opening_and_then_its_end(covered: Covered) -> None:
    one = account(finish_reason="stop", completion_tokens=7)
    slot = covered.meter.open(one.opening)
    [died] = covered.left().values()
    assert (died.outcome, died.completion_tokens, died.status_code) == ("gateway_died", 0, 499)
    covered.meter.progress(slot, b'"usage":{"prompt_tokens":3,"completion_tokens":5}')
    covered.meter.record(one.line(), slot, tail=one.tail_of(one.line()))
    assert list(covered.left().values()) == [one.record()]
    assert covered.journal.open(b"x") != slot


def test_an_end_that_does_not_fit_beside_its_opening_is_kept_whole(covered: Covered) -> None:
    one = account(finish_reason="x" * MAX_TAIL_BYTES)
    covered.meter.record(one.line(), covered.meter.open(one.opening), tail=one.tail_of(one.line()))
    assert list(covered.left().values()) == [one.record()]


async def test_a_record_stays_in_the_journal_until_the_spool_has_it(covered: Covered) -> None:
    covered.meter.record(msgspec.json.encode(record(1)), covered.meter.open(msgspec.json.encode(draft(1))))
    assert (covered.spooled(), set(covered.left())) == ([], {"r1"})
    async with running(covered.meter):
        await until(lambda: covered.left() == {})
        await until(lambda: covered.spool.size_bytes == 0)


async def test_without_a_journal_a_record_is_on_the_disk_at_once(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    Meter(spool, Stream().publish).record(msgspec.json.encode(record(1)))
    assert len(spool.oldest(10)) == 1
    spool.close()


def test_another_attempt_replaces_the_draft_of_the_one_before(covered: Covered) -> None:
    first = covered.meter.open(msgspec.json.encode(draft(1, attempts=1)))
    second = covered.meter.open(msgspec.json.encode(draft(1, attempts=2)), first)
    assert {name: left.attempts for name, left in covered.left().items()} == {"r1": 2}
    covered.meter.record(msgspec.json.encode(record(1)), second)
    covered.meter.record(msgspec.json.encode(record(2)), covered.meter.open(msgspec.json.encode(draft(2))))
    assert covered.left() == {"r1": record(1), "r2": record(2)}


def test_when_no_slot_is_left_no_request_is_taken_and_running_ones_end_well(covered: Covered) -> None:
    slot = covered.meter.open(msgspec.json.encode(draft(1, attempts=1)))
    taken = [covered.journal.open(b"x") for _ in range(SLOTS - 1)]
    assert (covered.meter.accepting, covered.meter.open(msgspec.json.encode(draft(2)))) == (False, -1)
    assert (
        covered.meter.open(msgspec.json.encode(draft(1, attempts=2)), slot) == slot
    )  # its earlier draft is better than none
    covered.meter.record(msgspec.json.encode(record(1)), slot)
    assert covered.spooled() == ["r1"]
    assert covered.meter.accepting
    for one in taken:
        covered.journal.free(one)


async def test_on_a_full_disk_the_journal_keeps_what_the_spool_does_not_take(
    covered: Covered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Sequence[bytes]) -> None:
        raise OSError("no space left")

    async with running(covered.meter):
        with monkeypatch.context() as patched:
            patched.setattr(covered.spool, "append", full)
            covered.meter.record(msgspec.json.encode(record(1)), covered.meter.open(msgspec.json.encode(draft(1))))
            await until(lambda: not covered.meter.accepting)
            assert covered.left() == {"r1": record(1)}
        await until(lambda: covered.meter.accepting)
        await until(lambda: covered.left() == {})


async def test_what_was_adopted_leaves_without_a_record_of_our_own(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    async with running(Meter(spool, stream.publish)) as meter:
        await until(lambda: not meter._publishable.is_set())  # it has looked, and found nothing
        spool.append([msgspec.json.encode(record(7))])
        meter.publish_soon()
        await until(lambda: "r7" in stream.stored)
    spool.close()
