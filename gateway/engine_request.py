"""The request that an engine gets: its head built from scratch around the body that goes with it.

No key, no cookie and no hop-by-hop header of the client's ever reaches an engine. What a client may choose of the head
is its content type, what it accepts and its session; httptools has made sure that no line break hides in them.
"""

from functools import lru_cache

from gateway.account import Inference
from gateway.calls import Origin
from gateway.foreign import target_path
from gateway.wire import body_for_engine
from projections.routing_workers import Worker

HEADS_KEPT = 1024
"""Different (engine, path) pairs whose first lines are kept ready."""

_FORWARDED = (b"accept", b"x-inventiv-session")


def engine_request(
    origin: Origin, worker: Worker, asked: Inference, given_body: bytes, *, secret: str = ""
) -> tuple[bytes, bytes]:
    """Head and body, ready to be written.

    Args:
        origin: the engine's.
        worker: whose engine it is.
        asked: the request's facts.
        given_body: as the client sent it.
        secret: bearer of a foreign engine; "" sends none.
    """
    given, trace, body = asked.given, asked.trace, _body(worker, asked, given_body)
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


def _body(worker: Worker, asked: Inference, given_body: bytes) -> bytes:
    cap = asked.max_tokens
    if cap is not None and worker.context_tokens:
        cap = min(cap, worker.context_tokens)  # engines refuse a bound that is longer than their context
    model = worker.engine_model or worker.model_code
    return body_for_engine(asked.route, given_body, asked.ask, model, max_tokens=cap, foreign=worker.foreign)


@lru_cache(maxsize=HEADS_KEPT)
def _first_lines(origin: Origin, path: str) -> bytes:
    target = target_path(origin.path, path).encode()
    return b"POST %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (target, origin.host_header)
