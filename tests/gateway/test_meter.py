"""Accounts reach the stream exactly once, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OrganizationId
from domain.usage import UsageRecord
from gateway import meter as metering
from gateway.meter import Meter, Posting
from infra.spool import FileSpool
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

    def append(self, record: bytes) -> None:
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
        meter.record(record(1))
        await until(lambda: "r1" in stream.stored)
        await until(lambda: spool.size_bytes == 0)
    assert stream.stored["r1"].subject == "use.acme.d1"
    spool.close()


async def test_many_records_travel_in_few_batches(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    async with running(Meter(spool, stream.publish)) as meter:
        for number in range(300):
            meter.record(record(number))
        await until(lambda: len(stream.stored) == 300)
    assert stream.batches <= 10
    spool.close()


async def test_while_the_stream_is_away_records_wait_on_disk(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    stream.away = True
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(record(1))
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
        meter.record(record(1))
        await until(lambda: spool.size_bytes == 0)
    assert (stream.batches, list(stream.stored)) == (2, ["r1"])
    spool.close()


async def test_what_a_crash_left_is_published_at_the_next_start(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    Meter(spool, stream.publish).record(record(1))
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
    Meter(SpoolOfNothing(), stream.publish).record(record(1))
    again = Meter(SpoolOfNothing(), stream.publish)
    await again.flush()
    assert stream.stored == {}


async def test_an_unreadable_line_does_not_stop_the_others(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    spool.append(b"not a record")
    async with running(Meter(spool, stream.publish)) as meter:
        meter.record(record(1))
        await until(lambda: "r1" in stream.stored)
        await until(lambda: spool.size_bytes == 0)
    spool.close()


async def test_a_full_disk_stops_new_requests_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, stream = FileSpool(tmp_path), Stream()

    def full(_: bytes) -> None:
        raise OSError("no space left")

    async with running(Meter(spool, stream.publish)) as meter:
        with monkeypatch.context() as patched:
            patched.setattr(spool, "append", full)
            meter.record(record(1))
            assert not meter.accepting
        await until(lambda: meter.accepting)
        await until(lambda: "r1" in stream.stored)
    spool.close()


async def test_a_stopping_gateway_publishes_what_it_can(tmp_path: Path) -> None:
    spool, stream = FileSpool(tmp_path), Stream()
    meter = Meter(spool, stream.publish)
    meter.record(record(1))
    await meter.flush()
    assert list(stream.stored) == ["r1"]
    stream.away = True
    meter.record(record(2))
    await meter.flush()
    spool.close()
    reopened = FileSpool(tmp_path)
    assert len(reopened.oldest(10)) == 1
    reopened.close()
