"""A client's connection on a real socket: order, early requests, refusals, leaving, and mistakes of the application."""

import asyncio
import socket
import time
from typing import Any

import pytest

from gateway.client_connection import ClientConnection
from gateway.http import Headers, Reply
from gateway.wire import Refusal
from tests.gateway.raw_client import RawClient, raw_client
from tests.gateway.scripted_application import MAX_BODY_BYTES, ScriptedApplication, held_by, post, serving, until

ON_BOTH_LOOPS = True
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT: Headers = ((b"content-type", b"text/plain"),)


# one after the other


async def test_a_connection_serves_one_request_after_the_other() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        for nth in range(3):
            await client.send(post(1, b"%d" % nth))
            assert (await client.reply()).body == b"POST %d" % nth
        assert server.server.open_connections == 1


async def test_a_request_that_comes_early_waits_for_the_one_before() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER + post(3, b"abc"), post(3, b"def"), GET)
        held = await held_by(application)
        await until(lambda: server.server.open_requests == 1)
        assert len(application.answered) == 1
        held.reply.whole(200, TEXT, b"first")
        bodies = [(await client.reply()).body for _ in range(4)]
        assert bodies == [b"first", b"POST abc", b"POST def", b"GET "]
        assert [path for _, path, _ in application.answered] == ["/later", "/a", "/a", "/a"]


async def test_a_body_that_comes_early_waits_for_its_turn_to_be_let_in() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER + post(3, extra=b"expect: 100-continue\r\n"))
        held = await held_by(application)
        assert application.admitted == ["/later"]
        held.reply.whole(200, TEXT, b"first")
        await client.reply()
        assert (await client.reply()).status == 100
        await client.send(b"abc")
        assert (await client.reply()).body == b"POST abc"


async def test_no_more_than_a_bound_is_read_of_what_comes_early() -> None:
    application = ScriptedApplication()
    bodies = [bytes([nth]) * 60_000 for nth in range(40)]
    async with serving(application, early_bytes=1000) as server, raw_client(server.port) as client:
        sending = asyncio.ensure_future(client.send(LATER, *[post(len(body), body) for body in bodies]))
        held = await held_by(application)
        [connection] = server.server._shared.connections
        assert isinstance(connection, ClientConnection)
        await until(lambda: len(connection._early) > 1000)
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert len(connection._early) <= 1000 + 256 * 1024  # the bound and what one read brings
        held.reply.whole(200, TEXT, b"first")
        await client.reply()
        for body in bodies:
            assert (await client.reply()).body == b"POST " + body
        await sending


async def test_an_answer_given_within_the_call_is_in_order_too() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(b"".join(post(1, b"%d" % nth) for nth in range(10)))
        assert [(await client.reply()).body for _ in range(10)] == [b"POST %d" % nth for nth in range(10)]


# refused


async def test_a_client_is_told_to_go_on_only_after_its_key_was_looked_at() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, extra=b"expect: 100-continue\r\n"))
        assert (await client.reply()).status == 100
        assert (application.admitted, application.answered) == (["/a"], [])
        await client.send(b"abc")
        assert (await client.reply()).body == b"POST abc"
        assert application.admitted == ["/a"]  # once


async def test_a_client_that_is_refused_is_not_told_to_go_on() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, path=b"/unwelcome", extra=b"expect: 100-continue\r\n"))
        assert [answer.status for answer in await client.replies_until_closed()] == [401]


async def test_a_client_that_did_not_wait_is_not_told_to_go_on() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, b"abc", extra=b"expect: 100-continue\r\n"))
        assert (await client.reply()).status == 200


async def test_a_client_that_began_its_body_is_not_told_to_go_on() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, b"a", extra=b"expect: 100-continue\r\n"))
        await until(lambda: application.admitted == ["/a"])
        await client.send(b"bc")
        assert (await client.reply()).status == 200


@pytest.mark.parametrize("path", [b"/unwelcome", b"/wrong"])
async def test_a_request_that_was_read_and_refused_leaves_the_connection_open(path: bytes) -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, b"abc", path=path))
        assert (await client.reply()).status in {400, 401}
        await client.send(GET)
        assert (await client.reply()).status == 200


async def test_a_client_in_the_midst_of_its_body_can_read_why_it_is_refused() -> None:
    application = ScriptedApplication()
    pieces = [b"x" * 65536] * 100
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(sum(map(len, pieces)), path=b"/unwelcome"))
        await until(lambda: application.refused == ["unwelcome"])
        assert await client.send(*pieces)  # all was taken: no reset overtakes the refusal
        [answer] = await client.replies_until_closed()
        assert (answer.status, answer.header(b"connection")) == (401, b"close")
        assert application.answered == []


async def test_who_goes_on_sending_after_a_refusal_is_cut_off() -> None:
    application = ScriptedApplication()
    async with serving(application, linger_bytes=100_000) as server, raw_client(server.port) as client:
        await client.send(post(10**6, path=b"/unwelcome"))
        await client.replies_until_closed()
        await client.send(*[b"x" * 100_000] * 5)
        await until(lambda: server.server.open_connections == 0)


async def test_who_stays_after_a_refusal_is_cut_off() -> None:
    application = ScriptedApplication()
    async with serving(application, linger_s=0.05) as server, raw_client(server.port) as client:
        await client.send(post(10**6, path=b"/unwelcome"))
        await until(lambda: application.refused == ["unwelcome"])
        await until(lambda: server.server.open_connections == 0)


async def test_a_body_over_the_bound_is_refused_before_it_is_there() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sending = asyncio.ensure_future(client.send(*[piece] * (2 * MAX_BODY_BYTES // 0x10000)))
        assert [answer.status for answer in await client.replies_until_closed()] == [413]
        await sending
        assert application.answered == []


async def test_a_body_of_just_the_bound_is_taken() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(MAX_BODY_BYTES), b"x" * MAX_BODY_BYTES)
        assert (await client.reply()).status == 200
        assert len(application.answered[0][2]) == MAX_BODY_BYTES


# leaving


async def _close(client: RawClient) -> None:
    client.writer.close()


async def _reset(client: RawClient) -> None:
    client.reset()


async def _half_close(client: RawClient) -> None:
    client.half_close()


@pytest.mark.parametrize("leave", [_close, _reset, _half_close])
@pytest.mark.parametrize("begun", [False, True])
async def test_whoever_answers_is_told_at_once_that_the_client_left(leave: Any, begun: bool) -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER)
        held = await held_by(application)
        if begun:
            held.reply.begin(200, TEXT)
            held.reply.send(b"data: 1\n\n")
            await client.reader.read(10)
        await leave(client)
        left_s = time.monotonic()
        await until(lambda: held.told == ["left"])
        assert time.monotonic() - left_s < 1.0
        held.reply.send(b"x")
        held.reply.whole(200, (), b"")
        held.reply.cut()
        await until(lambda: server.server.open_connections == 0)
        assert held.told == ["left"]


async def test_nobody_is_told_of_a_client_that_left_after_its_answer() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER)
        held = await held_by(application)
        held.reply.whole(200, TEXT, b"done")
        await client.reply()
        client.reset()
        await until(lambda: server.server.open_connections == 0)
        assert held.told == []


async def test_a_stream_that_is_cut_is_seen_to_be_cut() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER)
        held = await held_by(application)
        held.reply.begin(200, TEXT)
        held.reply.send(b"half")
        held.reply.cut()
        [answer] = await client.replies_until_closed()
        assert (answer.body, answer.is_whole) == (b"half", False)
        assert held.told == []


async def test_a_stream_of_http_1_0_that_is_cut_ends_in_a_reset() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(b"GET /later HTTP/1.0\r\n\r\n")
        held = await held_by(application)
        held.reply.begin(200, TEXT)
        held.reply.send(b"half")
        while not client.raw.endswith(b"half"):
            client.raw += await client.reader.read(1000)
        held.reply.cut()
        with pytest.raises(ConnectionResetError):
            await client.reader.read(1000)


# the application's own mistakes


@pytest.mark.parametrize("path", [b"/broken", b"/broken-late"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_mistake_of_the_application_is_answered_with_500(path: bytes, at_once: bool) -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(*([post(3, b"abc", path=path)] if at_once else [post(3, path=path), b"abc"]))
        [answer] = await client.replies_until_closed()
        assert (answer.status, answer.body) == (500, b"internal_error")


async def test_a_mistake_in_mid_answer_cuts_it() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(0, path=b"/broken-midway"))
        [answer] = await client.replies_until_closed()
        assert (answer.body, answer.is_whole) == (b"half", False)


async def test_a_refusal_that_cannot_be_put_into_words_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    application = ScriptedApplication()

    def fail(*_: Any) -> None:
        raise RuntimeError("no words")

    monkeypatch.setattr(application, "refusal", fail)
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(post(3, b"abc", path=b"/wrong"))
        assert (await client.reply()).status == 400


async def test_a_refusal_after_the_answer_began_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    application = ScriptedApplication()

    def begin_and_refuse(head: Any, admitted: Any, body: bytes, reply: Reply) -> None:
        reply.begin(200, TEXT)
        raise Refusal(400, "too_late", "Too late.")

    monkeypatch.setattr(application, "answer", begin_and_refuse)
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(GET)
        assert await client.replies_until_closed() == []


async def test_small_pieces_leave_at_once() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client:
        await client.send(LATER)
        await held_by(application)
        [connection] = server.server._shared.connections
        assert isinstance(connection, ClientConnection)
        own = connection._transport.get_extra_info("socket")
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
