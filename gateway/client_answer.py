"""What one client gets: the engine's answer, or the gateway's own words; each exactly once, framed by the connection.

    begin ──> send ... ──> end | break_off          or at once: whole | refuse

The surprising rule: a stream that breaks ends in good order, with an error event. Cut off, it would look like a short
answer to many a client.
"""

from collections.abc import Callable

from gateway.account import Inference
from gateway.errors import error_event, error_reply
from gateway.http import Headers, Reply
from gateway.wire import Refusal

_JSON = b"application/json"
_STREAM_HEADERS: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


class ClientAnswer:
    """One request's.

    Attributes:
        begun: the client has the head, so nothing can be tried elsewhere any more.
    """

    __slots__ = ("_asked", "_is_stream", "_over", "_reply", "begun")

    def __init__(self, asked: Inference, reply: Reply) -> None:
        self.begun = False
        self._asked = asked
        self._reply = reply
        self._is_stream = False
        self._over = False

    def send(self, status: int, content_type: bytes, data: bytes, *, is_stream: bool) -> None:
        """A part of the engine's answer."""
        self._begin(status, content_type, is_stream)
        self._reply.send(data)

    @property
    def send_on(self) -> Callable[[bytes], None]:
        """What sends a further part, once the answer has begun."""
        return self._reply.send

    def end(self, status: int, content_type: bytes, data: bytes, *, is_stream: bool) -> None:
        """The last part, or the whole; nothing when it has ended already."""
        if self._over:
            return
        if not self.begun and not is_stream:
            self.whole(status, content_type, data)
            return
        self._begin(status, content_type, is_stream)
        self._over = True
        self._reply.end(data)

    def whole(self, status: int, content_type: bytes, body: bytes, more: Headers = ()) -> None:
        self._over = True
        self._reply.whole(status, [*self._headers(content_type), *more], body)

    def refuse(self, refusal: Refusal) -> None:
        """Before the first byte."""
        body = error_reply(self._asked.route, refusal, self._asked.request_id)
        self.whole(refusal.status, _JSON, body, refusal.headers)

    def break_off(self, refusal: Refusal, rest: bytes) -> None:
        """After the first byte: a stream's last event tells, anything else is cut. `rest` closes a half-sent event."""
        self._over = True
        if self._is_stream:
            self._reply.end(rest + error_event(self._asked.route, refusal, self._asked.request_id))
        else:
            self._reply.cut()

    def _begin(self, status: int, content_type: bytes, is_stream: bool) -> None:
        if self.begun:
            return
        self.begun, self._is_stream = True, is_stream
        headers = self._headers(content_type)
        self._reply.begin(status, [*headers, *_STREAM_HEADERS] if is_stream else headers)

    def _headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        asked = self._asked
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", asked.request_id.encode()),
            *asked.grant.headers,
        ]
        if asked.max_tokens is not None:
            headers.append((b"x-inventiv-max-tokens", b"%d" % asked.max_tokens))
        return headers
