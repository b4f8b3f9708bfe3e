"""How long a client is waited for: slow heads, slow bodies, silence, and answers that are not taken."""

import asyncio
import time

import pytest

from gateway.http import Headers
from tests.gateway.raw_client import raw_client
from tests.gateway.scripted_application import MAX_BODY_BYTES, ScriptedApplication, held_by, post, serving, until

ON_BOTH_LOOPS = True
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT: Headers = ((b"content-type", b"text/plain"),)


@pytest.mark.parametrize("sent", [b"G", b"GET /a HTTP/1.1\r\n", b"GET /a HTTP/1.1\r\nhost: a\r\nx: ", b"\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    application = ScriptedApplication()
    async with serving(application, head_s=0.05) as server, raw_client(server.port) as client:
        await client.send(sent)
        assert [answer.status for answer in await client.replies_until_closed()] == [408]
        assert application.admitted == []


async def test_a_head_that_drips_is_not_waited_for() -> None:
    application = ScriptedApplication()
    async with serving(application, head_s=0.1) as server, raw_client(server.port) as client:

        async def drip() -> None:
            await client.send(b"GET /a HTTP/1.1\r\n")
            while True:
                await client.send(b"x: y\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert [answer.status for answer in await client.replies_until_closed()] == [408]
        dripping.cancel()


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    application = ScriptedApplication()
    async with serving(application, body_s=0.05) as server, raw_client(server.port) as client:
        await client.send(post(10, b"abc"))
        assert [answer.status for answer in await client.replies_until_closed()] == [408]
        assert (application.admitted, application.answered) == (["/a"], [])


async def test_a_body_that_keeps_coming_is_waited_for() -> None:
    application = ScriptedApplication()
    async with serving(application, body_s=0.2, body_bytes_per_s=250) as server, raw_client(server.port) as client:
        await client.send(post(1000, b"x" * 500))  # which earned two seconds
        begun_s = time.monotonic()
        await until(lambda: time.monotonic() - begun_s > 0.4)
        await client.send(b"x" * 500)
        assert (await client.reply()).status == 200


async def test_a_connection_that_is_idle_is_closed_without_a_word() -> None:
    application = ScriptedApplication()
    async with serving(application, idle_s=0.05) as server, raw_client(server.port) as client:
        assert await client.replies_until_closed() == []
    async with serving(application, idle_s=0.05) as server, raw_client(server.port) as client:
        await client.send(GET)
        assert [answer.status for answer in await client.replies_until_closed()] == [200]


async def test_an_answer_may_take_longer_than_any_timer_of_the_client() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, idle_s=0.05, head_s=0.05, body_s=0.05, stall_s=0.05) as server,
        raw_client(server.port) as client,
    ):
        await client.send(LATER)
        held = await held_by(application)
        begun_s = time.monotonic()
        await until(lambda: time.monotonic() - begun_s > 0.3)
        assert held.told == []
        held.reply.whole(200, TEXT, b"at last")
        assert (await client.reply()).body == b"at last"


async def test_a_client_that_reads_slowly_stops_its_engine_and_starts_it_again() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, send_buffer_bytes=8192, unsent_bytes=10_000) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        await client.send(LATER)
        held = await held_by(application)
        held.reply.begin(200, TEXT)
        sent = 0
        while "slow" not in held.told:
            held.reply.send(b"x" * 1000)
            sent += 1000
            await asyncio.sleep(0)
        assert sent < 200_000
        reading = asyncio.ensure_future(client.reply())
        await until(lambda: held.told == ["slow", "ready"])
        held.reply.end()
        assert len((await reading).body) == sent


async def test_a_client_that_takes_nothing_more_is_given_up() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, send_buffer_bytes=8192, unsent_bytes=10_000, stall_s=0.1) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads as well
        await client.send(LATER)
        held = await held_by(application)
        held.reply.begin(200, TEXT)
        for _ in range(1000):
            held.reply.send(b"x" * 1000)
        await until(lambda: server.server.open_connections == 0)
        assert held.told == ["slow", "left"]


async def test_a_client_that_shuts_its_half_with_an_answer_untaken_has_left() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, send_buffer_bytes=8192, unsent_bytes=10_000, stall_s=0.3) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads as well
        await client.send(LATER)
        held = await held_by(application)
        held.reply.begin(200, TEXT)
        held.reply.send(b"x" * 10**6)
        client.half_close()
        await until(lambda: held.told == ["slow", "left"])
        assert server.server.open_connections == 1  # what was written may still be taken, for a while
        await until(lambda: server.server.open_connections == 0)


async def test_an_engine_waits_while_its_client_has_not_taken_the_answer_before() -> None:
    application = ScriptedApplication()
    async with (
        serving(application, send_buffer_bytes=8192) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        await client.send(post(MAX_BODY_BYTES, b"x" * MAX_BODY_BYTES), LATER)
        held = await held_by(application)
        assert held.told == ["slow"]
        assert len((await client.reply()).body) > MAX_BODY_BYTES
        await until(lambda: held.told == ["slow", "ready"])


async def test_an_answer_in_one_piece_that_is_not_taken_is_given_up() -> None:
    application = ScriptedApplication(on_held=lambda held: held.reply.whole(200, TEXT, b"x" * 10**6))
    async with (
        serving(application, send_buffer_bytes=8192, stall_s=0.1, idle_s=0.1) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads as well
        await client.send(LATER)
        await held_by(application)
        await until(lambda: server.server.open_connections == 0)


async def test_an_answer_in_one_piece_that_is_taken_slowly_arrives() -> None:
    application = ScriptedApplication(on_held=lambda held: held.reply.whole(200, TEXT, b"x" * 100_000))
    async with (
        serving(application, send_buffer_bytes=8192, stall_s=0.3, idle_s=0.3) as server,
        raw_client(server.port, receive_buffer_bytes=8192) as client,
    ):
        await client.send(LATER.replace(b"host: a", b"host: a\r\nconnection: close"))
        data = b""
        begun_s = time.monotonic()
        while piece := await client.reader.read(8192):
            data += piece
            await asyncio.sleep(0.05)
        assert data.endswith(b"x" * 100_000)
        assert time.monotonic() - begun_s > 0.5  # longer than either timer
