"""One connection to an engine: requests one after the other, each answer told as the network brings it.

    idle ──carry(request)──> waiting ──head──> streaming ──end──> idle again, or closed
                                └── lost before a byte of an answer: its keeper may send the request once more

llhttp (httptools) does the framing; what one read brings is told in one call. The surprising rule: the parser appends
pieces of a body to a list by itself (`on_body` is that list's own `append`), since a call into Python for each piece
would be a fifth of what a streamed chunk costs here.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import httptools

from gateway.http import Answering, Headers, UpstreamFailure
from gateway.known_head import LESSONS, KnownHead, known_of, without_length
from gateway.outbox import Outbox, Outgoing

MAX_DRY_BYTES: Final = 64 * 1024
"""Longest head, trailer or extension of a chunk, rounded up to a read: bytes of an answer that are no data."""


class Carried(Protocol):
    """The call that a connection carries.

    Attributes:
        request: the complete request, until a byte of an answer has come.
        connection: None before it is carried, and once its connection has nothing more to do with it.
        paused: wants to read nothing now.
    """

    answering: Answering
    request: Sequence[bytes]
    connection: "EngineConnection[Any] | None"
    paused: bool


C = TypeVar("C", bound=Carried)


class Keeper(Protocol[C]):
    """Who keeps the connections; told before the call's end is."""

    def came_free(self, connection: "EngineConnection[C]") -> None:
        """The answer is complete, and another request may follow."""
        ...

    def unusable(self, connection: "EngineConnection[C]") -> None:
        """An idle connection that can carry nothing more, since the engine is closing it or speaks unasked."""
        ...

    def broke(self, carried: C, failure: UpstreamFailure, *, unheard: bool) -> None:
        """The answer will not come on this connection. Unheard: a reused one, which died before a byte of an answer."""
        ...

    def gone(self, connection: "EngineConnection[C]") -> None:
        """The socket is closed."""
        ...


class _UnaskedError(Exception):
    """Bytes where no answer is awaited. Raised through llhttp, so that it reads no further."""


class EngineConnection(asyncio.Protocol, Generic[C]):
    """One socket.

    Attributes:
        heard: bytes have come since somebody set it to False.
        announced: the value of the first answer's `keep-alive`, if it had one.
        expires_s: its keeper's: from when on an idle one is too old.
    """

    __slots__ = (
        "_answering",
        "_answers",
        "_dry_bytes",
        "_ended",
        "_feed",
        "_half_closed",
        "_head_came",
        "_headers",
        "_keeper",
        "_known",
        "_known_headers",
        "_lessons",
        "_out",
        "_outbox",
        "_parser",
        "_pieces",
        "_reusable",
        "_status",
        "_streaming",
        "_told",
        "_transport",
        "announced",
        "carried",
        "expires_s",
        "heard",
        "on_body",
    )

    def __init__(self, keeper: Keeper[C], outbox: Outbox) -> None:
        self._keeper = keeper
        self._outbox = outbox
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._headers: list[tuple[bytes, bytes]] = []
        self._told: Headers = ()
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._status = 0
        self._dry_bytes = 0
        self._head_came = self._streaming = self._reusable = self._half_closed = False
        self._ended = True
        self.carried: C | None = None
        self._answers = 0
        self._known: KnownHead | None = None  # only while the parser stands at the end of an answer
        self._known_headers: Headers = ()
        self._lessons = LESSONS
        self.announced: bytes | None = None
        self.expires_s = 0.0
        self.heard = False

    # What its keeper and the call that it carries ask of it.

    def carry(self, carried: C) -> None:
        """Sends the call's request. The connection must be idle."""
        self.carried = carried
        carried.connection = self
        self._answering = carried.answering
        self._headers = []
        self._dry_bytes = 0
        self._ended = self._head_came = self._streaming = self.heard = False
        self._out.writelines(carried.request)
        if carried.paused:
            self.pause()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def half_close(self) -> None:
        """Nothing more will be asked; what the engine has sent before it saw that is still read. Not over TLS."""
        self._half_closed = True
        self.resume()
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._out.flush()
            try:
                self._transport.write_eof()
            except OSError as error:  # the engine has reset the connection, which was not yet told
                self.fail(UpstreamFailure("dropped", describe("half-close", error)))

    def close(self) -> None:
        """At once; the call that it carries is told nothing more."""
        self._let_go()
        self._abort()

    def fail(self, failure: UpstreamFailure) -> None:
        """Ends the call that it carries with a failure, and itself."""
        carried, reused = self.carried, self._answers > 0
        self.close()
        if carried is not None:
            unheard = reused and failure.kind == "dropped" and bool(carried.request) and not self._half_closed
            self._keeper.broke(carried, failure, unheard=unheard)

    # What the network tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._out = Outgoing(self._transport, self._outbox)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        known = self._known
        if known is not None:
            if self.carried is not None and (body := known.body_in(data)):
                self._recognise(data, body)
                return
            self._known = None
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._turn(len(data), error)
            return
        pieces = self._pieces
        if self._streaming and pieces:
            data = b"".join(pieces)
            pieces.clear()
            self._dry_bytes = 0
            self._answering.answer_data(data, ended=False)
        else:
            if self._head_came and self._ended and self._reusable and self._lessons and self.carried is not None:
                self._learn(data)
            self._turn(len(data), None)

    def eof_received(self) -> None:
        """The transport closes itself after this; nothing of a request still waiting to be sent would be read."""
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)
        self._keeper.gone(self)
        del self._feed, self._parser  # the parser holds this object, and only the collector would find the circle

    # What llhttp calls; `on_body` is above.

    def on_message_begin(self) -> None:
        if self._ended:
            raise _UnaskedError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []  # trailers go into the new list, and nowhere
        if status < 200:
            if status == 101:
                raise _UnaskedError
            return
        self._status, self._told = status, headers
        self._head_came = True

    def on_message_complete(self) -> None:
        if self._head_came or self._streaming:  # else an interim answer (1xx) has ended, and the answer is to come
            self._ended = True
            self._streaming = False
            self._reusable = self._parser.should_keep_alive()

    # What follows from it.

    def _recognise(self, data: bytes, body: bytes) -> None:
        """An answer in one piece, whose head is the last one's."""
        self._lessons = LESSONS
        self._status, self._told = 200, self._known_headers
        self._head_came = self._ended = True
        self._pieces.append(body)
        self._turn(len(data), None)

    def _learn(self, data: bytes) -> None:
        """After an answer to which nothing was missing: the next may be known by it, unless that was hoped in vain."""
        self._known = known_of(b"HTTP/1.1 200 ", data, self._told, b"".join(self._pieces))
        if self._known is not None:
            self._lessons -= 1
            self._known_headers = without_length(self._told)

    def _turn(self, read_bytes: int, error: httptools.HttpParserError | None) -> None:
        """A read that brought a head, an end, nothing to tell, or what is not HTTP; all but more of a stream."""
        carried = self.carried
        if carried is None:
            self._keeper.unusable(self)
            self.close()
            return
        carried.request = ()
        if self._head_came:
            self._begin()
            if self.carried is not carried:  # left on seeing the head
                return
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._ended:
            self._finish(carried, data, clean=error is None)
            return
        if data:
            self._answering.answer_data(data, ended=False)
        else:
            self._dry_bytes += read_bytes
        if self.carried is carried and (error is not None or self._dry_bytes > MAX_DRY_BYTES):
            reason = f"the answer is not HTTP: {error}" if error else f"over {MAX_DRY_BYTES} bytes without data"
            self.fail(UpstreamFailure("malformed", reason))

    def _begin(self) -> None:
        self._head_came = False
        self._streaming = not self._ended
        self._answers += 1
        if self._answers == 1:
            self.announced = next((value for name, value in self._told if name == b"keep-alive"), None)
        self._answering.answer_begun(self._status, self._told)

    def _finish(self, carried: C, data: bytes, *, clean: bool) -> None:
        """The connection first, so that whoever is told of the end may use it for the next request."""
        answering = self._answering
        carried.connection = self.carried = None
        # Else the engine answered before it had read everything.
        sent = not self._out.holds and self._transport.get_write_buffer_size() == 0
        if clean and sent and self._reusable and not self._half_closed:
            if carried.paused:
                self.resume()
            self._keeper.came_free(self)
        else:
            self._abort()
        answering.answer_data(data, ended=True)

    def _abort(self) -> None:
        self._out.drop()
        self._transport.abort()

    def _let_go(self) -> None:
        if self.carried is not None:
            self.carried.connection = None
            self.carried = None
        self._ended, self._streaming = True, False

    def _lost(self, error: Exception | None) -> None:
        if self.carried is None:
            self._keeper.unusable(self)
            self._abort()
        elif error is None and self._streaming and _ends_with_the_connection(self._told):
            answering = self._answering
            self.close()
            answering.answer_data(b"", ended=True)
        else:
            when = "within its answer" if self._streaming else "before its answer"
            self.fail(UpstreamFailure("dropped", describe(f"the engine closed the connection {when}", error)))


def describe(operation: str, error: BaseException | None) -> str:
    """One line for the log, without bytes of an answer."""
    if error is None:
        return operation
    return f"{operation}: {type(error).__name__} {getattr(error, 'strerror', None) or ''}".rstrip()


def _ends_with_the_connection(headers: Headers) -> bool:
    """RFC 9112, section 6.3: neither a length nor chunks. llhttp knows, and does not tell."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        return not codings[-1].rstrip().lower().endswith(b"chunked")
    return all(name != b"content-length" for name, _ in headers)
