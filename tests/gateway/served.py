"""The real gateway application behind a real uvicorn on a real socket, with a table that the specification tells.

async with served(table) as gateway:      gateway.url, gateway.usage (as USAGE would get it), gateway.spool
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from domain.network import Network
from domain.usage import UsageRecord
from gateway.app import Gateway, Readiness
from gateway.exchange import Services
from gateway.loads import Loads
from gateway.meter import Meter, Posting
from gateway.upstream import Timeouts, client_session
from infra.spool import FileSpool
from projections.routing_table import RoutingTable
from tests.gateway.routing import CLEAR_KEY
from tests.gateway.scripted_engine import BOUND_S

SHUTDOWN_GRACE_S = 0.5
HEADERS = {"authorization": f"Bearer {CLEAR_KEY}"}


@dataclass
class Served:
    url: str
    table: RoutingTable
    spool: FileSpool
    ready: bool = True
    age_s: float = 0.0
    trust_s: float = 600.0
    usage: list[UsageRecord] = field(default_factory=list)

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


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state, bounded."""
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - any state, not only events
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(
    table: RoutingTable,
    *,
    timeouts: Timeouts | None = None,
    spool_bytes: int = 10**6,
    trusted_proxies: Sequence[Network] = (),
) -> AsyncIterator[Served]:
    with TemporaryDirectory() as folder:
        spool = FileSpool(Path(folder) / "spool", max_bytes=spool_bytes)
        one = Served("", table, spool)
        meter = Meter(spool, one.publish)
        async with client_session() as session:
            services = Services(
                table=lambda: one.table,
                loads=Loads(stale_s=lambda: 120, now_s=time.monotonic),
                meter=meter,
                session=session,
                now_s=time.monotonic,
                timeouts=timeouts or Timeouts(),
            )
            counter = itertools.count(1)
            app = Gateway(
                services=services,
                readiness=lambda: _readiness(one),
                now=lambda: datetime.now(UTC),
                new_id=lambda: f"req-{next(counter)}",
                trusted_proxies=trusted_proxies,
            )
            metering = asyncio.ensure_future(meter.run())
            try:
                async with _uvicorn(app) as port:
                    one.url = f"http://127.0.0.1:{port}"
                    yield one
            finally:
                metering.cancel()
                await asyncio.gather(metering, return_exceptions=True)
                await meter.flush()
                spool.close()


def _readiness(one: Served) -> Readiness:
    return Readiness(
        ready=one.ready,
        trusted=one.age_s <= one.trust_s,
        source="test",
        position=one.table.position,
        log_connected=True,
        age_s=one.age_s,
    )


@asynccontextmanager
async def _uvicorn(app: Any) -> AsyncIterator[int]:
    """uvicorn's own protocol on a listener of ours: its server object looks only every 0.1 s whether to stop."""
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            _, unfinished = await asyncio.wait(state.tasks, timeout=SHUTDOWN_GRACE_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        await server.wait_closed()
