"""Reads requests out of a client's bytes: pure, no I/O. Bytes in; whole requests, or a refusal, are found on it after.

    receive(data) ──> wholes: [(head, body, manner), ...]   more than one when they came in one piece
                  ──> head, body                            of the one whose body is not whole yet
                  ──> refusal                               where one request ends is in doubt: read nothing more

llhttp parses, strictly. The surprising rule: its callbacks only collect, since it cannot be left or entered again from
one of them; whoever called `receive` acts afterwards. Trailers are dropped: they come after the head was believed.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import httptools

from gateway.client_head import doubt_about, head_bytes, malformed, path_of, without_upgrade
from gateway.client_limits import ReadLimits
from gateway.http import Head, Headers
from gateway.known_head import LESSONS, KnownHead, known_of, without_length
from gateway.wire import Refusal

CLOSES, OLD, HEAD_ONLY = 1, 2, 4
"""A manner: how a request wants its reply. The connection closes after it; as HTTP/1.0; without its body."""
FRAMING_SLACK_BYTES = 128 * 1024
FRAMING_PER_BYTE = 8
"""What head and chunks may add to a body: a slack, and so much per byte (chunks of one byte add five)."""
Request: TypeAlias = tuple[Head, bytes, int]
"""Head, body and manner."""

_METHODS = {name.encode(): name for name in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE")}


class _StoppedError(Exception):
    pass


class RequestReader:
    """Attributes are for reading, but for `wholes` (taken from the left) and `more` (set back when nothing waits).

    Attributes:
        more: something follows the first of `wholes`.
        fed_bytes: since the last whole request.
        started_s: when the first byte was fed of the request being read.
    """

    __slots__ = (
        "_feed",
        "_follows",
        "_headers",
        "_known",
        "_known_fields",
        "_lessons",
        "_most_head_bytes",
        "_most_headers",
        "_most_pipelined",
        "_now_s",
        "_parser",
        "_peer",
        "_plain_head",
        "_target",
        "body",
        "fed_bytes",
        "head",
        "manner",
        "more",
        "refusal",
        "started_s",
        "wholes",
    )

    def __init__(self, peer: str, limits: ReadLimits, now_s: Callable[[], float]) -> None:
        self._peer = peer
        self._most_head_bytes = limits.head_bytes
        self._most_headers = limits.headers
        self._most_pipelined = limits.pipelined
        self._now_s = now_s
        self._parser: httptools.HttpRequestParser
        self._feed: Callable[[bytes], None]
        self._start()
        self._target = b""
        self._follows = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._known: KnownHead | None = None  # only while the parser stands at the end of a request
        self._known_fields: tuple[str, Headers, dict[bytes, bytes]] = ("", (), {})
        self._lessons = LESSONS
        self.manner = 0
        self._plain_head = b""
        self.head: Head | None = None
        self.body: bytes | bytearray = b""
        self.wholes: deque[Request] = deque()
        self.more = False
        self.refusal: Refusal | None = None
        self.fed_bytes = 0
        self.started_s = 0.0

    def _start(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._feed = self._parser.feed_data

    def receive(self, data: bytes) -> None:
        """Not to be called once there is a refusal."""
        is_first = not self.fed_bytes
        if is_first:
            self.started_s = self._now_s()
            known = self._known
            if known is not None:
                if body := known.body_in(data):
                    self._recognise(body)
                    return
                self._known = None
        self.fed_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._doubt(error)
        if self.fed_bytes > self._most_head_bytes:
            self._weigh()
        elif is_first and len(self.wholes) == 1 and self._lessons and not self.more:
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        """What came was one request: the next one may be known by it, unless that was hoped in vain before."""
        head, body, manner = self.wholes[0]
        if not manner and (known := known_of(b"POST ", data, head.headers, body)):
            self._lessons -= 1
            headers = without_length(head.headers)
            self._known, self._known_fields = known, (head.path, headers, dict(headers))

    def _recognise(self, body: bytes) -> None:
        self._lessons = LESSONS
        path, headers, given = self._known_fields
        head = Head(method="POST", path=path, headers=headers, given=given, peer=self._peer, started_s=self.started_s)
        self.wholes.append((head, body, 0))

    @property
    def is_midway(self) -> bool:
        """A request has begun and is not whole."""
        return self.fed_bytes > 0 or bool(self._target)

    def forget(self) -> None:
        """Lets go of the parser, which holds this reader in turn; nothing can be received any more."""
        del self._parser, self._feed
        self.wholes.clear()

    def _decline(self, rest: bytes) -> None:
        """An upgrade was offered: the request is read once more without the offer, and `rest` is its body."""
        for _ in range(self._most_pipelined + 1):
            self.wholes.pop()
            self.fed_bytes = len(rest) + 1
            self._start()
            try:
                self._feed(self._plain_head)
                self._feed(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            except httptools.HttpParserError as error:
                return self._doubt(error)
            else:
                return None
        raise AssertionError("llhttp found more offers of an upgrade than whole requests are taken from one piece")

    def _weigh(self) -> None:
        """Much was fed without a whole request: a long body, or else more framing than anybody needs."""
        if self.head is None:
            self.refusal = self.refusal or _too_large()
        elif self.fed_bytes > FRAMING_SLACK_BYTES + FRAMING_PER_BYTE * len(self.body):
            self.refusal = self.refusal or malformed("The body's chunks are nearly all framing.")

    def _doubt(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError) and not self.refusal:
            raise error  # a callback of ours failed, which says nothing about the request
        self.more = True
        self.refusal = self.refusal or malformed("This is not a well-formed HTTP/1.1 request.")

    def _stop(self, refusal: Refusal) -> Exception:
        """What a callback raises to stop llhttp; `receive` meets it as a parser's error."""
        self.refusal = refusal
        return _StoppedError()

    # llhttp calls what follows

    def on_url(self, part: bytes) -> None:
        self._target += part
        if self.wholes:
            self.more = self._follows = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        self._headers = []
        fields = dict(headers)
        version, self.manner = "1.1", 0
        keeps = parser.should_keep_alive()
        if not keeps or b"connection" in fields:  # else llhttp has told by it that this is HTTP/1.1
            version = parser.get_http_version()
            self.manner = (not keeps) * CLOSES | (version == "1.0") * OLD
        if (
            version != "1.1"
            or b"host" not in fields
            or b"transfer-encoding" in fields
            or b"expect" in fields
            or b"upgrade" in fields
            or not len(fields) == len(headers) <= self._most_headers
            or self.fed_bytes > self._most_head_bytes
            or self._follows
        ):
            self._look_closer(version, fields, headers)
        method, path = _METHODS.get(parser.get_method()), path_of(self._target)
        if method is None:
            raise self._stop(Refusal(405, "method_not_allowed", "This method is not known here."))
        if path is None:
            raise self._stop(malformed("The target of the request is not an address that could be served."))
        if method == "HEAD":
            self.manner |= HEAD_ONLY
        self.head = Head(
            method=method, path=path, headers=headers, given=fields, peer=self._peer, started_s=self.started_s
        )

    def _look_closer(self, version: str, fields: dict[bytes, bytes], headers: list[tuple[bytes, bytes]]) -> None:
        """At a head out of the ordinary; to ask all of this of each one would cost a fifth of its reading."""
        if refusal := doubt_about(version, fields, headers):
            raise self._stop(refusal)
        if len(headers) > self._most_headers or head_bytes(self._target, headers) > self._most_head_bytes:
            raise self._stop(_too_large())
        if b"upgrade" in fields and self._parser.should_upgrade():
            self._plain_head = without_upgrade(self._parser.get_method(), self._target, headers)

    def on_body(self, part: bytes) -> None:
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body)
            self.body += part

    def on_message_complete(self) -> None:
        head, body = self.head, self.body
        if head is None or len(self.wholes) > self._most_pipelined:
            raise self._stop(malformed("Too many requests came before the first was answered."))
        self.wholes.append((head, body if isinstance(body, bytes) else bytes(body), self.manner))
        self.head = None
        self.body = self._target = b""
        self.fed_bytes = 0
        self._follows = False
        if self._headers:  # trailers
            self._headers = []


def _too_large() -> Refusal:
    return Refusal(431, "request_headers_too_large", "The headers of a request are too many or too long.")
