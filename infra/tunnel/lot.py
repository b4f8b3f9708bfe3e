"""Where tunnels wait: the connections that agents parked, by instance, and those who wait for one.

    agent ──> park ──> idle ──take──> busy ──put──> idle          idle too long, too old, or without a pong ──> closed

The surprising rule: "none" and "none free" are different answers. An instance without any connection is unreachable,
and that is said at once; one whose connections are all busy is waited for, because its agent parks another right now.
"""

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import structlog

from agent.frames import Target
from infra.tunnel.connection import Call, TunnelConnection

FREE_TIMEOUT_S = 5.0
OPEN_TIMEOUT_S = 5.0
PING_EVERY_S = 15.0
PONG_TIMEOUT_S = 10.0
PARKED_LIFE_S = 300.0
"""A connection proves itself again after this long, so a token that ended is worth nothing any more."""
KEPT_IDLE = 8
"""Of one instance: twice what an agent parks by itself. More were needed at once only in a burst that is over."""
MAX_PER_INSTANCE = 512
MAX_CONNECTIONS = 20_000
TRIES = 3
"""Parked connections that may turn out to be dead before a request is given up."""

_log = structlog.get_logger(__name__)


class NoTunnelError(Exception):
    """The instance cannot be reached; the message says why."""


class Lot:
    """All tunnels of one relay."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._all: dict[str, set[TunnelConnection]] = defaultdict(set)
        self._idle: dict[str, deque[TunnelConnection]] = defaultdict(deque)
        self._waiting: dict[str, deque[asyncio.Future[TunnelConnection]]] = defaultdict(deque)
        self.count = 0

    def has_room(self, instance_id: str) -> bool:
        return self.count < MAX_CONNECTIONS and len(self._all.get(instance_id, ())) < MAX_PER_INSTANCE

    def park(self, connection: TunnelConnection) -> None:
        """A new one."""
        if connection.instance_id not in self._all:
            _log.info("tunnel_up", instance=connection.instance_id)
        self._all[connection.instance_id].add(connection)
        self.count += 1
        self.put(connection)

    def put(self, connection: TunnelConnection) -> None:
        """It is idle: for whoever waits longest, else for the next who asks."""
        if connection not in self._all.get(connection.instance_id, ()):
            return  # it was removed while it was busy
        waiting = self._waiting.get(connection.instance_id, deque())
        while waiting:
            first = waiting.popleft()
            if not first.done():
                first.set_result(connection)
                return
        self._idle[connection.instance_id].append(connection)

    def remove(self, connection: TunnelConnection) -> None:
        """It is closed."""
        id_ = connection.instance_id
        if connection not in self._all.get(id_, ()):
            return
        self._all[id_].discard(connection)
        self.count -= 1
        with contextlib.suppress(ValueError):
            self._idle[id_].remove(connection)
        if not self._all[id_]:
            _log.info("tunnel_down", instance=id_)
            for waiting in self._waiting.pop(id_, ()):
                if not waiting.done():
                    waiting.set_exception(NoTunnelError("its last tunnel closed"))
            del self._all[id_]
            self._idle.pop(id_, None)

    def close(self) -> None:
        """Ends them all, and whatever they carry."""
        for connection in [connection for known in self._all.values() for connection in known]:
            connection.close()

    async def open(self, instance_id: str, target: Target, call: Call) -> TunnelConnection:
        """A connection at whose other end `target` listens, and what it says is the call's.

        Raises:
            NoTunnelError: there is none, or none became free in time, or nobody listens.
        """
        for _ in range(TRIES):
            connection = await self._take(instance_id)
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    why_not = await connection.open(target, call)
            except OSError:  # it was dead, and nothing of the request was sent: another one may do
                connection.close()
                self.remove(connection)
                continue
            except asyncio.CancelledError:
                connection.close()
                raise
            if not why_not:
                return connection
            self.put(connection)
            raise NoTunnelError(f"the {target} does not answer its agent: {why_not}")
        raise NoTunnelError(f"{TRIES} tunnels were dead")

    async def _take(self, instance_id: str) -> TunnelConnection:
        if instance_id not in self._all:
            raise NoTunnelError("no tunnel is parked")
        idle = self._idle[instance_id]
        if idle:
            return idle.pop()  # the one that spoke last
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[instance_id].append(waiting)
        try:
            async with asyncio.timeout(FREE_TIMEOUT_S):
                return await asyncio.shield(waiting)
        except (TimeoutError, asyncio.CancelledError) as error:
            if not waiting.cancel() and waiting.exception() is None:
                self.put(waiting.result())  # it came at the very moment
            if isinstance(error, TimeoutError):
                raise NoTunnelError(f"no tunnel became free within {FREE_TIMEOUT_S:g} s") from error
            raise

    async def keep_awake(self) -> None:
        """Endless."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            self.look_after()

    def look_after(self) -> None:
        """Pings what is idle; closes what is dead, and what is spare or old. Those used last stand at the end."""
        for idle in tuple(self._idle.values()):
            self._look_after(tuple(idle))

    def _look_after(self, idle: Sequence[TunnelConnection]) -> None:
        for place, connection in enumerate(idle, start=1 - len(idle)):
            spare = -place >= KEPT_IDLE or self._now_s() - connection.parked_at_s > PARKED_LIFE_S
            if self._now_s() - connection.heard_at_s > PING_EVERY_S + PONG_TIMEOUT_S:
                connection.close()
                self.remove(connection)
            elif spare:
                self.remove(connection)
                connection.dismiss()
            else:
                connection.ping()
