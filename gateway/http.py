"""What passes between a client's connection, whoever answers it, and an engine's connection: types without I/O.

    client_connection.py ──Head, body, Reply──> app.py ──> exchange.py ──bytes──> calls.py ──> engine
                         <─────Reply.*────────                          <──Answering.*───
                         ──Attendant.*──> (the client left, is slow, is ready again)

Everything is a plain call on one event loop: no task, no queue and no future stands between two sockets. The surprising
rule: a call may answer before it returns, so whoever starts one must have written down everything first.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A request's head.

    Attributes:
        path: decoded from the target, without its query.
        peer: the address that the connection comes from; "" when unknown.
        given: the same headers to look up; of several lines of one name, the last.
        started_s: monotonic, when its first byte was read.
    """

    method: str
    path: str
    headers: Headers
    given: Mapping[bytes, bytes]
    peer: str
    started_s: float


class Reply(Protocol):
    """The client's end of one request. Exactly one of whole, end and cut is called last; after that, nothing.

    After the client has left every call is allowed and does nothing. Framing (length, chunks, HTTP/1.0) is its own
    business, and so are `connection`, `date` and `content-length`.
    """

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer in one write."""
        ...

    def begin(self, status: int, headers: Headers) -> None:
        """The head of an answer whose length is not known; leaves with the first bytes that follow it."""
        ...

    def send(self, data: bytes) -> None:
        """More of a begun answer; goes out in one write, at the end of the loop's turn at the latest (outbox.py)."""
        ...

    def end(self, data: bytes = b"") -> None:
        """The last of a begun answer, in one write with its framing."""
        ...

    def cut(self) -> None:
        """A begun answer that cannot be finished: the connection is closed, so that the client sees that."""
        ...


class Attendant(Protocol):
    """Whoever answers a request, told what its client does. None of it may raise."""

    def client_left(self) -> None:
        """The connection is gone; said at most once, and not after the reply was finished."""
        ...

    def client_slow(self) -> None:
        """More has been sent than the client reads: read no more from the engine."""
        ...

    def client_ready(self) -> None:
        """The client has caught up."""
        ...


class UpstreamFailure(OSError):  # noqa: N818 - the engine's failure, translated at this one door
    """The engine gave no whole answer. Its text names no bytes of the answer, since it goes to the log.

    Attributes:
        kind: "unreachable", nothing was sent; "dropped", the connection died; "silent", a timeout ran out;
            "malformed", what came is not HTTP.
    """

    def __init__(self, kind: Literal["unreachable", "dropped", "silent", "malformed"], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Answering(Protocol):
    """Whoever called an engine, told what comes. After `answer_data(ended=True)` or `answer_failed` nothing follows."""

    def answer_begun(self, status: int, headers: Headers) -> None:
        """The engine's head, once. No data of the answer has been told yet."""
        ...

    def answer_data(self, data: bytes, *, ended: bool) -> None:
        """All that one read brought, framing removed; may be empty when it ended."""
        ...

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """There will be no (whole) answer."""
        ...


class Call(Protocol):
    """One request to an engine, under way."""

    def leave(self) -> None:
        """Nobody wants the rest: the connection is closed at once, and nothing is told any more."""
        ...

    def count_out(self) -> None:
        """The client has left: tells the engine so (a half-close), and goes on telling what it had sent before it
        stopped, until its end or COUNT_OUT_S; then `answer_data(ended=True)` or `answer_failed` as ever.
        """
        ...

    def pause(self) -> None:
        """Reads no more until `resume`; TCP makes the engine wait."""
        ...

    def resume(self) -> None: ...
