"""An engine's bytes, however the network cuts them, are told as the same answer; what is not HTTP is told as that."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine_connection import MAX_DRY_BYTES, EngineConnection
from gateway.http import Answering, UpstreamFailure
from gateway.outbox import Outbox
from tests.gateway.told import Told
from tests.gateway.turns import at_once

REQUEST = [b"POST / HTTP/1.1\r\n\r\n"]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 5\r\n\r\nhello"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = STREAM_HEAD + chunk(b"data: a\n\n") + chunk(b"data: b\n\n") + b"0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


@dataclass
class Wire:
    """A transport that remembers what was done to it."""

    written: list[bytes] = field(default_factory=list)
    unsent_bytes: int = 0
    reading: bool = True
    half_closed: bool = False
    aborted: bool = False

    def write(self, piece: bytes) -> None:
        self.written.append(piece)

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += pieces

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def abort(self) -> None:
        self.aborted = True


@dataclass(eq=False)
class Carried:
    answering: Answering
    request: Sequence[bytes]
    connection: EngineConnection[Any] | None = None
    paused: bool = False


@dataclass
class Bench:
    """A connection between a wire and a keeper, carrying one call."""

    free: int = 0
    unusable_told: int = 0
    unheard: bool = False

    def __post_init__(self) -> None:
        self.wire = Wire()
        self.connection = EngineConnection(self, Outbox(at_once))
        self.connection.connection_made(cast("asyncio.Transport", self.wire))
        self.told = self.call()

    def call(self) -> Told:
        told = Told()
        self.carried = Carried(told, REQUEST)
        self.connection.carry(self.carried)
        return told

    def reads(self, *reads: bytes) -> Told:
        for read in reads:
            self.connection.data_received(read)
        return self.told

    def came_free(self, connection: EngineConnection[Carried]) -> None:
        assert connection.carried is None
        self.free += 1

    def unusable(self, connection: EngineConnection[Carried]) -> None:
        assert connection.carried is None
        self.unusable_told += 1

    def broke(self, carried: Carried, failure: UpstreamFailure, *, unheard: bool) -> None:
        self.unheard = unheard
        carried.answering.answer_failed(failure)

    def gone(self, connection: EngineConnection[Carried]) -> None: ...


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_request_is_written_as_it_is(bench: Bench) -> None:
    assert bench.wire.written == REQUEST


def test_an_answer_in_one_read_is_told_head_first_and_then_all_at_once(bench: Bench) -> None:
    told = bench.reads(PLAIN)
    assert (told.statuses, told.pieces, told.ended) == ([200], [b"hello"], True)
    assert list(told.headers) == [(b"content-type", b"application/json"), (b"content-length", b"5")]


def test_a_stream_is_told_read_by_read_however_many_chunks_one_brings(bench: Bench) -> None:
    many = [b"data: %d\n\n" % number for number in range(500)]
    told = bench.reads(STREAM_HEAD, chunk(b"one"), b"".join(map(chunk, many)), b"0\r\n\r\n")
    assert told.pieces == [b"one", b"".join(many), b""]
    assert told.ended


@pytest.mark.parametrize("answer", [PLAIN, STREAM, INTERIM + PLAIN, INTERIM + STREAM])
def test_the_connection_is_free_again_before_the_end_is_told(bench: Bench, answer: bytes) -> None:
    free_at_the_end: list[int] = []
    bench.told.then = lambda told: free_at_the_end.append(bench.free) if told.ended else None
    bench.reads(answer)
    assert free_at_the_end == [1]
    assert not bench.wire.aborted


ANSWERS = {
    "plain": (PLAIN, b"hello"),
    "stream": (STREAM, b"data: a\n\ndata: b\n\n"),
    "until close": (UNTIL_CLOSE, b"hello"),
    "interim": (INTERIM + STREAM, b"data: a\n\ndata: b\n\n"),
    "trailers": (STREAM_HEAD + chunk(b"x") + b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", b"x"),
    "extensions": (STREAM_HEAD + b"3;name=value\r\nabc\r\n0\r\n\r\n", b"abc"),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(min_value=0, max_value=200), max_size=12))
@settings(deadline=None)
def test_however_the_bytes_are_cut_the_answer_is_the_same(name: str, cuts: list[int]) -> None:
    answer, data = ANSWERS[name]
    bench = Bench()
    told = bench.told
    places = sorted({0, *(min(cut, len(answer)) for cut in cuts), len(answer)})
    bench.reads(*(answer[start:stop] for start, stop in pairwise(places)))
    if name == "until close":
        bench.connection.eof_received()
    assert (told.data, told.ended, told.failure) == (data, True, None)
    assert len(told.statuses) == 1
    assert not any(name == b"x-sum" for name, _ in told.headers)


@given(st.binary(max_size=400), st.booleans())
@settings(deadline=None)
def test_no_bytes_whatever_break_the_order_of_telling(data: bytes, after_head: bool) -> None:
    bench = Bench()
    told = bench.reads(STREAM_HEAD) if after_head else bench.told
    bench.reads(data, data)
    bench.connection.eof_received()
    bench.connection.connection_lost(None)
    assert told.ended or told.kind in {"malformed", "dropped"}


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_what_is_not_http_is_told_as_malformed(bench: Bench, answer: bytes) -> None:
    told = bench.reads(answer)
    assert (told.kind, told.statuses) == ("malformed", [])
    assert bench.wire.aborted


def test_the_failure_shows_nothing_of_what_came(bench: Bench) -> None:
    assert "sk-secret" not in str(bench.reads(b"HTTP/1.1 200 OK\r\nsk-secret \x01: sk-secret\r\n\r\n").failure)


def test_what_came_before_the_malformed_part_is_told(bench: Bench) -> None:
    told = bench.reads(STREAM_HEAD + chunk(b"good"), chunk(b"too") + b"zz\r\nbad")
    assert (told.data, told.kind) == (b"goodtoo", "malformed")


@pytest.mark.parametrize("opening", [b"HTTP/1.1 200 OK\r\nx: ", INTERIM, STREAM_HEAD + chunk(b"x") + b"0\r\nx: "])
def test_a_head_or_trailer_without_end_is_cut_off(bench: Bench, opening: bytes) -> None:
    told = bench.reads(opening)
    line = b"HTTP/1.1 100 Continue\r\n\r\n" * 100 if opening == INTERIM else b"y" * 4096
    reads = 0
    while not told.over.is_set():
        bench.reads(line)
        reads += 1
        assert reads * len(line) <= MAX_DRY_BYTES + 2 * len(line)
    assert told.kind == "malformed"


def test_a_long_stream_of_cut_chunks_is_no_head_without_end(bench: Bench) -> None:
    told = bench.reads(STREAM_HEAD)
    for _ in range(MAX_DRY_BYTES):
        bench.reads(b"1\r", b"\nx\r\n")
    assert (len(told.data), told.failure) == (MAX_DRY_BYTES, None)


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"H", b"garbage"])
@pytest.mark.parametrize("answer", [PLAIN, STREAM])
def test_bytes_after_the_end_are_told_to_nobody_and_close_the_connection(
    bench: Bench, answer: bytes, after: bytes
) -> None:
    told = bench.reads(answer + after)
    assert (told.ended, told.statuses) == (True, [200])
    assert not told.data.endswith(b"x")
    assert (bench.free, bench.wire.aborted) == (0, True)


SHORTER = PLAIN.replace(b"5", b"2").replace(b"hello", b"no")


@pytest.mark.parametrize(
    "next_one", [PLAIN, SHORTER, STREAM, INTERIM + PLAIN, UNTIL_CLOSE, PLAIN.replace(b"200", b"400")]
)
@pytest.mark.parametrize("cut", [None, 1, 20, -3])
def test_an_answer_is_read_the_same_after_one_with_its_head(bench: Bench, next_one: bytes, cut: int | None) -> None:
    fresh, known = Bench(), bench
    known.reads(PLAIN)
    known.told = known.call()
    for one in (fresh, known):
        one.reads(*filter(None, [next_one[:cut], next_one[cut:] if cut else b""]))
    assert (known.told.statuses, known.told.data, known.told.ended) == (
        fresh.told.statuses,
        fresh.told.data,
        fresh.told.ended,
    )
    assert known.told.data
    assert (known.free - 1, known.wire.aborted) == (fresh.free, fresh.wire.aborted)


@pytest.mark.parametrize("more", [b"x", PLAIN])
def test_a_known_head_with_more_than_its_body_closes_the_connection(bench: Bench, more: bytes) -> None:
    bench.reads(PLAIN)
    told = bench.call()
    bench.reads(PLAIN + more)
    assert (told.data, told.ended) == (b"hello", True)
    assert (bench.free, bench.wire.aborted) == (1, True)


@pytest.mark.parametrize("unasked", [PLAIN, b"H", b"\r\n"])
def test_bytes_on_an_idle_connection_close_it(bench: Bench, unasked: bytes) -> None:
    bench.reads(PLAIN)
    bench.reads(unasked)
    assert (bench.unusable_told, bench.wire.aborted) == (1, True)


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_an_engine_that_wants_to_close_is_left(bench: Bench, answer: bytes) -> None:
    told = bench.reads(answer)
    assert (told.data, told.ended) == (b"hello", True)
    assert (bench.free, bench.wire.aborted) == (0, True)


def test_an_answer_before_the_request_was_sent_closes_the_connection(bench: Bench) -> None:
    bench.wire.unsent_bytes = 1
    told = bench.reads(PLAIN)
    assert told.ended
    assert (bench.free, bench.wire.aborted) == (0, True)


def test_an_answer_that_ends_with_the_connection_is_whole(bench: Bench) -> None:
    told = bench.reads(UNTIL_CLOSE)
    assert not told.ended
    bench.connection.eof_received()
    assert (told.data, told.ended) == (b"hello", True)


def test_one_that_dies_instead_is_not_whole(bench: Bench) -> None:
    told = bench.reads(UNTIL_CLOSE)
    bench.connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    assert (told.ended, told.kind) == (False, "dropped")


@pytest.mark.parametrize("answer", [PLAIN[:-1], STREAM[:-2], STREAM_HEAD, PLAIN[:20], b""])
def test_half_an_answer_is_dropped(bench: Bench, answer: bytes) -> None:
    told = bench.reads(answer) if answer else bench.told
    bench.connection.eof_received()
    assert (told.ended, told.kind) == (False, "dropped")


def test_only_a_reused_connection_without_a_byte_of_an_answer_was_unheard(bench: Bench) -> None:
    bench.connection.eof_received()
    first = bench.unheard
    reused = Bench()
    reused.reads(PLAIN)
    reused.call()
    reused.connection.eof_received()
    heard = Bench()
    heard.reads(PLAIN)
    heard.call()
    heard.reads(INTERIM)
    heard.connection.eof_received()
    assert (first, reused.unheard, heard.unheard) == (False, True, False)


def test_who_leaves_on_seeing_the_head_is_told_nothing_more(bench: Bench) -> None:
    told = bench.told
    told.then = lambda _: bench.connection.close()
    bench.reads(PLAIN)
    assert (told.statuses, told.pieces, told.ended) == ([200], [], False)
    assert bench.wire.aborted


def test_who_leaves_on_seeing_data_is_told_nothing_more(bench: Bench) -> None:
    told = bench.reads(STREAM_HEAD)
    told.then = lambda _: bench.connection.close()
    bench.reads(chunk(b"one"), chunk(b"two"))
    bench.connection.connection_lost(None)
    assert (told.pieces, told.failure) == ([b"one"], None)


def test_the_next_request_may_begin_within_the_telling_of_an_end(bench: Bench) -> None:
    later: list[Told] = []
    bench.told.then = lambda told: later.append(bench.call()) if told.ended else None
    bench.reads(STREAM, PLAIN)
    assert [told.data for told in later] == [b"hello"]


def test_a_connection_paused_at_its_end_reads_again(bench: Bench) -> None:
    bench.carried.paused = True
    bench.connection.pause()
    bench.reads(PLAIN)
    assert bench.wire.reading


def test_after_a_half_close_nothing_is_asked_again(bench: Bench) -> None:
    bench.connection.half_close()
    told = bench.reads(STREAM)
    assert told.ended
    assert (bench.wire.half_closed, bench.free, bench.wire.aborted) == (True, 0, True)


def test_the_first_answers_announcement_is_remembered(bench: Bench) -> None:
    bench.reads(PLAIN.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=7\r\n\r\n"))
    assert bench.connection.announced == b"timeout=7"
