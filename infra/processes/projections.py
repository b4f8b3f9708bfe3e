"""The role `projections`: keeps every read model, each in a task of its own, until SIGTERM or SIGINT."""

import asyncio
import os
import signal

import structlog

from domain.aggregates import AGGREGATES
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.connection import connect_reader, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import UnfitServerError, verify_server
from infra.processes.roles import say_ready
from infra.projecting import Bystanders, EventSource, Projector, Source, UsageSource
from projections.registry import PROJECTIONS

_log = structlog.get_logger(__name__)

ROLE = "projections"


async def run(environment: Environment) -> None:
    """Runs the role; a projection that fails is tried again by itself, without touching the others.

    Raises:
        SystemExit: 78, the server or the settings are unfit.
        LogUnavailableError: no NATS server answered at the start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not environment.postgres_url:
        _log.critical("unfit", reason="set INVENTIV_POSTGRES_URL, or use `inventiv up`, which brings its own Postgres")
        raise SystemExit(os.EX_CONFIG)
    nats = await connect_reader(environment.nats_url, ROLE)
    bystanders = Bystanders(environment.postgres_url)
    try:
        await verify_server(nats, environment.nats_monitor_url)
        events = EventSource(JetStreamLog(nats), Codec(AGGREGATES))
        sources: dict[str, Source] = {"EVENTS": events, "USAGE": UsageSource(nats)}
        projectors = [Projector(p, sources[p.stream], environment.postgres_url, bystanders) for p in PROJECTIONS]
        await _keep_all(environment, projectors, stop)
    except UnfitServerError as error:
        _log.critical("unfit", reason=str(error))
        raise SystemExit(os.EX_CONFIG) from error
    finally:
        await bystanders.close()
        await disconnect(nats)


async def _keep_all(environment: Environment, projectors: list[Projector], stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(projector.run()) for projector in projectors]
        tasks.append(group.create_task(_say_when_ready(environment, projectors)))
        await stop.wait()
        for task in tasks:
            task.cancel()
    _log.info("stopped")


async def _say_when_ready(environment: Environment, projectors: list[Projector]) -> None:
    for projector in projectors:
        await projector.started.wait()
    say_ready(environment, ROLE)
    _log.info("ready", projections=len(projectors))
