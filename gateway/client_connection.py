"""One client's connection: what it sends goes to the application, and the application's replies go back.

    READING ──request whole──> ANSWERING ──whole──────────────────> READING, or closed
       │                           └──begin──> STREAMING ──end──> READING, or closed
       └──refused with its body unread, or framing in doubt──> LINGERING (what comes is dropped) ──> closed

Everything happens within the loop's callbacks: no task, future or queue for a request. The surprising rule: a client
who shuts down its sending half has left, though it might still read. Hardly any client does so and waits, and a GPU
that works for nobody costs more than those few.
"""

import asyncio
import math
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any, cast

import structlog

from gateway.client_head import field_of
from gateway.client_shared import SMALL_BODY_BYTES, Shared
from gateway.http import Attendant, Head, Headers
from gateway.outbox import Outgoing
from gateway.request_reader import CLOSES, HEAD_ONLY, OLD, RequestReader
from gateway.wire import Refusal

READING, ANSWERING, STREAMING, TURNING, LINGERING, CLOSED = range(6)
"""TURNING: a reply is done, and the next request, of which something is here, begins with the loop's next turn."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_CLOSE, _KEEP = b"connection: close", b"connection: keep-alive"
_BODILESS = frozenset({204, 304})
_UNASKED = object()
_RESET_ON_CLOSE = pack("ii", 1, 0)
_line = b": ".join

log = structlog.get_logger(__name__)


class ClientConnection(asyncio.Protocol):
    """Is itself the Reply to the one request that it has given to the application; also a client_shared.Connection."""

    __slots__ = (
        "_admitted",
        "_application",
        "_attendant",
        "_body_from_s",
        "_dropped_bytes",
        "_early",
        "_lingers",
        "_manner",
        "_max_body_bytes",
        "_out",
        "_pending",
        "_phase",
        "_reader",
        "_shared",
        "_slow",
        "_transport",
        "_unsent_bytes",
        "deadline_s",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._application = shared.application
        self._transport: asyncio.Transport
        self._out: Outgoing
        self._reader: RequestReader
        self._phase = READING
        self.deadline_s = math.inf
        self._admitted: Any = _UNASKED
        self._body_from_s = 0.0
        self._max_body_bytes = 0
        self._early = bytearray()
        self._dropped_bytes = 0
        self._attendant: Attendant | None = None
        self._manner = 0
        self._lingers = False
        self._pending = b""
        self._slow = False
        self._unsent_bytes = 0

    # The loop calls what follows

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared, limits = self._shared, self._shared.limits
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._out = Outgoing(transport, shared.outbox)
        transport.set_write_buffer_limits(high=limits.unsent_bytes)
        peer = transport.get_extra_info("peername")
        self._reader = RequestReader(peer[0] if isinstance(peer, tuple) else "", limits.read, shared.now_s)
        is_full = len(shared.connections) >= limits.connections
        shared.connections.add(self)
        self.deadline_s = shared.tick_s + shared.idle_s
        if is_full:
            self._phase, self._manner = ANSWERING, CLOSES
            message = "Too many connections are open. Try again a little later."
            self._refuse(None, Refusal(503, "too_many_connections", message, headers=((b"retry-after", b"1"),)))

    def data_received(self, data: bytes) -> None:
        if self._phase:
            self._receive_early(data)
            return
        reader = self._reader
        reader.receive(data)
        if reader.wholes:
            self._take()
        elif reader.refusal:
            self._turn_away(reader.head, reader.refusal)
        else:
            self._await_rest()

    def eof_received(self) -> None:
        """Returns None, so the transport closes once it has written what it still holds."""
        self._leave()
        self._out.flush()
        self.deadline_s = self._shared.tick_s + self._shared.limits.stall_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was, the client has gone
        self._leave()
        self._out.drop()
        self._shared.closed(self)
        self._reader.forget()

    def pause_writing(self) -> None:
        self._slow = True
        self._unsent_bytes = 0
        self.deadline_s = self._shared.tick_s + self._shared.limits.stall_s
        if self._attendant:
            self._attendant.client_slow()

    def resume_writing(self) -> None:
        self._slow = False
        if self.is_answering:
            self.deadline_s = math.inf
        if self._attendant:
            self._attendant.client_ready()

    # The server calls what follows

    @property
    def is_answering(self) -> bool:
        return self._phase in {ANSWERING, STREAMING}

    def expire(self) -> None:
        self._out.flush()
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes != self._unsent_bytes:  # it takes some, however little
            self._unsent_bytes = unsent_bytes
            self.deadline_s = self._shared.tick_s + self._shared.limits.stall_s
        elif self._phase == READING and self._reader.is_midway and not unsent_bytes:
            refusal = Refusal(408, "request_timeout", "The request did not arrive in time.")
            self._turn_away(self._reader.head, refusal)
        else:
            self.cut_off()

    def stop(self) -> None:
        if self._phase == READING and not self._reader.is_midway:
            self.deadline_s = min(self.deadline_s, self._shared.tick_s + self._shared.idle_s)

    def cut_off(self) -> None:
        self._leave()
        self._out.drop()
        self._transport.abort()

    # The application calls what follows: http.Reply

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if self._phase != ANSWERING:
            return
        shared = self._shared
        lines = [shared.opening(status), *map(_line, headers), b"content-length: %d" % len(body), b"", body]
        if self._manner or shared.stopping or status in _BODILESS:
            self._suit(lines, status)
        self._out.write(b"\r\n".join(lines))
        self._turn()

    def begin(self, status: int, headers: Headers) -> None:
        if self._phase != ANSWERING:
            return
        self._phase = STREAMING
        shared = self._shared
        lines = [shared.opening(status), *map(_line, headers), b"transfer-encoding: chunked", b"", b""]
        if self._manner or shared.stopping or status in _BODILESS:
            self._suit(lines, status)
        self._pending = b"\r\n".join(lines)

    def send(self, data: bytes) -> None:
        if self._phase != STREAMING or not data:
            return
        if self._manner & (OLD | HEAD_ONLY):
            self._out.write(self._pending + self._unframed(data))
        else:
            self._out.write_now(b"%b%x\r\n%b\r\n" % (self._pending, len(data), data))
        self._pending = b""

    def end(self, data: bytes = b"") -> None:
        if self._phase != STREAMING:
            return
        if self._manner & (OLD | HEAD_ONLY):
            self._out.write(self._pending + self._unframed(data))
        elif data:
            self._out.write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._pending, len(data), data))
        else:
            self._out.write(self._pending + _LAST_CHUNK)
        self._pending = b""
        self._turn()

    def cut(self) -> None:
        if not self.is_answering:
            return
        self._attendant = None
        if self._manner & OLD:  # its end is the connection's end, so only a reset tells that it is not whole
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
            self.cut_off()
        else:
            self._depart()

    # What each of those comes down to

    def _take(self) -> None:
        """Gives the oldest whole request to the application."""
        head, body, self._manner = self._reader.wholes.popleft()
        self._phase = ANSWERING
        self.deadline_s = math.inf
        application, admitted = self._application, self._admitted
        try:
            if admitted is _UNASKED:
                admitted = application.admit(head)
            else:
                self._admitted = _UNASKED
            if len(body) > SMALL_BODY_BYTES:
                _weigh(len(body), application.max_body_bytes(head))
            attendant = application.answer(head, admitted, body, self)
        except Refusal as refusal:
            if self._phase == ANSWERING:
                self._refuse(head, refusal)
            else:
                self._fail(head, refusal)
        except Exception as error:  # noqa: BLE001 - whatever it is, this client gets an answer and the others go on
            self._fail(head, error)
        else:
            if self._phase == ANSWERING or self._phase == STREAMING:  # noqa: PLR1714 - half the price of a set
                self._attendant = attendant
                if self._slow:  # it has not taken all of an earlier reply
                    self.pause_writing()

    def _await_rest(self) -> None:
        """Of a request whose head, or body, is not whole. Its key is looked at before its body is waited for."""
        reader, limits = self._reader, self._shared.limits
        head = reader.head
        if head is None:
            self.deadline_s = reader.started_s + limits.head_s
            return
        try:
            if self._admitted is _UNASKED:
                self._admit(head)
            _weigh(len(reader.body), self._max_body_bytes)
        except Refusal as refusal:
            self._turn_away(head, refusal)
        except Exception as error:  # noqa: BLE001 - as in _take
            self._phase = ANSWERING
            self._fail(head, error)
        else:
            self.deadline_s = self._body_from_s + limits.body_s + len(reader.body) / limits.body_bytes_per_s

    def _admit(self, head: Head) -> None:
        self._admitted = self._application.admit(head)
        self._max_body_bytes = max(self._application.max_body_bytes(head), SMALL_BODY_BYTES)
        self._body_from_s = self._shared.now_s()
        _weigh(int(field_of(head.headers, b"content-length") or 0), self._max_body_bytes)
        awaits_leave = field_of(head.headers, b"expect") is not None and not self._reader.manner & OLD
        if awaits_leave and not self._reader.body:
            self._out.write(_CONTINUE)

    def _receive_early(self, data: bytes) -> None:
        """It came while a request is answered, or when nothing is read any more."""
        limits = self._shared.limits
        if self._phase == LINGERING:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > limits.linger_bytes:
                self.cut_off()
        elif self._phase != CLOSED:
            self._early += data
            self._reader.more = True
            if len(self._early) > limits.early_bytes:
                self._transport.pause_reading()

    def _turn(self) -> None:
        """A reply is done."""
        self._attendant = None
        if self._manner & CLOSES:
            self._depart()
        elif self._reader.more:
            self._phase = TURNING
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._phase = READING
            self.deadline_s = self._shared.tick_s + self._shared.idle_s

    def _go_on(self) -> None:
        """With what came while the last request was answered."""
        if self._phase != TURNING:
            return
        reader = self._reader
        if reader.wholes:
            self._take()
        elif reader.refusal:
            self._turn_away(reader.head, reader.refusal)
        else:
            reader.more = False
            self._phase = READING
            self.deadline_s = self._shared.tick_s + self._shared.idle_s
            early, self._early = bytes(self._early), bytearray()
            self._transport.resume_reading()
            if early:
                self.data_received(early)
            elif reader.is_midway:
                self._await_rest()

    def _turn_away(self, head: Head | None, refusal: Refusal) -> None:
        """Refuses a request of which not all was read, or not understood: nothing more is read from this client."""
        self._phase, self._manner, self._lingers = ANSWERING, CLOSES, True
        self._refuse(head, refusal)

    def _refuse(self, head: Head | None, refusal: Refusal) -> None:
        try:
            status, headers, body = self._application.refusal(head, refusal)
        except Exception:
            log.exception("refusal_failed", code=refusal.code)
            status, headers, body = refusal.status, (), b""
        self.whole(status, headers, body)

    def _fail(self, head: Head, error: Exception) -> None:
        """The application raised what it should not. The client is told, if it can still be."""
        log.error("request_failed", path=head.path, exc_info=error)
        if self._phase == ANSWERING:
            message = "The gateway failed. Try again, and tell us this request id."
            self._turn_away(head, Refusal(500, "internal_error", message))
        elif self._phase == STREAMING:
            self.cut()
        elif self._phase != CLOSED:
            self._depart()

    def _suit(self, lines: list[bytes], status: int) -> None:
        """A reply out of the ordinary. Its lines end with the one about its length, an empty one and the body."""
        if self._shared.stopping:
            self._manner |= CLOSES
        if status in _BODILESS:
            self._manner |= HEAD_ONLY
            lines[-3:] = [b"", b""]
        elif self._manner & HEAD_ONLY:
            lines[-1] = b""
        elif self._manner & OLD and self._phase == STREAMING:  # no chunks, so the connection's end is the answer's
            self._manner |= CLOSES
            del lines[-3]
        if self._manner & CLOSES:
            lines.insert(1, _CLOSE)
        elif self._manner & OLD:
            lines.insert(1, _KEEP)

    def _unframed(self, data: bytes) -> bytes:
        return b"" if self._manner & HEAD_ONLY else data

    def _depart(self) -> None:
        """Closes once all is written; after a refusal, not before the client had time to read it."""
        limits = self._shared.limits
        self._attendant = None
        self._out.flush()
        if self._lingers:
            self._phase = LINGERING
            self.deadline_s = self._shared.tick_s + limits.linger_s
            try:
                self._transport.resume_reading()
                self._transport.write_eof()
            except OSError:  # it has gone; asyncio says so here, uvloop later
                self.cut_off()
        else:
            self._phase = CLOSED
            self.deadline_s = self._shared.tick_s + limits.stall_s
            self._transport.close()

    def _leave(self) -> None:
        """The client has gone, or is sent away."""
        self._phase = CLOSED
        attendant, self._attendant = self._attendant, None
        if attendant:
            attendant.client_left()


def _weigh(body_bytes: int, most_bytes: int) -> None:
    if body_bytes > most_bytes:
        raise Refusal(413, "request_too_large", f"A body has at most {most_bytes // 1024} KiB here.")
