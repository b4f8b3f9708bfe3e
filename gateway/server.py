"""Accepts the clients' connections, looks after their timers, and lets them finish when the gateway stops.

    listen ──> connections ──sweep, each second──> whoever's deadline has passed is told
    stop_listening ──> replies close their connections, idle ones go ──> drained

One sweep replaces a timer per request. The surprising rule: an idle connection is not closed at the moment of the stop
but a second later, since a request may be on its way on it; so a restart loses none.
"""

import asyncio
import socket
from collections.abc import Callable

from gateway.client_connection import ClientConnection
from gateway.client_limits import ClientLimits
from gateway.client_shared import Application, Shared

BACKLOG = 2048
"""Connections that the kernel holds until they are accepted."""
DEAD_PEER_IDLE_S, DEAD_PEER_PROBE_S, DEAD_PEER_PROBES = 60, 15, 4
"""A client that vanished without a word is noticed after two minutes, so that no engine works for it much longer."""
UNSENT_IN_KERNEL_BYTES = 128 * 1024
"""For one client; the kernel would take 4 MB for each that reads slowly, all of it read from an engine and counted."""
_DEFAULT = ClientLimits()


class ClientServer:
    """One listener on one event loop."""

    def __init__(
        self, application: Application, *, limits: ClientLimits = _DEFAULT, now_s: Callable[[], float]
    ) -> None:
        self._shared = Shared(application, limits, now_s)
        self._server: asyncio.Server | None = None

    @property
    def open_requests(self) -> int:
        """Requests that the application has and has not finished."""
        return sum(connection.is_answering for connection in self._shared.connections)

    @property
    def open_connections(self) -> int:
        return len(self._shared.connections)

    async def listen(self, listener: socket.socket) -> None:
        """Takes over a bound socket; connections inherit the options set here."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio, unlike uvloop, may leave it off
        for name, value in (
            ("TCP_KEEPIDLE", DEAD_PEER_IDLE_S),
            ("TCP_KEEPINTVL", DEAD_PEER_PROBE_S),
            ("TCP_KEEPCNT", DEAD_PEER_PROBES),
            ("TCP_NOTSENT_LOWAT", UNSENT_IN_KERNEL_BYTES),
        ):
            if hasattr(socket, name):  # not every system has each
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        loop = asyncio.get_running_loop()
        shared = self._shared
        self._server = await loop.create_server(lambda: ClientConnection(shared), sock=listener, backlog=BACKLOG)
        self._sweep_later()

    def stop_listening(self) -> None:
        """Accepts no more; asking twice is welcome."""
        if self._server:
            self._server.close()
        self._shared.stop()

    async def drained(self, timeout_s: float) -> int:
        """Waits until every connection has closed.

        Returns:
            How many requests were still open after timeout_s, and were cut.
        """
        shared = self._shared
        try:
            async with asyncio.timeout(timeout_s):
                await shared.all_closed.wait()
        except TimeoutError:
            open_requests = self.open_requests
            shared.application.cuts_off()
            for connection in tuple(shared.connections):
                connection.cut_off()
            return open_requests
        return 0

    def _sweep_later(self) -> None:
        asyncio.get_running_loop().call_later(self._shared.limits.sweep_s, self._look_round)

    def _look_round(self) -> None:
        shared = self._shared
        shared.tick()
        for connection in [one for one in shared.connections if one.deadline_s < shared.tick_s]:
            connection.expire()
        if not shared.stopping or shared.connections:
            self._sweep_later()
