"""What ties a gateway to NATS, as soon as that answers: its routing feed, the heartbeats, the way of usage records,
what other gateways have counted, and what has been spent.

The surprising rule: nothing here is needed to serve. Until NATS answers the gateway works from its copy of the table,
and its usage records wait on disk.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from gateway.loads import Loads
from infra.cancellation import heed_cancellation
from infra.environment import Environment, NatsLogin
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import LogUnavailableError
from infra.events.streams import verify_server
from infra.limit_exchange import LimitExchange
from infra.routing_feed import RoutingFeed, follow_heartbeats
from infra.spend_feed import SpendFeed
from infra.usage_stream import UsageStream

NAME = "gateway"
PROOF_BUDGET_S = 1.0
"""Less than one reply's timeout: a question without an answer is asked anew, for only then it proves anything newer."""

_log = structlog.get_logger(__name__)


async def keep_linked(
    environment: Environment,
    feed: RoutingFeed,
    loads: Loads,
    usage: UsageStream,
    exchange: LimitExchange,
    spend: SpendFeed,
    stack: AsyncExitStack,
) -> None:
    """Connects, then follows the log until cancelled; connections come back by themselves and live in `stack`.

    Raises:
        UnfitServerError: the server could lose what it acknowledges, or lacks a stream.
    """
    reader = await _connected(connect_reader, environment, stack)
    await verify_server(reader, environment.nats_monitor_url, replicas=environment.nats_replicas)
    writer = await _connected(connect_writer, environment, stack)
    usage.connect(writer)
    await exchange.connect(reader, writer)
    await follow_heartbeats(reader, loads)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed.follow(JetStreamLog(reader), Codec(AGGREGATES), lambda: reader.is_connected))
        tasks.create_task(spend.follow(reader))
        tasks.create_task(feed.keep_proven(JetStreamLog(reader, retry_budget_s=PROOF_BUDGET_S)))


async def _connected(
    connect: Callable[[str, str, NatsLogin], Awaitable[Client]], environment: Environment, stack: AsyncExitStack
) -> Client:
    while True:  # endless by contract; each try is bounded
        heed_cancellation()
        try:
            client = await connect(environment.nats_url, NAME, environment.nats_login)
        except LogUnavailableError as error:
            _log.warning("nats_unavailable", reason=str(error))
        else:
            stack.push_async_callback(disconnect, client)
            return client
