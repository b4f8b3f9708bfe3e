"""The role `gateway`: the OpenAI-compatible data plane, until SIGTERM or SIGINT; running answers are finished first."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import structlog
from uuid_utils import uuid7

from domain.setting import resolved
from gateway.app import Gateway
from gateway.exchange import Services
from gateway.loads import Loads
from gateway.meter import Meter
from gateway.upstream import client_session
from infra.environment import Environment
from infra.events.streams import UnfitServerError
from infra.gateway_links import keep_linked
from infra.http_server import serve_http
from infra.routing_feed import RoutingFeed
from infra.spool import FileSpool
from infra.usage_stream import UsageStream

DRAIN_S = 8
"""Running answers get this long when the gateway stops; `inventiv up` kills a role after 12 s."""

_log = structlog.get_logger(__name__)


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, the address is taken, the data folder is in use, or the NATS server is unfit.
    """
    stop, folder, unfit = asyncio.Event(), environment.data_dir / "gateway", ""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        spool = FileSpool(folder / "spool")
        listener = socket.create_server((environment.host, environment.gateway_port))
    except OSError as error:
        raise _unfit(f"{error}; does a gateway run already? See INVENTIV_GATEWAY_PORT, INVENTIV_DATA_DIR") from error
    feed = RoutingFeed(folder / "routing.json", time.monotonic, trust_s=environment.key_trust_s)
    usage = UsageStream()
    loads, meter = Loads(stale_s=_stale_s(environment, feed), now_s=time.monotonic), Meter(spool, usage.publish)
    await feed.start(environment.postgres_url)
    async with AsyncExitStack() as stack:
        stack.callback(spool.close)
        session = await stack.enter_async_context(client_session())
        services = Services(table=lambda: feed.table, loads=loads, meter=meter, session=session, now_s=time.monotonic)
        now, new_id = (lambda: datetime.now(UTC)), (lambda: str(uuid7()))
        gateway = Gateway(
            services=services,
            readiness=feed.readiness,
            now=now,
            new_id=new_id,
            trusted_proxies=environment.proxy_networks,
        )
        try:
            async with asyncio.TaskGroup() as group:
                work = (meter.run(), feed.keep_saved(loads), keep_linked(environment, feed, loads, usage, stack))
                tasks = [group.create_task(task) for task in work]
                await feed.settle()
                await serve_http(gateway, listener, stop, drain_s=DRAIN_S)
                for task in tasks:
                    task.cancel()
        except* UnfitServerError as failures:
            unfit = str(failures.exceptions[0])
        await meter.flush()
        await feed.save()
    if unfit:
        raise _unfit(unfit)
    _log.info("stopped")


def _stale_s(environment: Environment, feed: RoutingFeed) -> Callable[[], float]:
    """The platform's setting, else this process's environment (SPEC 9.1)."""
    key, own = "OPENAI_WORKER_STALE_SECONDS", {"OPENAI_WORKER_STALE_SECONDS": environment.worker_stale_s}
    return lambda: float(resolved(key, feed.table.platform_settings, environment=own))


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
