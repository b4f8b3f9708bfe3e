"""What the kernel may hold of an answer on both sides: whatever it holds is made, read out and counted by somebody.

The controls undo one option each: left to itself the kernel holds megabytes for each client and each engine.
"""

import asyncio
import contextlib
import socket
import time
from unittest.mock import patch

from gateway import engine_pool, server
from gateway.calls import STREAMED, Calls, origin_of
from tests.gateway.raw_client import raw_client
from tests.gateway.scripted_application import ScriptedApplication, held_by, serving
from tests.gateway.told import Told, request_to, until

MB = 1_000_000
PIECE = b"x" * 16_384
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
MUCH_BYTES = 16 * MB
"""Until so much has flowed, the kernel enlarges its buffers."""
STILL_S = 0.3
ENGINES_BYTES = 65_536
"""Of the engine's own buffer, so that it is the gateway's that is seen."""


async def sent_before_noticed() -> int:
    """Bytes for a client who reads nothing, until the application is told that it is slow."""
    application = ScriptedApplication()
    async with serving(application) as served, raw_client(served.port) as client:
        await client.send(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n")
        held = await held_by(application)
        held.reply.begin(200, ())
        count = 0
        while "slow" not in held.told and count < MUCH_BYTES:
            held.reply.send(PIECE)
            count += len(PIECE)
            await asyncio.sleep(0)
        held.reply.cut()
    return count


async def test_a_client_who_reads_nothing_is_soon_noticed() -> None:
    assert await sent_before_noticed() < MB


async def test_left_to_itself_the_kernel_hides_a_slow_client_for_long() -> None:
    with patch.object(server, "UNSENT_IN_KERNEL_BYTES", 2**31 - 1):
        assert await sent_before_noticed() > 2 * MB


async def sent_while_held_back() -> int:
    """Bytes that an engine gets rid of after its call was paused in mid-stream."""
    loop, told = asyncio.get_running_loop(), Told()
    calls = Calls(now_s=time.monotonic)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        origin = origin_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
        call = calls.begin(origin, request_to(origin), told, timeouts=STREAMED)
        engine, _ = await loop.sock_accept(listener)
        with contextlib.closing(engine):
            engine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ENGINES_BYTES)
            await loop.sock_recv(engine, 65_536)
            await loop.sock_sendall(engine, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(MUCH_BYTES // len(CHUNK)):
                await loop.sock_sendall(engine, CHUNK)
            await until(lambda: sum(map(len, told.pieces)) > MUCH_BYTES - MB)
            call.pause()
            count = 0
            with contextlib.suppress(TimeoutError):
                while count < MUCH_BYTES:
                    async with asyncio.timeout(STILL_S):
                        await loop.sock_sendall(engine, CHUNK)
                    count += len(CHUNK)
        call.leave()
    await calls.close()
    return count


async def test_an_engine_that_is_held_back_soon_stops() -> None:
    assert await sent_while_held_back() < MB


async def test_left_to_itself_the_kernel_lets_an_engine_run_on() -> None:
    with patch.object(engine_pool, "AHEAD_BYTES", 2**30):
        assert await sent_while_held_back() > 2 * MB
