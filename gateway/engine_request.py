"""The request that an engine gets: its head built from scratch around the body that goes with it.

No key, no cookie and no hop-by-hop header of the client's ever reaches an engine. What a client may choose of the head
is its content type, what it accepts and its session; httptools has made sure that no line break hides in them.
"""

from functools import lru_cache

from gateway.account import Inference
from gateway.calls import Origin
from gateway.foreign import target_path

HEADS_KEPT = 1024
"""Different (engine, path) pairs whose first lines are kept ready."""

_FORWARDED = (b"accept", b"x-inventiv-session")


def engine_request(origin: Origin, asked: Inference, body: bytes, *, secret: str = "") -> tuple[bytes, bytes]:
    """Head and body, ready to be written.

    Args:
        origin: the engine's.
        asked: whose request it is.
        body: as the engine shall read it.
        secret: bearer of a foreign engine; "" sends none.
    """
    given, trace = asked.given, asked.trace
    head = b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\ntraceparent: %b\r\n" % (
        _first_lines(origin, asked.route.path),
        given.get(b"content-type", b"application/json"),
        len(body),
        asked.request_id.encode(),
        trace.traceparent,
    )
    for name in _FORWARDED:
        if value := given.get(name):
            head += b"%b: %b\r\n" % (name, value)
    if trace.tracestate:
        head += b"tracestate: %b\r\n" % trace.tracestate
    if secret:
        head += b"authorization: Bearer %b\r\n" % secret.encode()
    return head + b"\r\n", body


@lru_cache(maxsize=HEADS_KEPT)
def _first_lines(origin: Origin, path: str) -> bytes:
    target = target_path(origin.path, path).encode()
    return b"POST %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (target, origin.host_header)
