"""The role `gateway`: the OpenAI-compatible data plane, until SIGTERM or SIGINT, or until another one takes over."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog
from uuid_utils import uuid7

from domain.setting import resolved
from gateway.access_log import AccessLog
from gateway.app import Gateway
from gateway.breaker import Breakers, RetryBudget
from gateway.calls import Calls
from gateway.choice import drawing
from gateway.foreign import address_allowed
from gateway.gauges import gauges_of
from gateway.limits import Limits
from gateway.loads import Loads
from gateway.meter import Meter
from gateway.metrics import Metrics
from gateway.queueing import Queue
from gateway.server import ClientServer
from gateway.services import Services
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.tickets import Tickets
from gateway.watch import Watching
from infra.access_log_sink import access_log_sink
from infra.account_folders import Accounts, take_accounts
from infra.environment import Environment
from infra.events.streams import UnfitServerError
from infra.gateway_links import keep_linked
from infra.gateway_serving import Place
from infra.routing_feed import RoutingFeed
from infra.upstream_keys import UpstreamKeys, from_postgres
from infra.usage_stream import UsageStream

_log = structlog.get_logger(__name__)


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, the address is taken, the data folder cannot be used, or the NATS server is unfit.
    """
    stop, folder, unfit = asyncio.Event(), environment.data_dir / "gateway", ""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        accounts, place = take_accounts(folder), Place(environment, folder)
        watch = _watching(environment)
        await place.open()
    except OSError as error:
        raise _unfit(f"{error}; see INVENTIV_GATEWAY_PORT, INVENTIV_DATA_DIR, INVENTIV_ACCESS_LOG") from error
    feed = RoutingFeed(folder / "routing.json", time.monotonic, trust_s=environment.key_trust_s)
    usage = UsageStream()
    meter = Meter(accounts.spool, usage.publish, accounts.journal)
    keys = _upstream_keys(environment, folder)
    await feed.start(environment.postgres_url)
    services = _services(environment, feed, meter, keys, watch)
    _show(watch, services, feed, accounts)
    gateway = Gateway(
        services=services,
        readiness=feed.readiness,
        lets_in=feed.lets_in,
        figures=watch.metrics.render,
        now=lambda: datetime.now(UTC),
        new_id=lambda: str(uuid7()),
        draw_bits=random.Random().getrandbits,  # noqa: S311 - names for traces; the system's chance costs a call each
        trusted_proxies=environment.proxy_networks,
    )
    async with AsyncExitStack() as stack:
        stack.callback(accounts.close)
        stack.push_async_callback(services.calls.close)
        work = (
            meter.run(),
            watch.run(),
            services.keep_swept(),
            keys.keep_current(lambda: feed.table.credentials, feed.ready.is_set),
            accounts.keep_adopting(meter.publish_soon),
            feed.keep_saved(services.loads),
            keep_linked(environment, feed, services.loads, usage, stack),
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(task) for task in work]
                await place.serve(ClientServer(gateway, now_s=time.monotonic), feed, stop, own_folder=accounts.folder)
                await services.settled()
                for task in tasks:
                    task.cancel()
        except* (UnfitServerError, OSError) as failures:
            unfit = str(failures.exceptions[0])
        await meter.flush()
        await watch.flush()
        await feed.save()
    if unfit:
        raise _unfit(unfit)
    _log.info("stopped")


def _watching(environment: Environment) -> Watching:
    """Raises OSError: the access log's file cannot be written."""
    sink = access_log_sink(environment.access_log)
    return Watching(metrics=Metrics(), access_log=AccessLog(sink, now=lambda: datetime.now(UTC)) if sink else None)


def _show(watch: Watching, services: Services, feed: RoutingFeed, accounts: Accounts) -> None:
    """Adds to /metrics what the parts tell of themselves."""
    watch.metrics.show(
        gauges_of(
            services,
            feed.readiness,
            spool_bytes=lambda: accounts.spool.size_bytes,
            dropped_lines=lambda: watch.dropped_lines,
        )
    )


def _upstream_keys(environment: Environment, folder: Path) -> UpstreamKeys:
    keys = UpstreamKeys(
        environment.secrets_dir, folder / "upstream_keys.json", from_postgres(environment.postgres_url), time.monotonic
    )
    keys.load()
    return keys


def _services(
    environment: Environment, feed: RoutingFeed, meter: Meter, keys: UpstreamKeys, watch: Watching
) -> Services:
    now_s = time.monotonic
    return Services(
        table=lambda: feed.table,
        loads=Loads(stale_s=_stale_s(environment, feed), now_s=now_s, requests_per_gpu=environment.requests_per_gpu),
        breakers=Breakers(now_s=now_s),
        budget=RetryBudget(now_s=now_s),
        calls=Calls(now_s=now_s, address_allowed=address_allowed(environment.outbound_rules)),
        limits=Limits(SharedCounts(str(uuid7())), SpendBook(), now_s=now_s),
        queue=Queue(now_s=now_s, tickets=Tickets(wall_s=time.time)),
        meter=meter,
        watch=watch,
        secret_of=keys.find,
        draw=drawing(),
        now_s=now_s,
    )


def _stale_s(environment: Environment, feed: RoutingFeed) -> Callable[[], float]:
    """The platform's setting, else this process's environment (SPEC 9.1)."""
    key, own = "OPENAI_WORKER_STALE_SECONDS", {"OPENAI_WORKER_STALE_SECONDS": environment.worker_stale_s}
    return lambda: float(resolved(key, feed.table.platform_settings, environment=own))


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
