"""Fifty clients read a byte a second of streams that do not end. Do the others notice, and does the gateway's memory?

    50 slow readers <──1 byte/s── gateway <── an engine that sends as fast as it may         others ──> their own engine

The others' p99 is measured by turns with the slow readers and without; with them once every buffer on the way is full.
The worst answer, also while they come and leave, is a figure of its own. Control: a gateway that reads engines as fast
as they send, however slow the client.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from agent.simulated_engine import Behaviour
from tests.bench.gateway.processes import resident_mb
from tests.chaos.gateway.books import percentile
from tests.chaos.gateway.clients import CHAT, Told, new_client, plain, words
from tests.chaos.gateway.load import Load
from tests.chaos.gateway.stage import SERVE, Stage, stage
from tests.chaos.gateway.variants import command

READERS = 50
ENDLESS = "endless"
ENDLESS_TOKENS = 20_000
PROBABILITIES = {"logprobs": True, "top_logprobs": 20}
"""With each token, which makes it 2 KB: a stream is 40 MB, of which nobody will ever read much."""
RECEIVE_BYTES = 4_096
"""Of a slow reader's socket: the kernel hides little of the slowness."""
BYTE_EVERY_S = 1.0
OTHERS = 8
OTHERS_TOKENS = 8
OTHERS_ENGINE = Behaviour(tokens_per_s=100.0, first_token_ms=10.0)
"""An answer in 80 ms: the gateway may add 8 of them."""
STILL_WITHIN_S = 45.0
STILL_CPU = 0.15
"""Of a processor; the others' own requests cost the gateway a fifth of that."""
LOOK_S = 0.5
CONTROL_S = 10.0


async def measure(folder: Path, *, runs: int = 5, run_s: float = 6.0) -> dict[str, float | None]:
    figures = await _measured(folder / "real", runs, run_s)
    return {**figures, "slow_readers_control_mb": await _control(folder / "control")}


async def _measured(folder: Path, runs: int, run_s: float) -> dict[str, float | None]:
    without: list[float] = []
    among: list[float] = []
    worst_s = 0.0
    async with _playing(folder, SERVE) as (play, gateway, endless):
        async with _asking(play):
            await asyncio.sleep(run_s / 2)  # everything is imported, every buffer made
        before_mb = largest_mb = resident_mb([gateway])
        for _ in range(runs):
            async with _asking(play) as load:
                await asyncio.sleep(run_s)
            without.append(_p99_ms(load.told))
            async with _asking(play) as load:
                async with _slow_readers(play):
                    await _until_still(endless)
                    first = len(load.told)
                    await asyncio.sleep(run_s)
                    among.append(_p99_ms(load.told[first:]))
                    largest_mb = max(largest_mb, resident_mb([gateway]))
                await _until_still(gateway)
                worst_s = max(worst_s, *(told.seconds for told in load.told))
                largest_mb = max(largest_mb, resident_mb([gateway]))
            print(f"slow readers: others' p99 {without[-1]:.1f} ms without, {among[-1]:.1f} ms with", flush=True)
    return {
        "slow_readers_without_p99_ms": round(median(without), 1),
        "slow_readers_p99_ms": round(median(among), 1),
        "slow_readers_p99_ratio": round(median(among) / median(without), 3),
        "slow_readers_worst_ms": round(1000 * worst_s, 1),
        "slow_readers_mb": round(largest_mb - before_mb, 1),
    }


async def _control(folder: Path) -> float:
    """Growth of a gateway that does not hold the engine back, within CONTROL_S."""
    async with _playing(folder, command("no_pause")) as (play, gateway, _):
        async with _asking(play):
            await asyncio.sleep(1.0)
        before_mb = resident_mb([gateway])
        async with _slow_readers(play):
            await asyncio.sleep(CONTROL_S)
            return round(resident_mb([gateway]) - before_mb, 1)


@asynccontextmanager
async def _playing(folder: Path, serve: Sequence[str]) -> AsyncIterator[tuple[Stage, int, int]]:
    """A stage, and the pids of its gateway and of the engine that sends without end."""
    async with stage(folder, [OTHERS_ENGINE], others={ENDLESS: Behaviour(tokens_per_s=0, first_token_ms=0)}) as play:
        gateway = await play.start_gateway(serve)
        endless = play.engines[-1].process
        assert endless is not None
        yield play, gateway.pid, endless.pid
        await gateway.kill()  # its streams would not end within any grace


@asynccontextmanager
async def _asking(play: Stage) -> AsyncIterator[Load]:
    """The others at work until the end of the block."""
    load = Load()
    async with new_client() as client:
        asking = [asyncio.create_task(_other(play, client, load)) for _ in range(OTHERS)]
        yield load
        load.ends.set()
        await asyncio.gather(*asking)
    assert not load.failed, load.failed[0]


def _p99_ms(told: Sequence[Told]) -> float:
    return 1000 * percentile([one.seconds for one in told], 99)


async def _other(play: Stage, client: aiohttp.ClientSession, load: Load) -> None:
    while load.goes_on:
        await load.take(await plain(client, play, play.tenants[0], tokens=OTHERS_TOKENS))


async def _until_still(pid: int) -> None:
    """Waits until a process has little to do: an engine is held back, a gateway has read out what engines had sent.

    Raises:
        TimeoutError: it goes on and on.
    """
    process = psutil.Process(pid)
    async with asyncio.timeout(STILL_WITHIN_S):
        while True:
            began_s, used_s = time.monotonic(), _cpu_s(process)
            await asyncio.sleep(LOOK_S)
            if _cpu_s(process) - used_s < STILL_CPU * (time.monotonic() - began_s):
                return


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def _slow_readers(play: Stage) -> AsyncIterator[None]:
    body = json.dumps({**words(ENDLESS_TOKENS, stream=True, model=f"acme/{ENDLESS}"), **PROBABILITIES}).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: chaos\r\nauthorization: Bearer {play.tenants[0].secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    readers = [asyncio.create_task(_read_slowly(play.port, head + body)) for _ in range(READERS)]
    try:
        yield
        assert not any(reader.done() for reader in readers), "a slow reader was let go"
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read_slowly(port: int, request: bytes) -> None:
    """Until cancelled, or until the gateway hangs up."""
    loop = asyncio.get_running_loop()
    with contextlib.closing(socket.socket()) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, request)
        while await loop.sock_recv(sock, 1):  # noqa: ASYNC110 - the pause is what is played
            await asyncio.sleep(BYTE_EVERY_S)
