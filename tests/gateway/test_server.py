"""The server as a whole: its stop loses no request, its connections are bounded, and its slow clients harm nobody."""

import asyncio
import gc
import socket
import time
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime

import pytest

from gateway.client_connection import ClientConnection
from gateway.http import Headers
from gateway.request_reader import RequestReader
from gateway.server import DEAD_PEER_IDLE_S
from tests.gateway.raw_client import RawClient, raw_client
from tests.gateway.scripted_application import Held, ScriptedApplication, Serving, serving, until

ON_BOTH_LOOPS = True
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT: Headers = ((b"content-type", b"text/plain"),)
SLOW_CLIENTS = 50


def connections_of(server: Serving) -> list[ClientConnection]:
    return [one for one in server.server._shared.connections if isinstance(one, ClientConnection)]


async def test_a_stop_accepts_no_more_and_closes_what_is_idle() -> None:
    async with serving(ScriptedApplication()) as server, raw_client(server.port) as client:
        await client.send(GET)
        await client.reply()
        server.server.stop_listening()
        server.server.stop_listening()  # asking twice is welcome
        await client.replies_until_closed()
        assert await server.server.drained(5.0) == 0
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_stop_of_a_server_without_connections_is_over_at_once() -> None:
    async with serving(ScriptedApplication()) as server:
        server.server.stop_listening()
        assert await server.server.drained(5.0) == 0


async def test_a_request_that_was_on_its_way_when_listening_stopped_is_answered() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, farewell_s=1.0) as server,
        raw_client(server.port) as used,
        raw_client(server.port) as fresh,
    ):
        await used.send(GET)
        await used.reply()
        await until(lambda: server.server.open_connections == 2)
        server.server.stop_listening()
        for client in (used, fresh):
            await client.send(GET)
            answer = (await client.replies_until_closed())[-1]
            assert (answer.status, answer.header(b"connection")) == (200, b"close")


async def test_what_runs_when_listening_stops_is_finished() -> None:
    application = ScriptedApplication()
    async with (
        serving(application) as server,
        raw_client(server.port) as streaming,
        raw_client(server.port) as waiting,
        raw_client(server.port) as sending,
    ):
        await streaming.send(LATER)
        await until(lambda: len(application.held) == 1)
        stream = application.held[0].reply
        stream.begin(200, TEXT)
        stream.send(b"one")
        await waiting.send(LATER)
        await sending.send(GET[:-4])
        await until(lambda: len(application.held) == 2)
        await until(lambda: [one._reader.is_midway for one in connections_of(server)].count(True) == 1)
        server.server.stop_listening()
        draining = asyncio.ensure_future(server.server.drained(5.0))
        await sending.send(GET[-4:])
        assert [answer.status for answer in await sending.replies_until_closed()] == [200]
        stream.end(b"two")
        application.held[1].reply.whole(200, TEXT, b"done")
        assert [answer.body for answer in await streaming.replies_until_closed()] == [b"onetwo"]
        assert [answer.body for answer in await waiting.replies_until_closed()] == [b"done"]
        assert await draining == 0
        assert application.cut_offs == 0


async def test_what_is_not_finished_in_time_is_cut_and_counted() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as one, raw_client(server.port) as two:
        await one.send(LATER)
        await two.send(LATER)
        await until(lambda: server.server.open_requests == 2)
        server.server.stop_listening()
        assert application.cut_offs == 0
        assert await server.server.drained(0.05) == 2
        assert application.cut_offs == 1
        await until(lambda: [held.told for held in application.held] == [["left"], ["left"]])
        await until(lambda: server.server.open_connections == 0)


async def test_open_requests_are_those_that_the_application_has() -> None:
    application = ScriptedApplication()
    async with serving(application) as server, raw_client(server.port) as client, raw_client(server.port):
        await client.send(LATER)
        await until(lambda: server.server.open_connections == 2)
        await until(lambda: server.server.open_requests == 1)
        application.held[0].reply.whole(200, TEXT, b"")
        assert server.server.open_requests == 0


async def test_a_connection_too_many_is_told_so() -> None:
    application = ScriptedApplication()
    async with serving(application, connections=2) as server, AsyncExitStack() as stack:
        client, other = [await stack.enter_async_context(raw_client(server.port)) for _ in range(2)]
        for one in (client, other):
            await one.send(GET)
            await one.reply()
        async with raw_client(server.port) as third:
            [answer] = await third.replies_until_closed()
            assert (answer.status, answer.header(b"retry-after")) == (503, b"1")
        await client.send(GET)
        assert (await client.reply()).status == 200
        client.reset()
        await until(lambda: server.server.open_connections == 1)
        async with raw_client(server.port) as fourth:
            await fourth.send(GET)
            assert (await fourth.reply()).status == 200


async def test_the_date_of_replies_goes_with_the_clock() -> None:
    async with serving(ScriptedApplication()) as server, raw_client(server.port) as client:

        async def date() -> float:
            await client.send(GET)
            header = (await client.reply()).header(b"date")
            assert header is not None
            return parsedate_to_datetime(header.decode()).timestamp()

        first = await date()
        assert abs(first - time.time()) < 2
        async with asyncio.timeout(5):
            while await date() == first:  # noqa: ASYNC110 - the clock itself is what is waited for
                await asyncio.sleep(0.02)


async def test_connections_notice_a_peer_that_vanished() -> None:
    async with serving(ScriptedApplication()) as server, raw_client(server.port) as client:
        await client.send(GET)
        await client.reply()
        [connection] = connections_of(server)
        own = connection._transport.get_extra_info("socket")
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == DEAD_PEER_IDLE_S


async def test_a_closed_connection_leaves_nothing_to_the_garbage_collector() -> None:
    async with serving(ScriptedApplication()) as server:
        gc.collect()
        gc.disable()
        try:
            for sent in (GET, b"nonsense\r\n\r\n"):
                async with raw_client(server.port) as client:
                    await client.send(sent)
                    await client.reply()
            await until(lambda: server.server.open_connections == 0)
            await until(lambda: not any(isinstance(one, ClientConnection | RequestReader) for one in gc.get_objects()))
        finally:
            gc.enable()


class Flood:
    """Answers with a megabyte as fast as its client takes it, and counts what it has handed over."""

    PIECE = b"x" * 4096
    TOTAL_BYTES = 1024 * 1024

    def __init__(self, held: Held) -> None:
        self.sent_bytes = 0
        self.pauses = 0
        self._paused = False
        self._reply = held.reply
        held.on_told = self._told
        held.reply.begin(200, TEXT)
        asyncio.get_running_loop().call_soon(self._go_on)

    def _told(self, what: str) -> None:
        self._paused = what == "slow"
        self.pauses += self._paused
        if what == "ready":
            self._go_on()

    def _go_on(self) -> None:
        while not self._paused and self.sent_bytes < self.TOTAL_BYTES:
            self._reply.send(self.PIECE)
            self.sent_bytes += len(self.PIECE)


async def test_fifty_clients_that_read_a_byte_at_a_time_hold_little_and_delay_nobody() -> None:
    floods: list[Flood] = []
    application = ScriptedApplication(on_held=lambda held: floods.append(Flood(held)))
    unsent_bytes, kernel_bytes = 64 * 1024, 256 * 1024
    async with (
        serving(application, unsent_bytes=unsent_bytes, send_buffer_bytes=8192) as server,
        AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(raw_client(server.port, receive_buffer_bytes=8192))
            for _ in range(SLOW_CLIENTS)
        ]
        sipping = asyncio.ensure_future(_sip(clients))
        await until(lambda: len(floods) == SLOW_CLIENTS and all(flood.pauses for flood in floods))
        async with raw_client(server.port) as other:
            for _ in range(20):
                begun_s = time.monotonic()
                await other.send(GET)
                assert (await other.reply()).status == 200
                assert time.monotonic() - begun_s < 1.0
        assert not sipping.done()
        for connection in connections_of(server):
            assert connection._transport.get_write_buffer_size() <= unsent_bytes + 2 * len(Flood.PIECE)
        assert max(flood.sent_bytes for flood in floods) < unsent_bytes + kernel_bytes
        sipping.cancel()


async def test_a_client_that_reads_fast_gets_all_of_the_same_flood() -> None:
    floods: list[Flood] = []
    application = ScriptedApplication(on_held=lambda held: floods.append(Flood(held)))
    async with (
        serving(application, send_buffer_bytes=8192) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        await client.send(LATER)
        data = b""
        async with asyncio.timeout(20):
            while data.count(b"x") < Flood.TOTAL_BYTES:
                data += await client.reader.read(64 * 1024)
        assert floods[0].pauses > 0


async def _sip(clients: list[RawClient]) -> None:
    for client in clients:
        await client.send(LATER)
    while True:
        for client in clients:
            assert await client.reader.read(1)
            await asyncio.sleep(0)
