"""NATS and Postgres are away under load: nobody notices, and every account is there afterwards.

    load ──> frozen (SIGSTOP) ──> killed (SIGKILL) and away ──> the gateway replaced meanwhile ──> back ──> caught up

The real projector keeps the table of usage beside it, so that "there" means the stream and the table. Control: of a
gateway that is killed during an outage, and whose disk is lost, accounts must be missing.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from agent.simulated_engine import Behaviour
from infra.embedded.child import spawn, stop, wait_until
from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.environment import surroundings
from projections.usage import USAGE
from tests.chaos.gateway.books import balance, differences, total
from tests.chaos.gateway.clients import Told, new_client, plain, stream
from tests.chaos.gateway.load import Load
from tests.chaos.gateway.stage import READY_S, SETTLE_S, Stage, stage
from tests.conftest import some_port, started

ENGINES = [Behaviour(tokens_per_s=100.0)] * 2
PROJECTIONS = (sys.executable, "-m", "infra.cli.main", "serve", "projections")
AT_ONCE = 12
"""Clients; every third one streams."""
ANSWER_TOKENS = 4
STREAM_TOKENS = 40
PAUSE_S = 0.05
"""Of a client between two requests: about 130 requests a second in all."""
BEFORE_S = 2.0
AFTER_S = 2.0
CONTROL_REQUESTS = 50


async def measure(folder: Path, *, outage_s: float = 60.0) -> dict[str, float | None]:
    postgres = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
    try:
        async with stage(folder / "outage", ENGINES) as play:
            play.variables["INVENTIV_POSTGRES_URL"] = postgres.url
            async with _projecting(play, postgres):
                await play.start_gateway()
                figures = await _through_an_outage(play, postgres, outage_s)
            return {**figures, "outage_control_lost": await _control(play)}
    finally:
        await postgres.stop()


async def _through_an_outage(play: Stage, postgres: EmbeddedPostgres, outage_s: float) -> dict[str, float | None]:
    load = Load()
    asking = [asyncio.create_task(_client(play, load, streams=n % 3 == 0)) for n in range(AT_ONCE)]
    await wait_until(lambda: _has_saved(play), "a saved table", READY_S)
    await asyncio.sleep(BEFORE_S)
    before = len(load.told)
    frozen = _freeze(play.nats, postgres)
    await asyncio.sleep(outage_s / 2)
    _say("frozen", load)
    await asyncio.gather(play.nats.kill(), postgres.kill())
    _end(frozen)
    await asyncio.sleep(outage_s / 4)
    await play.start_gateway()
    await asyncio.sleep(outage_s / 4)
    _say("killed, and the gateway replaced meanwhile", load)
    during = len(load.told) - before
    await asyncio.gather(play.nats.start(), postgres.start())
    back_s = time.monotonic()
    await asyncio.sleep(AFTER_S)
    load.ends.set()
    await asyncio.gather(*asking)
    assert await play.gateways[0].ended(READY_S), "the replaced gateway does not end in good order"
    return {"outage_requests": during, **await _judged(play, postgres, load, back_s)}


async def _judged(play: Stage, postgres: EmbeddedPostgres, load: Load, back_s: float) -> dict[str, float | None]:
    answered = [told for told in load.told if told.is_answered]
    request_ids = [told.request_id for told in answered]
    records = await play.records(request_ids)
    stream_s = time.monotonic() - back_s
    rows = await _rows(postgres, len(answered))
    load.complain("outage")
    books = balance(request_ids, records)
    return {
        "outage_failed_requests": len(load.failed),
        "lost_usage": books.unbooked,
        "outage_double_booked": books.double_booked,
        "outage_token_difference": total(differences({t.request_id: t.tokens for t in answered}, records)),
        "usage_table_difference": abs(rows - len(answered)),
        "outage_caught_up_s": round(stream_s, 1),
        "outage_table_caught_up_s": round(time.monotonic() - back_s, 1),
    }


async def _client(play: Stage, load: Load, *, streams: bool) -> None:
    async with new_client() as client:
        while load.goes_on:
            if streams:
                await load.take(await stream(client, play, play.tenants[0], Told(), tokens=STREAM_TOKENS))
            else:
                await load.take(await plain(client, play, play.tenants[0], tokens=ANSWER_TOKENS))
            await asyncio.sleep(PAUSE_S)


async def _control(play: Stage) -> int:
    """Answers of which no account is left."""
    await play.nats.kill()
    async with new_client() as client:
        told = [await plain(client, play, play.tenants[0], tokens=ANSWER_TOKENS) for _ in range(CONTROL_REQUESTS)]
        await play.gateways[-1].kill()
        for file in play.accounts.glob("*/*"):
            file.unlink()
        await play.nats.start()
        await play.start_gateway()
        later = await plain(client, play, play.tenants[0], tokens=ANSWER_TOKENS)
    answered = [one.request_id for one in told if one.is_answered]
    records = await play.records([later.request_id])
    assert balance([later.request_id], records).unbooked == 0, "the control's last request is not booked either"
    return balance(answered, records).unbooked


@asynccontextmanager
async def _projecting(play: Stage, postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    """The role that keeps the tables."""
    variables = {
        **surroundings(),
        "INVENTIV_DATA_DIR": str(play.folder / "data"),
        "INVENTIV_NATS_URL": play.nats.url_of("projections"),
        "INVENTIV_NATS_MONITOR_URL": play.nats.monitor_url,
        "INVENTIV_POSTGRES_URL": postgres.url,
    }
    process = await spawn(PROJECTIONS, env=variables, log_path=play.folder / "projections.log")
    try:
        yield
    finally:
        await stop(process)


async def _rows(postgres: EmbeddedPostgres, expected: int) -> int:
    """Of the table of usage, once it holds so many, or after SETTLE_S."""
    query = sql.SQL("SELECT coalesce(sum(requests), 0) FROM {}.usage_totals").format(sql.Identifier(USAGE.schema))
    count, until_s = 0, time.monotonic() + SETTLE_S
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        while count < expected and time.monotonic() < until_s:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = await (await connection.execute(query)).fetchone()
                count = int(row[0]) if row else 0
            await asyncio.sleep(0.1)
    return count


def _freeze(*servers: EmbeddedNats | EmbeddedPostgres) -> list[psutil.Process]:
    """Stops them where they stand, with all their children: connections stay open, and nothing answers."""
    frozen = []
    for server in servers:
        assert server.pid is not None
        parent = psutil.Process(server.pid)
        frozen += [parent, *parent.children(recursive=True)]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    return frozen


def _end(frozen: list[psutil.Process]) -> None:
    """Those whose parent was killed while they could not notice."""
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


async def _has_saved(play: Stage) -> bool:
    """Whether a gateway that starts without the log would find a table."""
    return await asyncio.to_thread((play.accounts / "routing.json").exists)


def _say(what: str, load: Load) -> None:
    print(f"outage: {what}: {len(load.told)} requests so far, {len(load.failed)} failed", flush=True)
