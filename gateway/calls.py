"""Requests to all engines: a pool of connections for each address, and one sweeper for every timeout there is.

    begin(origin, request, answering) ──> engine_pool.py ──> engine_connection.py ──> answering.*

Nothing here waits: a call exists at once, connected or not, and can be left, paused and counted out from then on.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from gateway.engine_pool import EngineCall, Pool, Shared
from gateway.http import Answering
from gateway.origin import OWN_KEEPALIVE_S, PLAIN, STREAMED, Origin, Timeouts, origin_of

__all__ = [
    "PLAIN",
    "STREAMED",
    "Calls",
    "EngineCall",
    "Origin",
    "Timeouts",
    "origin_of",
]

SWEEP_S: Final = 0.5
"""Every timeout may come this much late, never early."""
CLOSING_TIMEOUT_S: Final = 1.0


class Calls:
    """All calls and connections of one event loop.

    Args:
        now_s: a monotonic clock.
        sweep_s: how often timeouts are looked at.
        keepalive_s: how long a connection to an engine of ours is reused.
        tls: for https; None means the system's certificates, read when first needed.
        address_allowed: whether a foreign origin may be called at a numeric address; without it, none may.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        sweep_s: float = SWEEP_S,
        keepalive_s: float = OWN_KEEPALIVE_S,
        tls: ssl.SSLContext | None = None,
        address_allowed: Callable[[Origin, str], bool] = lambda _origin, _address: False,
    ) -> None:
        self._now_s = now_s
        self._sweep_s = sweep_s
        self._tls = tls
        self._shared = Shared(
            now_s=now_s, keepalive_s=keepalive_s, tls_context=self._tls_context, address_allowed=address_allowed
        )
        self._pools: dict[Origin, Pool] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """Carrying, idle and closing."""
        return sum(len(pool.connections) for pool in self._pools.values())

    @property
    def origins(self) -> Sequence[Origin]:
        """Those with a connection, or with one to be."""
        return tuple(self._pools)

    @property
    def idle_connections(self) -> int:
        return sum(len(pool.idle) for pool in self._pools.values())

    def begin(
        self, origin: Origin, request: Sequence[bytes], answering: Answering, *, timeouts: Timeouts = STREAMED
    ) -> EngineCall:
        """Sends a complete request, head and body. Must be called on the loop; nothing is told before it returns."""
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, self._shared)
            if self._sweeper is None:
                self._sweep_later()
        call = EngineCall(pool, request, answering, timeouts)
        pool.carry(call)
        return call

    async def close(self) -> None:
        """Closes everything; calls under way are told nothing more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        pools, self._pools = list(self._pools.values()), {}
        tasks = [call.connecting for pool in pools for call in tuple(pool.connecting) if pool.abandon(call)]
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        for connection in [connection for pool in pools for connection in pool.connections]:
            connection.close()
        async with asyncio.timeout(CLOSING_TIMEOUT_S):
            while any(pool.connections for pool in pools):  # noqa: ASYNC110 - told within the loop's next turns
                await asyncio.sleep(0)

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later()
        now_s = self._now_s()
        for origin, pool in tuple(self._pools.items()):
            if not pool.sweep(now_s):
                del self._pools[origin]

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(_system_context)  # reads some hundred certificates
        return self._tls


def _system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
