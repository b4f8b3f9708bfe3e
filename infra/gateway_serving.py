"""A gateway's time at its socket: taken over from a running one or bound, served, given to the next one or closed.

    is another one serving here? ──no──> bind ───────────────────┐
            └──yes──> wait until the table is good ──> take it ──┴─> serve ──SIGTERM──> finish, 8 s at most
                                                                      └──given away──> finish, INVENTIV_DRAIN_S at most

The surprising rule: a gateway that cannot serve yet takes nothing over; the old one goes on meanwhile.
"""

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Protocol

import structlog

from infra.environment import Environment, activated_socket
from infra.finishing import note_finishing
from infra.handover import Inheritance, Offer, is_offered, take
from infra.processes.roles import say_ready

DRAIN_S = 8
"""Running answers get this long when the gateway is told to stop; `inventiv up` kills a role after 12 s."""
WATCH_S = 0.5
"""Between two looks at the predecessor, and between two counts of what is still to be finished."""
BIND_ATTEMPTS = 5
BIND_PAUSE_S = 0.2
"""A gateway that has just begun to serve makes its offer within a pause, and one that ends is gone."""
BACKLOG = 2048
"""Connections that the kernel holds while nobody accepts."""
_log = structlog.get_logger(__name__)


class Server(Protocol):
    """gateway.server.ClientServer as seen from here."""

    @property
    def open_requests(self) -> int: ...

    async def listen(self, listener: socket.socket) -> None: ...

    def stop_listening(self) -> None: ...

    async def drained(self, timeout_s: float) -> int: ...


class Feed(Protocol):
    """infra.routing_feed.RoutingFeed as seen from here."""

    ready: asyncio.Event

    async def settle(self) -> None: ...


class Place:
    """Where a gateway serves. `open` it before anything else, so that a taken address is told at once.

    Args:
        environment: the address; how long to finish.
        folder: of all the data folder's gateways; private to the account.
    """

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._listener: socket.socket | None = None
        self._inheritance: Inheritance | None = None

    async def open(self) -> None:
        """Binds the address, unless systemd has, or a gateway of this data folder serves there and will give it away.

        Raises:
            OSError: the address is taken by somebody else.
        """
        if (fd := activated_socket()) is not None:
            self._listener = socket.socket(fileno=fd)
            return
        for attempt in range(1, BIND_ATTEMPTS + 1):
            if is_offered(self._folder, self._environment.gateway_port):
                return
            try:
                self._listener = self._bound()
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt == BIND_ATTEMPTS:
                    raise
                await asyncio.sleep(BIND_PAUSE_S)
            else:
                return

    async def serve(self, server: Server, feed: Feed, stop: asyncio.Event, *, own_folder: Path) -> None:
        """Returns when all is finished: after the stop, or after another gateway has taken over.

        Args:
            server: has not begun to listen.
            feed: running; a predecessor serves until its table is good.
            stop: set by the caller's signal handlers.
            own_folder: of this process alone.

        Raises:
            OSError: the gateway that serves here gives nothing.
        """
        await feed.settle()
        if self._listener is None:
            self._listener = await self._taken_over(feed, stop)
        if stop.is_set():
            self._inheritance.decline() if self._inheritance else self._listener.close()
            return
        await server.listen(self._listener)
        if self._inheritance is not None:
            self._inheritance.serving()
        offer = Offer(self._folder, self._listener)
        say_ready(self._environment, "gateway")
        _log.info("serving", taken_over=self._inheritance is not None)
        is_given = await _given_before(stop, offer)
        offer.close()
        server.stop_listening()
        if is_given:
            await _finish(server, stop, own_folder, self._environment.drain_s)
        if left := await server.drained(DRAIN_S):
            _log.warning("requests_cut", requests=left)

    async def _taken_over(self, feed: Feed, stop: asyncio.Event) -> socket.socket:
        while is_offered(self._folder, self._environment.gateway_port):
            if feed.ready.is_set() or stop.is_set():
                self._inheritance = await take(self._folder, self._environment.host, self._environment.gateway_port)
                break
            await asyncio.sleep(WATCH_S)
        return self._inheritance.listener if self._inheritance else self._bound()

    def _bound(self) -> socket.socket:
        return socket.create_server((self._environment.host, self._environment.gateway_port), backlog=BACKLOG)


async def _given_before(stop: asyncio.Event, offer: Offer) -> bool:
    """Whether a successor has taken over; False once the stop is wanted."""
    given, stopped = asyncio.ensure_future(offer.taken()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({given, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return given.done()
    finally:
        for task in (given, stopped):
            task.cancel()
        await asyncio.gather(given, stopped, return_exceptions=True)


async def _finish(server: Server, stop: asyncio.Event, own_folder: Path, drain_s: float) -> None:
    """Waits for the last request, saying how many there are; a stop signal and the bound cut that short."""
    _log.info("taken_over", open_requests=server.open_requests)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain_s):
            while server.open_requests and not stop.is_set():
                note_finishing(own_folder, server.open_requests)
                await asyncio.sleep(WATCH_S)
    note_finishing(own_folder, 0)
