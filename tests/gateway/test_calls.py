"""Calls to engines on real sockets, on both event loops: reuse, timeouts, leaving, pausing, and what is sent again."""

import asyncio
import os
import random
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import pytest

from gateway.calls import Calls
from gateway.engine_pool import COUNT_OUT_S, EngineCall, Pool
from gateway.http import UpstreamFailure
from gateway.origin import KEEPALIVE_S, OWN_KEEPALIVE_S, Origin, Timeouts, origin_of
from tests.gateway.scripted_engine import BOUND_S, Line, Script, ScriptedEngine, echo
from tests.gateway.told import Told, over, request_to, until
from tests.infra.smtp_server import own_certificate

ON_BOTH_LOOPS = True
SWEEP_S = 0.02
SOON_S = 0.2
LEAVING_LIMIT_S = 1.0
PIECE = b"x" * 65536


class Caller:
    """Calls that end with the test, and an engine to call."""

    def __init__(self, calls: Calls, origin: Origin) -> None:
        self.calls = calls
        self.origin = origin

    def begin(self, body: bytes = b'{"model": "m"}', /, **timeouts: float) -> tuple[Told, EngineCall]:
        told = Told()
        return told, self.calls.begin(self.origin, request_to(self.origin, body), told, timeouts=Timeouts(**timeouts))

    async def ask(self, body: bytes = b'{"model": "m"}', /, **timeouts: float) -> Told:
        told, _ = self.begin(body, **timeouts)
        return await over(told)


@asynccontextmanager
async def calling(
    url: str, tls: ssl.SSLContext | None = None, keepalive_s: float = OWN_KEEPALIVE_S
) -> AsyncIterator[Caller]:
    calls = Calls(now_s=time.monotonic, sweep_s=SWEEP_S, tls=tls, keepalive_s=keepalive_s)
    try:
        yield Caller(calls, origin_of(url))
    finally:
        await calls.close()
        assert calls.open_connections == 0


@asynccontextmanager
async def engine_and_caller(
    script: Script, *, keepalive_s: float = OWN_KEEPALIVE_S
) -> AsyncIterator[tuple[ScriptedEngine, Caller]]:
    async with ScriptedEngine(script) as engine, calling(engine.url, keepalive_s=keepalive_s) as caller:
        yield engine, caller


async def silent(line: Line) -> None:
    async with asyncio.timeout(BOUND_S):
        await line.left.wait()


async def head_and_silence(line: Line) -> None:
    await line.head()
    await line.send(b"first")
    await silent(line)


async def endless(line: Line) -> None:
    """A piece every few milliseconds; it does not look whether anybody left."""
    await line.head()
    async with asyncio.timeout(BOUND_S):
        while True:
            await line.send(b"x")
            await asyncio.sleep(0.005)


def connections(engine: ScriptedEngine) -> int:
    return len({line.writer.get_extra_info("peername") for line in engine.lines})


# ---- connections


async def test_an_answer_comes_and_its_connection_carries_the_next() -> None:
    async with engine_and_caller(echo) as (engine, caller):
        answers = [await caller.ask(), await caller.ask(b'{"model": "m", "stream": true}'), await caller.ask()]
        assert [(told.statuses, told.ended) for told in answers] == [([200], True)] * 3
        assert answers[1].data.endswith(b"data: [DONE]\n\n")
        assert connections(engine) == 1
        assert (caller.calls.open_connections, caller.calls.idle_connections) == (1, 1)


async def test_calls_at_once_have_connections_of_their_own_and_the_last_freed_is_used_first() -> None:
    async with engine_and_caller(echo) as (engine, caller):
        begun = [caller.begin()[0] for _ in range(20)]
        for told in begun:
            assert (await over(told)).ended
        assert (connections(engine), caller.calls.idle_connections) == (20, 20)
        first = (await caller.ask(), engine.lines[-1].writer.get_extra_info("peername"))[1]
        await caller.ask()
        assert engine.lines[-1].writer.get_extra_info("peername") == first


async def test_an_idle_connection_is_closed_before_its_engine_would() -> None:
    async with engine_and_caller(echo, keepalive_s=0.05) as (engine, caller):
        await caller.ask()
        await until(lambda: caller.calls.open_connections == 0)
        await caller.ask()
        assert connections(engine) == 2


@pytest.mark.parametrize(("foreign", "kept_s"), [(True, KEEPALIVE_S), (False, OWN_KEEPALIVE_S)])
async def test_one_too_old_is_not_used_even_when_no_sweep_came(*, foreign: bool, kept_s: float) -> None:
    async with ScriptedEngine(echo) as engine:
        now_s = 0.0
        calls = Calls(now_s=lambda: now_s, sweep_s=BOUND_S, address_allowed=lambda _origin, _address: True)
        caller = Caller(calls, origin_of(engine.url, foreign=foreign))
        await caller.ask()
        now_s += kept_s - 0.1
        await caller.ask()
        assert connections(engine) == 1
        now_s += kept_s
        await caller.ask()
        assert connections(engine) == 2
        await calls.close()


@pytest.mark.parametrize(("announced", "stays"), [("timeout=60, max=9", True), ("timeout=1", False), ("max=9", False)])
async def test_an_engine_announces_how_long_it_keeps_a_connection(announced: str, *, stays: bool) -> None:
    async def one_announces(line: Line) -> None:
        header = f"Keep-Alive: {announced}\r\n" if line.asked.json["announce"] else ""
        line.writer.write(f"HTTP/1.1 200 OK\r\n{header}content-length: 2\r\n\r\n{{}}".encode())

    async with engine_and_caller(one_announces, keepalive_s=SOON_S if stays else BOUND_S) as (engine, caller):
        for told in [caller.begin(b'{"announce": true}')[0], caller.begin(b'{"announce": false}')[0]]:
            await over(told)
        await until(lambda: caller.calls.open_connections == 1)
        await caller.ask(b'{"announce": false}')
        peers = {line.writer.get_extra_info("peername") for line in engine.lines if line.asked.json["announce"]}
        assert (engine.lines[-1].writer.get_extra_info("peername") in peers) == stays


async def test_a_connection_that_its_engine_closes_is_dropped() -> None:
    async with engine_and_caller(echo) as (engine, caller):
        await caller.ask()
        engine.lines[0].writer.close()
        await until(lambda: caller.calls.open_connections == 0)
        assert (await caller.ask()).ended


async def test_an_origin_without_connections_is_forgotten() -> None:
    async with engine_and_caller(echo, keepalive_s=0.01) as (_, caller):
        await caller.ask()
        await until(lambda: not caller.calls.origins)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://10.0.0.7:8000", ("http", "10.0.0.7", 8000, "", b"10.0.0.7:8000")),
        ("http://engine/", ("http", "engine", 80, "", b"engine")),
        ("https://Example.com/openai/", ("https", "example.com", 443, "/openai", b"example.com")),
        ("http://[::1]:8000", ("http", "::1", 8000, "", b"[::1]:8000")),
    ],
)
def test_an_address_is_read_once(url: str, expected: tuple[str, str, int, str, bytes]) -> None:
    origin = origin_of(url)
    assert (origin.scheme, origin.host, origin.port, origin.path, origin.host_header) == expected
    assert origin_of(url) is origin


@pytest.mark.parametrize("url", ["ftp://a", "http://", "10.0.0.7:8000", "http://a:99999", "http://a:b", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        origin_of(url)


# ---- connecting


async def test_a_foreign_address_that_is_not_allowed_is_not_connected_to() -> None:
    judged: list[str] = []

    def refuse(_origin: Origin, address: str) -> bool:
        judged.append(address)
        return False

    async with ScriptedEngine(echo) as engine:
        for calls in (Calls(now_s=time.monotonic), Calls(now_s=time.monotonic, address_allowed=refuse)):
            told = await Caller(calls, origin_of(engine.url, foreign=True)).ask()
            assert (told.kind, "not allowed" in str(told.failure)) == ("unreachable", True)
            await calls.close()
        assert (judged, engine.lines) == (["127.0.0.1"], [])


async def test_a_connection_of_ours_is_not_lent_to_a_foreign_upstream() -> None:
    async with ScriptedEngine(echo) as engine:
        calls = Calls(now_s=time.monotonic, address_allowed=lambda _origin, _address: True)
        for foreign in (False, True):
            assert (await Caller(calls, origin_of(engine.url, foreign=foreign)).ask()).ended
        assert connections(engine) == 2
        await calls.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def deaf_port() -> Iterator[int]:
    """Its queue is full, so that nobody who connects is answered."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


async def test_nobody_listening_is_unreachable() -> None:
    async with calling(f"http://127.0.0.1:{closed_port()}") as caller:
        told = await caller.ask()
        assert (told.kind, told.statuses) == ("unreachable", [])
        assert "ConnectionRefused" in str(told.failure)


async def test_nobody_accepting_is_unreachable_in_time() -> None:
    with deaf_port() as port:
        async with calling(f"http://127.0.0.1:{port}") as caller:
            began_s = time.monotonic()
            told = await caller.ask(connect_s=SOON_S)
            assert (told.kind, told.has_heard) == ("unreachable", True)
            assert SOON_S <= time.monotonic() - began_s < SOON_S + 1


async def test_a_name_that_nobody_has_is_unreachable() -> None:
    async with calling("http://no-such-host.invalid:8000") as caller:
        assert (await caller.ask()).kind == "unreachable"


async def test_no_file_descriptor_left_is_told_clearly() -> None:
    async with engine_and_caller(echo) as (_, caller):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            told = await caller.ask()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (told.kind, "Too many open files" in str(told.failure)) == ("unreachable", True)
        assert (await caller.ask()).ended


async def test_a_call_is_left_while_it_connects() -> None:
    with deaf_port() as port:
        async with calling(f"http://127.0.0.1:{port}") as caller:
            told, call = caller.begin(connect_s=SOON_S)
            await asyncio.sleep(0)
            call.leave()
            await until(lambda: not caller.calls.origins)
            assert not told.has_heard


async def test_a_client_that_leaves_while_the_call_connects_ends_it() -> None:
    with deaf_port() as port:
        async with calling(f"http://127.0.0.1:{port}") as caller:
            told, call = caller.begin()
            call.count_out()
            assert told.kind == "unreachable"


async def test_https_engines_are_checked_and_served(tmp_path: Path) -> None:
    serving, path = own_certificate(tmp_path)
    async with ScriptedEngine(echo, tls=serving) as engine:
        async with calling(engine.url, ssl.create_default_context(cafile=path)) as caller:
            assert (await caller.ask()).ended
            assert (await caller.ask(b'{"model": "m", "stream": true}')).ended
            assert connections(engine) == 1
        async with calling(engine.url) as stranger:
            told = await stranger.ask()
            assert (told.kind, "SSLCertVerificationError" in str(told.failure)) == ("unreachable", True)


# ---- sent once more


def dies_when_reused(dying: int, *, with_a_byte: bool = False) -> Script:
    """Answers the first request of all; drops the `dying` ones that come next, whatever connection they come on."""

    async def script(line: Line) -> None:
        if 1 <= line.nth <= dying:
            if with_a_byte:
                line.writer.write(b"H")
                await line.writer.drain()
            line.cut()
        else:
            await echo(line)

    return script


async def test_a_request_on_a_reused_connection_that_dies_is_sent_once_more() -> None:
    async with engine_and_caller(dies_when_reused(1)) as (engine, caller):
        await caller.ask()
        told = await caller.ask(b'{"model": "again"}')
        assert (told.statuses, told.ended, told.failure) == ([200], True, None)
        assert [line.asked.json["model"] for line in engine.lines] == ["m", "again", "again"]


async def test_without_that_it_would_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_again(_pool: Pool, carried: EngineCall, failure: UpstreamFailure, *, unheard: bool) -> None:
        assert unheard
        carried.answering.answer_failed(failure)

    monkeypatch.setattr(Pool, "broke", not_again)
    async with engine_and_caller(dies_when_reused(1)) as (_, caller):
        await caller.ask()
        assert (await caller.ask()).kind == "dropped"


async def test_it_is_sent_no_third_time() -> None:
    async with engine_and_caller(dies_when_reused(2)) as (engine, caller):
        await caller.ask()
        assert (await caller.ask()).kind == "dropped"
        assert len(engine.lines) == 3


async def test_a_request_whose_answer_had_begun_is_not_sent_again() -> None:
    async with engine_and_caller(dies_when_reused(1, with_a_byte=True)) as (engine, caller):
        await caller.ask()
        assert (await caller.ask()).kind == "dropped"
        assert len(engine.lines) == 2


async def test_a_request_on_a_fresh_connection_is_not_sent_again() -> None:
    async def dead(line: Line) -> None:
        line.cut()

    async with engine_and_caller(dead) as (engine, caller):
        assert (await caller.ask()).kind == "dropped"
        assert len(engine.lines) == 1


async def test_an_engine_that_closes_idle_connections_at_random_fails_nobody() -> None:
    """The race itself: it closes right after each answer, while the next request may be on its way."""

    async def closes_soon(line: Line) -> None:
        await echo(line)
        if line.nth % 3:
            asyncio.get_running_loop().call_later(0.0005 * (line.nth % 5), line.writer.transport.abort)

    async with engine_and_caller(closes_soon) as (_, caller):

        async def ask_often() -> list[Told]:
            return [await caller.ask() for _ in range(30)]

        answers = [told for asked in await asyncio.gather(*(ask_often() for _ in range(4))) for told in asked]
        broken_within = [told for told in answers if told.failure is not None and told.statuses]
        assert [told.failure for told in answers if told.failure is not None and not told.statuses] == []
        assert len(broken_within) < len(answers) / 4


# ---- timeouts


@pytest.mark.parametrize(
    ("script", "timeouts", "data"),
    [
        (silent, {"first_byte_s": SOON_S}, b""),
        (head_and_silence, {"idle_s": SOON_S}, b"first"),
        (silent, {"total_s": SOON_S}, b""),
    ],
    ids=["first byte", "idle", "total"],
)
async def test_an_engine_that_keeps_silent_is_left_in_time(
    script: Script, timeouts: dict[str, float], data: bytes
) -> None:
    async with engine_and_caller(script) as (engine, caller):
        began_s = time.monotonic()
        told = await caller.ask(**timeouts)
        assert (told.kind, told.data) == ("silent", data)
        assert SOON_S <= time.monotonic() - began_s < SOON_S + 1
        async with asyncio.timeout(LEAVING_LIMIT_S):
            await engine.lines[0].left.wait()


async def test_a_stream_that_never_ends_is_left_in_time() -> None:
    async with engine_and_caller(endless) as (_, caller):
        told = await caller.ask(total_s=SOON_S)
        assert (told.kind, len(told.data) > 3, set(told.data)) == ("silent", True, set(b"x"))


async def test_an_engine_that_speaks_now_and_then_is_not_silent() -> None:
    async def slow(line: Line) -> None:
        await line.head()
        for _ in range(8):
            await asyncio.sleep(SOON_S / 4)
            await line.send(b"x")
        await line.end()

    async with engine_and_caller(slow) as (_, caller):
        assert (await caller.ask(idle_s=SOON_S, first_byte_s=SOON_S)).ended


async def test_a_paused_call_is_not_silent() -> None:
    async def first_speaks(line: Line) -> None:
        await (endless(line) if line.asked.json["speak"] else head_and_silence(line))

    async with engine_and_caller(first_speaks) as (_, caller):
        told, call = caller.begin(b'{"speak": true}', idle_s=SOON_S)
        await until(lambda: bool(told.pieces))
        call.pause()
        heard = len(told.data)
        assert (await caller.ask(b'{"speak": false}', idle_s=SOON_S)).kind == "silent"
        assert (told.failure, len(told.data)) == (None, heard)
        call.resume()
        await until(lambda: len(told.data) > heard)
        call.leave()


# ---- leaving


async def test_an_engine_sees_a_leaving_caller_at_once_and_nothing_more_is_told() -> None:
    async with engine_and_caller(endless) as (engine, caller):
        told, call = caller.begin()
        await until(lambda: bool(told.pieces))
        call.leave()
        heard = len(told.pieces)
        async with asyncio.timeout(LEAVING_LIMIT_S):
            await engine.lines[0].left.wait()
        assert (len(told.pieces), told.over.is_set(), caller.calls.open_connections) == (heard, False, 0)


async def test_leaving_and_the_rest_after_the_end_do_nothing() -> None:
    async with engine_and_caller(echo) as (engine, caller):
        told, call = caller.begin()
        await over(told)
        following, _ = caller.begin()
        call.pause()
        call.resume()
        call.count_out()
        call.leave()
        assert (await over(following)).ended
        assert (connections(engine), told.failure) == (1, None)


async def test_everything_is_closed_at_the_end_and_told_to_nobody() -> None:
    async with engine_and_caller(endless) as (_, caller):
        told, _ = caller.begin()
        await until(lambda: bool(told.pieces))
        connecting, _ = caller.begin()
        await caller.calls.close()
        assert (told.over.is_set(), connecting.has_heard, caller.calls.open_connections) == (False, False, 0)


# ---- the client left: what the engine had sent is still counted


async def test_an_engine_that_does_not_react_to_a_half_close_is_cut() -> None:
    async with engine_and_caller(endless) as (engine, caller):
        told, call = caller.begin()
        await until(lambda: bool(told.pieces))
        heard, began_s = len(told.data), time.monotonic()
        call.count_out()
        async with asyncio.timeout(LEAVING_LIMIT_S):
            await engine.lines[0].left.wait()
        await over(told)
        assert COUNT_OUT_S <= time.monotonic() - began_s < COUNT_OUT_S + 1
        assert (told.kind, len(told.data) > heard) == ("silent", True)


async def test_an_engine_that_finishes_after_a_half_close_is_heard_to_its_end() -> None:
    async def last_words(line: Line) -> None:
        await line.head()
        await line.send(b"first")
        await silent(line)
        await line.send(b"last")
        await line.end()

    async with engine_and_caller(last_words) as (_, caller):
        told, call = caller.begin()
        await until(lambda: bool(told.pieces))
        call.pause()
        call.count_out()
        call.pause()
        await over(told)
        assert (told.data, told.ended, caller.calls.idle_connections) == (b"firstlast", True, 0)


async def test_a_reused_connection_that_dies_after_its_client_left_is_not_tried_again() -> None:
    async def second_is_silent(line: Line) -> None:
        await (silent(line) if line.nth else echo(line))

    async with engine_and_caller(second_is_silent) as (engine, caller):
        await caller.ask()
        told, call = caller.begin()
        await until(lambda: len(engine.lines) == 2)
        call.count_out()
        assert (await over(told)).kind == "dropped"
        assert len(engine.lines) == 2


async def test_over_tls_counting_out_ends_at_the_bound(tmp_path: Path) -> None:
    serving, path = own_certificate(tmp_path)
    async with (
        ScriptedEngine(endless, tls=serving) as engine,
        calling(engine.url, ssl.create_default_context(cafile=path)) as caller,
    ):
        told, call = caller.begin()
        await until(lambda: bool(told.pieces))
        call.count_out()
        await over(told)
        assert told.kind == "silent"
        async with asyncio.timeout(LEAVING_LIMIT_S):
            await engine.lines[0].left.wait()


# ---- pausing


def floods(total: int) -> Script:
    async def script(line: Line) -> None:
        await line.head(length=total * len(PIECE))
        for _ in range(total):
            await line.send(PIECE)

    return script


def is_stuck(line: Line) -> Callable[[], bool]:
    """Holds once the engine's writing has not moved for a while."""
    seen = [(-1, 0.0)]

    def stuck() -> bool:
        now_s = time.monotonic()
        if line.sent_bytes != seen[0][0]:
            seen[0] = (line.sent_bytes, now_s)
        return line.writer.transport.get_write_buffer_size() > 0 and now_s - seen[0][1] > SOON_S

    return stuck


async def test_a_paused_call_makes_its_engine_wait_and_a_resumed_one_loses_nothing() -> None:
    pieces = 1024
    async with engine_and_caller(floods(pieces)) as (engine, caller):
        told, call = caller.begin()
        await until(lambda: bool(told.pieces))
        call.pause()
        await until(is_stuck(engine.lines[0]))
        heard = len(told.data)
        assert engine.lines[0].sent_bytes < pieces * len(PIECE) / 2
        call.resume()
        await over(told)
        assert (told.ended, heard < pieces * len(PIECE) / 2, len(told.data)) == (True, True, pieces * len(PIECE))


async def test_a_call_paused_while_it_connects_reads_nothing_until_it_is_resumed() -> None:
    async with engine_and_caller(echo) as (engine, caller):
        told, call = caller.begin()
        call.pause()
        await until(lambda: bool(engine.lines and engine.lines[0].sent_bytes))
        assert (await caller.ask()).ended
        assert not told.has_heard
        call.resume()
        assert (await over(told)).ended


# ---- everything at once


def sockets() -> int:
    """How many this process has open, the engine's included."""
    return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir())


async def acts_at_random(caller: Caller, draw: random.Random) -> None:
    """One call, and what a client may do to it at any moment."""
    told, call = caller.begin(draw.choice([b'{"model": "m"}', b'{"model": "m", "stream": true}']))
    for _ in range(draw.randrange(6)):
        for _ in range(draw.randrange(8)):
            await asyncio.sleep(0)
        act = draw.choice([call.pause, call.resume, call.resume, call.count_out, call.leave])
        heard = told.has_heard
        act()
        if act == call.leave:
            heard = told.has_heard
            await asyncio.sleep(0)
            assert told.has_heard == heard
            return
    call.resume()
    await over(told)


@pytest.mark.parametrize("with_tls", [False, True])
async def test_whatever_clients_do_and_when_no_call_hangs_and_no_socket_stays(
    tmp_path: Path, *, with_tls: bool
) -> None:
    serving, path = own_certificate(tmp_path)
    draw = random.Random(7)
    async with ScriptedEngine(echo, tls=serving if with_tls else None) as engine:
        before = sockets()
        async with calling(engine.url, ssl.create_default_context(cafile=path)) as caller:
            for _ in range(10):
                await asyncio.gather(*(acts_at_random(caller, draw) for _ in range(20)))
            await until(lambda: caller.calls.open_connections == caller.calls.idle_connections)
        await until(lambda: sockets() == before)


# ---- engines that answer out of turn


class EarlyEngine(asyncio.Protocol):
    """Refuses on seeing a head, and goes on reading, as a server must, or its answer might be lost."""

    def __init__(self, gone: asyncio.Event, *, closes: bool) -> None:
        self._gone = gone
        self._closes = closes
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in self._head:
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            close = b"connection: close\r\n" if self._closes else b""
            self._transport.write(b"HTTP/1.1 413 Too Large\r\n" + close + b"content-length: 7\r\n\r\ntoo big")
            if self._closes:
                self._transport.write_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._gone.set()


@asynccontextmanager
async def early_engine(*, closes: bool) -> AsyncIterator[str]:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: EarlyEngine(gone, closes=closes), "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(BOUND_S):
            await gone.wait()


@pytest.mark.parametrize("closes", [True, False])
async def test_an_answer_before_the_whole_request_was_read_is_told_and_its_connection_closed(*, closes: bool) -> None:
    async with early_engine(closes=closes) as url, calling(url) as caller:
        told = await caller.ask(b"x" * (32 << 20))
        assert (told.statuses, told.data, told.ended) == ([413], b"too big", True)
        assert caller.calls.idle_connections == 0
