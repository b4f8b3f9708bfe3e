"""The gateway's parts, made and joined: what the process starts, keeps running, and puts away at its end.

start ──> copies from disk (and Postgres) ──> work: feeds, saving, publishing, sweeping ──> finish: what is left
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from gateway.services import Services
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.tickets import Tickets
from gateway.watch import Watching
from infra.access_log_sink import access_log_sink
from infra.account_folders import Accounts
from infra.environment import Environment
from infra.gateway_links import keep_linked
from infra.limit_exchange import LimitExchange
from infra.queue_journal import QueueJournal, keep_tickets_adopted, restore_tickets
from infra.routing_feed import RoutingFeed
from infra.spend_feed import SpendFeed
from infra.upstream_keys import UpstreamKeys, from_postgres
from infra.usage_stream import UsageStream


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One process's; `folder` is of all gateways of a data folder."""

    environment: Environment
    folder: Path
    accounts: Accounts
    feed: RoutingFeed
    usage: UsageStream
    keys: UpstreamKeys
    tickets: Tickets
    exchange: LimitExchange
    spend: SpendFeed
    watch: Watching
    services: Services
    gateway: Gateway

    async def start(self) -> None:
        """Takes the copies that shorten the way."""
        restore_tickets(self.tickets, self.folder, self.accounts.folder)
        self.keys.load()
        await self.feed.start(self.environment.postgres_url)
        await self.spend.start()

    def work(self, stack: AsyncExitStack) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs as long as the gateway does; connections live in `stack`."""
        services, feed = self.services, self.feed
        return (
            services.meter.run(),
            self.watch.run(),
            self.gateway.keep_swept(),
            self.keys.keep_current(lambda: feed.table.credentials, feed.ready.is_set),
            self.accounts.keep_adopting(services.meter.publish_soon),
            keep_tickets_adopted(self.tickets, self.folder, self.accounts.folder),
            feed.keep_saved(services.loads),
            self.spend.keep_saved(),
            self.exchange.run(),
            _collector_relieved(feed.ready),
            keep_linked(self.environment, feed, services.loads, self.usage, self.exchange, self.spend, stack),
        )

    async def settle(self) -> None:
        """Once nothing new is taken: the others get our share, and what clients left behind is counted."""
        await self.exchange.leave()
        await self.services.settled()

    async def finish(self) -> None:
        """The last words to disk and stream, after `work` was cancelled and before the connections go."""
        await self.services.meter.flush()
        await self.watch.flush()
        await self.exchange.close()
        await self.spend.save()
        await self.feed.save()


def parts_of(environment: Environment, folder: Path, accounts: Accounts) -> Parts:
    """Raises OSError: the access log's file cannot be written."""
    feed = RoutingFeed(folder / "routing.json", time.monotonic, trust_s=environment.key_trust_s)
    usage, watch = UsageStream(), _watching(environment)
    fetch = from_postgres(environment.postgres_url)
    keys = UpstreamKeys(environment.secrets_dir, folder / "upstream_keys.json", fetch, time.monotonic)
    limits = Limits(SharedCounts(str(uuid7())), SpendBook(), now_s=time.monotonic)
    tickets = Tickets(wall_s=time.time, journal=QueueJournal(accounts.folder))
    services = _services(
        environment, feed, watch, limits, tickets, keys, Meter(accounts.spool, usage.publish, accounts.journal)
    )
    watch.metrics.show(
        gauges_of(
            services,
            feed.readiness,
            spool_bytes=lambda: accounts.spool.size_bytes,
            dropped_lines=lambda: watch.dropped_lines,
        )
    )
    return Parts(
        environment=environment,
        folder=folder,
        accounts=accounts,
        feed=feed,
        usage=usage,
        keys=keys,
        tickets=tickets,
        exchange=LimitExchange(limits.shared, time.monotonic),
        spend=SpendFeed(
            limits.spend,
            folder / "spend.json",
            is_wanted=lambda: feed.table.limits_spending,
            postgres_url=environment.postgres_url,
        ),
        watch=watch,
        services=services,
        gateway=_gateway(environment, feed, services, watch),
    )


async def _collector_relieved(ready: asyncio.Event) -> None:
    """The table lives as long as the process: with 100,000 keys each full look of the collector at it held up every
    stream for 230 ms. Later rows are few, and what is let go of needs no collector.
    """
    await ready.wait()
    gc.collect()
    gc.freeze()


def _gateway(environment: Environment, feed: RoutingFeed, services: Services, watch: Watching) -> Gateway:
    return Gateway(
        services=services,
        readiness=feed.readiness,
        lets_in=feed.lets_in,
        figures=watch.metrics.render,
        now=_utc_now,
        new_id=lambda: str(uuid7()),
        draw_bits=random.Random().getrandbits,  # noqa: S311 - names for traces; the system's chance costs a call each
        trusted_proxies=environment.proxy_networks,
        figures_for=environment.metrics_networks,
    )


def _services(
    environment: Environment,
    feed: RoutingFeed,
    watch: Watching,
    limits: Limits,
    tickets: Tickets,
    keys: UpstreamKeys,
    meter: Meter,
) -> Services:
    now_s = time.monotonic
    return Services(
        table=lambda: feed.table,
        loads=Loads(stale_s=_stale_s(environment, feed), now_s=now_s, requests_per_gpu=environment.requests_per_gpu),
        breakers=Breakers(now_s=now_s),
        budget=RetryBudget(now_s=now_s),
        calls=Calls(now_s=now_s, address_allowed=address_allowed(environment.outbound_rules)),
        limits=limits,
        queue=Queue(now_s=now_s, tickets=tickets),
        meter=meter,
        watch=watch,
        secret_of=keys.find,
        draw=drawing(),
        now_s=now_s,
        queue_wait_s=environment.queue_wait_s,
    )


def _watching(environment: Environment) -> Watching:
    sink = access_log_sink(environment.access_log)
    return Watching(metrics=Metrics(), access_log=AccessLog(sink, now=_utc_now) if sink else None)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _stale_s(environment: Environment, feed: RoutingFeed) -> Callable[[], float]:
    """The platform's setting, else this process's environment (SPEC 9.1)."""
    key, own = "OPENAI_WORKER_STALE_SECONDS", {"OPENAI_WORKER_STALE_SECONDS": environment.worker_stale_s}
    return lambda: float(resolved(key, feed.table.platform_settings, environment=own))
