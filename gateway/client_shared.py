"""What all connections of one server have in common: who answers, the limits, a coarse clock, the heads of replies."""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

from gateway.client_limits import ClientLimits
from gateway.http import Attendant, Head, Headers, Reply
from gateway.outbox import Outbox
from gateway.wire import Refusal

SMALL_BODY_BYTES = 64 * 1024
"""A body of up to so much is taken on every path; only larger ones are held against the application's bound."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Application(Protocol):
    """What answers. None of its calls waits, and none may raise anything but the Refusal that it names."""

    def admit(self, head: Head) -> Any:
        """Before the body is waited for. What it returns comes back in `answer`.

        Raises:
            Refusal: the request is answered with it, its body unread.
        """
        ...

    def answer(self, head: Head, admitted: Any, body: bytes, reply: Reply) -> Attendant | None:
        """The body is whole. May answer before it returns.

        Returns:
            Who is told of the client from now on; None when it is answered already, or nobody wants to know.

        Raises:
            Refusal: it has not used `reply`; the request is answered with it.
        """
        ...

    def refusal(self, head: Head | None, refusal: Refusal) -> tuple[int, Headers, bytes]:
        """How a refusal reads; without a head the request's own head was not understood."""
        ...

    def cuts_off(self) -> None:
        """The server stops and waits no longer: whoever is told from now on that its client left was cut off by us."""
        ...

    def max_body_bytes(self, head: Head) -> int:
        """Asked of bodies over SMALL_BODY_BYTES alone."""
        ...


class Connection(Protocol):
    """As whoever sweeps or stops sees it.

    Attributes:
        deadline_s: when `expire` is to be called.
        is_answering: the application has a request of this client, and has not finished its reply.
    """

    deadline_s: float

    @property
    def is_answering(self) -> bool: ...

    def expire(self) -> None: ...

    def stop(self) -> None:
        """No more requests are wanted: an idle connection goes soon, any other after its reply."""
        ...

    def cut_off(self) -> None:
        """Closes at once; what the client has not taken is lost."""
        ...


class Shared:
    """Held by the server and by each of its connections.

    Attributes:
        tick_s: the time of the last sweep; near enough for timers of seconds, and read without asking a clock.
        idle_s: how long a connection may be idle now.
        connections: all that are open.
        outbox: where their writes gather.
        stopping: every reply closes its connection.
        all_closed: set when stopping and no connection is open.
    """

    __slots__ = (
        "_date",
        "_openings",
        "all_closed",
        "application",
        "connections",
        "idle_s",
        "limits",
        "now_s",
        "outbox",
        "stopping",
        "tick_s",
    )

    def __init__(
        self, application: Application, limits: ClientLimits, now_s: Callable[[], float], outbox: Outbox | None = None
    ) -> None:
        self.application = application
        self.limits = limits
        self.now_s = now_s
        self.idle_s = limits.idle_s
        self.connections: set[Connection] = set()
        self.outbox = outbox or Outbox()
        self.stopping = False
        self.all_closed = asyncio.Event()
        self.tick()

    def tick(self) -> None:
        """To be called with each sweep."""
        self.tick_s = self.now_s()
        self._date = formatdate(usegmt=True)
        self._openings: dict[int, bytes] = {}

    def opening(self, status: int) -> bytes:
        """A reply's first two lines, made once a tick; the end of the second is left out."""
        known = self._openings.get(status)
        if known is None:
            phrase = _PHRASES.get(status, "")
            known = self._openings[status] = f"HTTP/1.1 {status} {phrase}\r\ndate: {self._date}".encode()
        return known

    def stop(self) -> None:
        self.stopping = True
        self.idle_s = self.limits.farewell_s
        for connection in self.connections:
            connection.stop()
        self._see_whether_all_closed()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._see_whether_all_closed()

    def _see_whether_all_closed(self) -> None:
        if self.stopping and not self.connections:
            self.all_closed.set()
