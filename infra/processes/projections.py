"""The role `projections`: keeps every read model, each in a task of its own, until SIGTERM or SIGINT.

It also looks at the copies of the log once a minute (infra/events/replicas.py), for it is the one that reads all of it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

from domain.aggregates import AGGREGATES
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.connection import connect_reader, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.replicas import watch_replicas
from infra.events.streams import UnfitServerError, verify_server
from infra.postgres import require_reader_roles
from infra.processes.roles import say_ready
from infra.projecting import Bystanders, EventSource, Projector, Source, UsageSource
from infra.row_security import RolesMissingError
from projections.registry import PROJECTIONS

_log = structlog.get_logger(__name__)

ROLE = "projections"
BUILD_PATIENCE_S = 20.0
"""Less than a supervisor waits for a role. Readers of what is still being built are asked to come back."""


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
    nats = await connect_reader(environment.nats_url, ROLE, environment.nats_login)
    bystanders = Bystanders(environment.postgres_url)
    try:
        await verify_server(nats, environment.nats_monitor_url, replicas=environment.nats_replicas)
        await require_reader_roles(environment.postgres_url)
        events = EventSource(JetStreamLog(nats), Codec(AGGREGATES))
        sources: dict[str, Source] = {"EVENTS": events, "USAGE": UsageSource(nats)}
        projectors = [Projector(p, sources[p.stream], environment.postgres_url, bystanders) for p in PROJECTIONS]
        await _keep_all(environment, projectors, watch_replicas(nats, environment.nats_monitor_url), stop)
    except (UnfitServerError, RolesMissingError) as error:
        _log.critical("unfit", reason=str(error))
        raise SystemExit(os.EX_CONFIG) from error
    finally:
        await bystanders.close()
        await disconnect(nats)


async def _keep_all(
    environment: Environment, projectors: list[Projector], watch: Coroutine[Any, Any, None], stop: asyncio.Event
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (watch, *(projector.run() for projector in projectors))]
        tasks.append(group.create_task(_say_when_ready(environment, projectors)))
        await stop.wait()
        for task in tasks:
            task.cancel()
    _log.info("stopped")


async def _say_when_ready(environment: Environment, projectors: list[Projector]) -> None:
    """Ready when readers may see everything; or, while a long log is being read, when all have begun."""
    for projector in projectors:
        await projector.started.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BUILD_PATIENCE_S):
            for projector in projectors:
                await projector.built.wait()
    building = [projector.schema for projector in projectors if not projector.built.is_set()]
    say_ready(environment, ROLE)
    _log.info("ready", projections=len(projectors), still_being_built=building)
