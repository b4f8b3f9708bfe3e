"""What our append and a whole command cost beside a bare nats-py publish with the same headers, on the same server.

Rounds of the contenders alternate, so that a slow second of the machine falls on all of them alike; each figure is the
median of the rounds' ratios. The server syncs every message to disk (`sync_interval: always`).
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, IssueApiKey, RenameApiKey
from domain.message import Context
from infra.dispatch import Dispatcher
from infra.embedded.nats import EmbeddedNats
from infra.embedded.ports import free_port
from infra.events.codec import Codec
from infra.events.connection import connect_writer
from infra.events.jetstream import JetStreamLog
from infra.events.port import Append
from infra.events.streams import ensure_streams
from tests.examples import example

ROUNDS = 7
OPERATIONS = 400
"""Per contender and round: about a fifth of a second each."""
PAYLOAD = b'{"pad":"' + b"x" * 590 + b'"}'
"""About the size of one of our envelopes."""


async def measure(folder: Path) -> dict[str, float]:
    """append_vs_publish: rate of our append / rate of bare publish. cached_command_vs_publish: p50 / p50."""
    async with EmbeddedNats(folder, free_port(42_900)) as server:
        admin = await nats.connect(server.admin_url)
        await ensure_streams(admin)
        await admin.close()
        writer = await connect_writer(server.url, "bench")
        try:
            return await _rounds(writer)
        finally:
            await writer.close()


async def _rounds(writer: Client) -> dict[str, float]:
    js, log = writer.jetstream(), JetStreamLog(writer)
    dispatcher = Dispatcher(log, Codec(AGGREGATES), lambda: datetime.now(UTC), lambda: str(uuid7()))
    context = Context(actor="system:bench", correlation="bench")
    await dispatcher(API_KEY, "bench", "key", example(IssueApiKey), context)
    rates, commands = [], []
    for number in range(ROUNDS + 1):
        bare = await _times(_bare(js, f"evt.bench.bare.{number}"))
        ours = await _times(_ours(log, f"evt.bench.ours.{number}"))
        command = await _times(_renames(dispatcher, context, number))
        if number:  # the first round warms up
            rates.append(sum(bare) / sum(ours))
            commands.append(median(command) / median(bare))
    return {"append_vs_publish": median(rates), "cached_command_vs_publish": median(commands)}


async def _times(operation: Callable[[int], Awaitable[object]]) -> list[float]:
    times = []
    for number in range(OPERATIONS):
        started = time.perf_counter()
        await operation(number)
        times.append(time.perf_counter() - started)
    return times


def _bare(js: JetStreamContext, subject: str) -> Callable[[int], Awaitable[None]]:
    last = 0

    async def publish(_number: int) -> None:
        nonlocal last
        headers = {"Nats-Msg-Id": str(uuid7()), "Nats-Expected-Last-Subject-Sequence": str(last)}
        last = (await js.publish(subject, PAYLOAD, headers=headers)).seq

    return publish


def _ours(log: JetStreamLog, subject: str) -> Callable[[int], Awaitable[None]]:
    last = 0

    async def append(_number: int) -> None:
        nonlocal last
        last = await log.append([Append(subject, last, ((str(uuid7()), PAYLOAD),))])

    return append


def _renames(dispatcher: Dispatcher, context: Context, round_number: int) -> Callable[[int], Awaitable[object]]:
    async def rename(number: int) -> None:
        await dispatcher(API_KEY, "bench", "key", RenameApiKey(name=f"{round_number}/{number}"), context)

    return rename
