"""The real gateway on a real socket, with a table that the specification tells.

async with served(table) as gateway:      gateway.url, gateway.usage (as USAGE would get it), gateway.spool
"""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import msgspec

from domain.network import Network, networks_of
from domain.usage import UsageRecord
from gateway.account import Account
from gateway.app import Gateway, Readiness
from gateway.breaker import Breakers, RetryBudget
from gateway.calls import PLAIN, STREAMED, Calls, Timeouts
from gateway.client_limits import ClientLimits
from gateway.foreign import Addressed, FindKey
from gateway.limits import Limits
from gateway.loads import REQUESTS_PER_GPU, Loads
from gateway.meter import Journal, Meter, Posting
from gateway.queueing import Queue
from gateway.server import ClientServer
from gateway.services import Services
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.tickets import Tickets
from infra.spool import FileSpool
from projections.routing_table import RoutingTable
from tests.gateway.routing import CLEAR_KEY
from tests.gateway.scripted_engine import BOUND_S

SHUTDOWN_GRACE_S = 0.5
SWEEP_S = 0.02
"""So that a specification of a timeout takes no longer than the timeout."""
HEADERS = {"authorization": f"Bearer {CLEAR_KEY}"}


@dataclass
class Served:
    """A running gateway. `refused` and `traces` are what its watch was told."""

    url: str
    table: RoutingTable
    spool: FileSpool
    ready: bool = True
    age_s: float = 0.0
    trust_s: float = 600.0
    usage: list[UsageRecord] = field(default_factory=list)
    refusals: list[tuple[str, int]] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    retries: int = 0
    limits: Limits = field(init=False)
    loads: Loads = field(init=False)
    calls: Calls = field(init=False)

    async def publish(self, postings: Sequence[Posting]) -> None:
        self.usage += [msgspec.json.decode(posting.payload, type=UsageRecord) for posting in postings]

    async def recorded(self, count: int = 1) -> list[UsageRecord]:
        """The usage records, once there are so many."""
        await until(lambda: len(self.usage) >= count)
        return self.usage

    @asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(self.url, headers=HEADERS) as session:
            yield session

    def finished(self, account: Account) -> None:
        self.accounts.append(account)

    def refused(self, code: str, status: int, **_: object) -> None:
        self.refusals.append((code, status))

    def retried(self) -> None:
        self.retries += 1


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state, bounded."""
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - any state, not only events
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(
    table: RoutingTable,
    *,
    streamed: Timeouts = STREAMED,
    plain: Timeouts = PLAIN,
    spool_bytes: int = 10**6,
    trusted_proxies: Sequence[Network] = (),
    requests_per_gpu: int = REQUESTS_PER_GPU,
    secret_of: FindKey = lambda _: None,
    address_allowed: Callable[[Addressed, str], bool] = lambda _origin, _address: True,
    journal: Journal | None = None,
    client_limits: ClientLimits | None = None,
) -> AsyncIterator[Served]:
    now_s, counter = time.monotonic, itertools.count(1)
    with TemporaryDirectory() as folder:
        spool = FileSpool(Path(folder) / "spool", max_bytes=spool_bytes)
        one = Served("", table, spool)
        meter = Meter(spool, one.publish, journal)
        one.loads = Loads(stale_s=lambda: 120, now_s=now_s, requests_per_gpu=requests_per_gpu)
        one.limits = Limits(SharedCounts("test"), SpendBook(), now_s=now_s)
        one.calls = Calls(now_s=now_s, sweep_s=SWEEP_S, address_allowed=address_allowed)
        services = Services(
            table=lambda: one.table,
            loads=one.loads,
            breakers=Breakers(now_s=now_s),
            budget=RetryBudget(now_s=now_s),
            calls=one.calls,
            limits=one.limits,
            queue=Queue(now_s=now_s, tickets=Tickets(wall_s=time.time)),
            meter=meter,
            watch=one,
            secret_of=secret_of,
            draw=lambda _: 0,
            now_s=now_s,
            streamed=streamed,
            plain=plain,
        )
        gateway = Gateway(
            services=services,
            readiness=lambda: _readiness(one),
            lets_in=lambda: one.ready and one.age_s <= one.trust_s,
            figures=lambda: ("text/plain", b""),
            now=lambda: datetime.now(UTC),
            new_id=lambda: f"req-{next(counter)}",
            draw_bits=lambda _: next(counter),
            trusted_proxies=trusted_proxies,
            figures_for=networks_of(["127.0.0.1"]),
        )
        limits = client_limits or ClientLimits(farewell_s=0, sweep_s=SWEEP_S)
        async with _listening(ClientServer(gateway, limits=limits, now_s=now_s), gateway) as one.url:
            yield one
        await meter.flush()
        spool.close()
        assert one.limits.dropped == 0


@asynccontextmanager
async def _listening(server: ClientServer, gateway: Gateway) -> AsyncIterator[str]:
    """Serves at the address that it yields; afterwards everything has been told that was under way."""
    services = gateway.services
    tasks = [asyncio.ensure_future(work) for work in (services.meter.run(), gateway.keep_swept())]
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await server.listen(listener)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop_listening()
        await server.drained(SHUTDOWN_GRACE_S)
        await services.settled()
        await services.calls.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _readiness(one: Served) -> Readiness:
    return Readiness(
        ready=one.ready,
        trusted=one.age_s <= one.trust_s,
        source="test",
        position=one.table.position,
        log_connected=True,
        age_s=one.age_s,
    )
