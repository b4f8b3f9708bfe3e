"""A line for each request: what is in it, what never is, and what happens when nobody takes the lines."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway import access_log
from gateway.access_log import MAX_BUFFERED_BYTES, AccessLog
from gateway.metrics import Metrics
from gateway.watch import Watching
from tests.gateway.records import account, record
from tests.gateway.told import until
from tests.given import NOON

TRACE = "a" * 32


class Sink:
    """Keeps each write; `broken` fails it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.broken = False

    def __call__(self, lines: bytes) -> None:
        if self.broken:
            raise OSError("no space left")
        self.writes.append(lines)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in b"".join(self.writes).splitlines()]


def logged(write: Callable[[bytes], None]) -> AccessLog:
    return AccessLog(write, now=lambda: NOON)


async def test_a_line_has_ids_status_tokens_and_times() -> None:
    sink = Sink()
    told = logged(sink)
    told.finished(record(status_code=502, outcome="upstream_failed", attempts=2), TRACE)
    await told.flush()
    assert sink.lines == [
        {
            "at": "2026-11-21T12:00:00Z",
            "request_id": "r1",
            "trace_id": TRACE,
            "organization_id": record().organization_id,
            "api_key_id": "k1",
            "deployment_id": record().deployment_id,
            "instance_id": "i1",
            "model": record().model_code,
            "endpoint": "/v1/chat/completions",
            "streamed": True,
            "status": 502,
            "outcome": "upstream_failed",
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "cached_tokens": 16,
            "attempts": 2,
            "queue_ms": 0.0,
            "ttft_ms": 30.0,
            "duration_ms": 400.0,
        }
    ]


async def test_a_refusal_has_its_code() -> None:
    sink = Sink()
    told = logged(sink)
    told.refused("rate_limit_exceeded", 429, request_id="r2", trace_id=TRACE)
    await told.flush()
    (line,) = sink.lines
    assert (line["refused"], line["status"], line["request_id"]) == ("rate_limit_exceeded", 429, "r2")


async def test_no_line_holds_what_an_engine_or_a_client_wrote_freely() -> None:
    """Neither does the record hold a prompt, an answer or a key; what an engine fills in as it likes stays out too."""
    sink = Sink()
    told = logged(sink)
    told.finished(record(finish_reason="the answer"), TRACE)
    await told.flush()
    assert b"answer" not in sink.writes[0]
    free = {"prompt", "messages", "content", "answer", "body", "key", "api_key", "secret", "authorization", "address"}
    assert not free & set(access_log._Finished.__struct_fields__)
    assert not free & set(access_log._Refused.__struct_fields__)


async def test_many_lines_are_one_write() -> None:
    sink = Sink()
    told = logged(sink)
    for number in range(100):
        told.finished(record(request_id=f"r{number}"), TRACE)
    await told.flush()
    await told.flush()
    assert [line["request_id"] for line in sink.lines] == [f"r{number}" for number in range(100)]
    assert len(sink.writes) == 1


async def test_nothing_told_is_nothing_written() -> None:
    sink = Sink()
    await logged(sink).flush()
    assert sink.writes == []


async def test_lines_leave_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "FLUSH_INTERVAL_S", 0.01)
    sink = Sink()
    told = logged(sink)
    run = asyncio.create_task(told.run())
    told.finished(record(), TRACE)
    await until(lambda: len(sink.lines) == 1)
    told.refused("no_ready_worker", 503)
    await until(lambda: len(sink.lines) == 2)
    run.cancel()


async def test_a_writer_that_hangs_holds_up_nobody_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MAX_BUFFERED_BYTES", 10_000)
    sink, go, began = Sink(), threading.Event(), threading.Event()

    def hang(lines: bytes) -> None:
        began.set()
        assert go.wait(10)
        sink(lines)

    told = logged(hang)
    told.finished(record(), TRACE)
    flushing = asyncio.create_task(told.flush())
    await until(began.is_set)
    for _ in range(1000):
        told.finished(record(), TRACE)
    assert told._buffered_bytes < 11_000
    assert told.dropped_lines > 900
    go.set()
    await flushing
    await told.flush()
    await told.flush()
    kept = sum("outcome" in line for line in sink.lines)
    (dropped,) = [line["dropped_lines"] for line in sink.lines if "dropped_lines" in line]
    assert (kept + dropped, dropped) == (1001, told.dropped_lines)
    told.finished(record(), TRACE)
    assert len(told._lines) == 1, "there is room again"


async def test_lines_that_could_not_be_written_are_told_of_later() -> None:
    sink = Sink()
    told = logged(sink)
    sink.broken = True
    told.finished(record(), TRACE)
    told.finished(record(), TRACE)
    await told.flush()
    sink.broken = False
    await told.flush()
    assert [line["dropped_lines"] for line in sink.lines] == [2]
    assert told.dropped_lines == 2


def test_the_bound_is_some_seconds_of_a_busy_gateway() -> None:
    told = logged(lambda _: None)
    told.finished(record(), TRACE)
    assert MAX_BUFFERED_BYTES / len(told._lines[0]) > 10_000


# ---- who is told what


async def test_what_is_watched_is_counted_and_written_down() -> None:
    sink = Sink()
    log, metrics = logged(sink), Metrics()
    watch = Watching(metrics=metrics, access_log=log)
    watch.finished(account())
    watch.refused("no_ready_worker", 503, request_id="r2")
    watch.refused("upstream_timeout", 504, booked=True)
    watch.retried()
    await log.flush()
    assert [line.get("refused", line.get("outcome")) for line in sink.lines] == ["completed", "no_ready_worker"]
    text = metrics.render()[1].decode()
    assert 'inventiv_gateway_refusals_total{code="upstream_timeout",status="504"} 1.0' in text
    assert "inventiv_gateway_retries_total 1.0" in text


def test_without_an_access_log_all_is_counted_still() -> None:
    watch = Watching(metrics=Metrics())
    watch.finished(account())
    watch.refused("no_ready_worker", 503)
    assert b'code="no_ready_worker"' in watch.metrics.render()[1]
