"""Requests to engines, and the connections that carry them: one pool for each address, without a task per request.

    begin ──idle connection──> carried ──────────────────> came free ──> idle (last in, first out) ──> closed when old
      └──none idle──> connecting (a task) ──> carried          ^
                                                               │ a reused connection died before a byte of an answer:
                             one more connection ──────────────┘ the request is sent once more, unseen by the caller

The surprising rule: a connection is reused for less time than its engine keeps it open, and even so one can die just as
a request is written. Such a request was read by nobody, so it is sent again; what died on a fresh connection is not.
"""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from gateway.engine_connection import EngineConnection, describe
from gateway.http import Answering, UpstreamFailure
from gateway.origin import KEEPALIVE_S, Origin, Timeouts
from gateway.outbox import Outbox

LONGEST_KEEPALIVE_S: Final = 60.0
"""Whatever an engine announces; routers on the way forget quiet connections sooner than engines do."""
KEEPALIVE_MARGIN_S: Final = 1.0
"""An engine's announced time counts from when it sent, ours from when we read."""
COUNT_OUT_S: Final = 1.0
"""An engine that is told of a leaving client has stopped long before; who has not, is cut."""
MAX_IDLE: Final = 512
"""Idle connections kept for one address; more were needed at once only in a burst that is over."""
MAX_ADDRESSES: Final = 4
"""Of a foreign name that are tried one after the other, all within one connect timeout."""
PROBE_AFTER_S: Final = 15
PROBE_EVERY_S: Final = 5
PROBES: Final = 3
"""A peer that has vanished is noticed after 30 s of silence; also the longest that sent bytes wait to be confirmed."""
AHEAD_BYTES: Final = 64 * 1024
"""What an own engine may have sent that is not read yet; the kernel doubles it, and would take up to 32 MB by itself. A
client who reads slowly and leaves is billed for that, and all others wait while it is read out and counted."""
_ANNOUNCED = re.compile(rb"(?i)\btimeout\s*=\s*(\d{1,6})")


class EngineCall:
    """One request under way; a `Call` for its caller, a `Carried` for its connection."""

    __slots__ = (
        "_pool",
        "answering",
        "connecting",
        "connection",
        "counting",
        "deadline_s",
        "paused",
        "quiet_since_s",
        "request",
        "timeouts",
    )

    def __init__(self, pool: "Pool", request: Sequence[bytes], answering: Answering, timeouts: Timeouts) -> None:
        now_s = pool.shared.now_s()
        self._pool = pool
        self.request = request
        self.answering = answering
        self.timeouts = timeouts
        self.quiet_since_s = now_s
        self.deadline_s = now_s + timeouts.total_s
        self.connection: EngineConnection[EngineCall] | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.paused = self.counting = False

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
        else:
            self._pool.abandon(self)

    def count_out(self) -> None:
        """As the seam says; while still connecting the failure is told before this returns."""
        if self.counting:
            return
        self.counting, self.paused = True, False
        if self.connection is not None:
            self.deadline_s = min(self.deadline_s, self._pool.shared.now_s() + COUNT_OUT_S)
            self.connection.half_close()
        elif self._pool.abandon(self):
            self.answering.answer_failed(UpstreamFailure("unreachable", "the client left before the request was sent"))

    def pause(self) -> None:
        if not self.counting and not self.paused:
            self.paused = True
            if self.connection is not None:
                self.connection.pause()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if self.connection is not None:
                self.connection.resume()

    def overdue(self, now_s: float, *, heard: bool) -> str:
        """Why it has waited too long, or ""; heard: bytes have come since this was asked last."""
        if now_s > self.deadline_s:
            return "the engine did not stop" if self.counting else f"no end within {self.timeouts.total_s:g} s"
        if heard or self.paused:
            self.quiet_since_s = now_s
            return ""
        limit_s = self.timeouts.first_byte_s if self.request else self.timeouts.idle_s
        return f"nothing within {limit_s:g} s" if now_s - self.quiet_since_s > limit_s else ""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all pools of one loop work with.

    Attributes:
        keepalive_s: how long a connection to an engine of ours may be idle, unless the engine announces its own time.
        tls_context: for https.
        address_allowed: asked of each numeric address of a foreign origin before it is connected to.
        outbox: where the connections' writes gather.
    """

    now_s: Callable[[], float]
    keepalive_s: float
    tls_context: Callable[[], Awaitable[ssl.SSLContext]]
    address_allowed: Callable[[Origin, str], bool]
    outbox: Outbox = field(default_factory=Outbox)


class Pool:
    """One origin's connections; their keeper."""

    __slots__ = ("connecting", "connections", "idle", "keepalive_s", "origin", "shared")

    def __init__(self, origin: Origin, shared: Shared) -> None:
        self.origin = origin
        self.shared = shared
        self.keepalive_s = KEEPALIVE_S if origin.foreign else shared.keepalive_s
        self.idle: list[EngineConnection[EngineCall]] = []
        self.connecting: dict[EngineCall, float] = {}
        self.connections: set[EngineConnection[EngineCall]] = set()

    # What calls ask.

    def carry(self, call: EngineCall) -> None:
        """On the connection that was used last, while it is warm."""
        idle, now_s = self.idle, call.quiet_since_s
        while idle:
            connection = idle.pop()
            if connection.expires_s > now_s:
                connection.carry(call)
                return
            connection.close()
        self._connect(call)

    def abandon(self, call: EngineCall) -> bool:
        """Connects for it no longer; False when it was not connecting."""
        if self.connecting.pop(call, None) is None:
            return False
        if call.connecting is not None:
            call.connecting.cancel()
        return True

    # What connections tell.

    def came_free(self, connection: EngineConnection[EngineCall]) -> None:
        kept_s = self.keepalive_s if connection.announced is None else _announced_s(connection.announced)
        if kept_s > 0 and len(self.idle) < MAX_IDLE:
            connection.expires_s = self.shared.now_s() + kept_s
            self.idle.append(connection)
        else:
            connection.close()

    def unusable(self, connection: EngineConnection[EngineCall]) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def broke(self, carried: EngineCall, failure: UpstreamFailure, *, unheard: bool) -> None:
        if unheard:
            self._connect(carried)
        else:
            carried.answering.answer_failed(failure)

    def gone(self, connection: EngineConnection[EngineCall]) -> None:
        self.connections.discard(connection)

    # Connecting, and timeouts.

    def _connect(self, call: EngineCall) -> None:
        self.connecting[call] = self.shared.now_s() + call.timeouts.connect_s
        call.connecting = asyncio.get_running_loop().create_task(self._connected(call))

    async def _connected(self, call: EngineCall) -> None:
        try:
            connection = await self._opened()
        except (OSError, ValueError) as error:
            del self.connecting[call]
            call.answering.answer_failed(UpstreamFailure("unreachable", describe("connect", error)))
            return
        del self.connecting[call]
        self.connections.add(connection)
        connection.carry(call)

    async def _opened(self) -> EngineConnection[EngineCall]:
        """A new connection. Raises OSError, ValueError: nobody of that name, nobody there, or nobody we may talk to."""
        origin = self.origin
        tls = await self.shared.tls_context() if origin.scheme == "https" else None
        refused: OSError = PermissionError(errno.EACCES, "the address is not allowed")
        for address in await self._addresses():
            try:
                transport, connection = await asyncio.get_running_loop().create_connection(
                    partial(EngineConnection, self, self.shared.outbox),
                    address,
                    origin.port,
                    ssl=tls,
                    server_hostname=origin.host if tls else None,
                )
            except OSError as error:
                refused = error
                continue
            if not transport.is_closing():
                _notice_vanished_peers(transport)
                if not origin.foreign:  # whose answers come from far away: a small window would make them slow
                    _stay_close(transport)
                return connection
            refused = ConnectionResetError(errno.ECONNRESET, "closed at once")
        raise refused

    async def _addresses(self) -> Sequence[str]:
        """A foreign name is resolved here, so that what was judged is what is connected to, and no other is tried."""
        origin = self.origin
        if not origin.foreign:
            return (origin.host,)
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(place[0]) for *_, place in found)
        return [address for address in addresses if self.shared.address_allowed(origin, address)][:MAX_ADDRESSES]

    def sweep(self, now_s: float) -> bool:
        """Ends what has waited too long; False when nothing is left of it all."""
        for connection in tuple(self.connections):
            call = connection.carried
            if call is not None:
                late = call.overdue(now_s, heard=connection.heard)
                connection.heard = False
                if late:
                    connection.fail(UpstreamFailure("silent", late))
        for waiting, until_s in tuple(self.connecting.items()):
            if now_s > min(until_s, waiting.deadline_s):
                self.abandon(waiting)
                late = f"connect: no answer within {waiting.timeouts.connect_s:g} s"
                waiting.answering.answer_failed(UpstreamFailure("unreachable", late))
        for connection in [connection for connection in self.idle if connection.expires_s <= now_s]:
            self.idle.remove(connection)
            connection.close()
        return bool(self.connections or self.connecting)


def _announced_s(announced: bytes) -> float:
    """`keep-alive: timeout=5, max=100` as seconds that a connection may be reused; 0 when it says nothing of use."""
    found = _ANNOUNCED.search(announced)
    return min(float(found[1]) - KEEPALIVE_MARGIN_S, LONGEST_KEEPALIVE_S) if found else 0.0


def _stay_close(transport: asyncio.BaseTransport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AHEAD_BYTES)


def _notice_vanished_peers(transport: asyncio.BaseTransport) -> None:
    """A host that lost its power sends no farewell: the kernel asks, so that a call fails long before `idle_s`."""
    peer = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (PROBE_AFTER_S + PROBES * PROBE_EVERY_S))
