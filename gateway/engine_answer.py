"""An engine's failure as a client is told of it: fixed words for what is ours, an engine's own refusal as it is.

    4xx of an engine ──> passed on, or model_does_not_support       5xx, no answer, half an answer ──> a fixed text
    401, 403 of a foreign upstream ──> upstream_refused_us          (an engine's stack trace is nobody's business)

The surprising rule: a foreign upstream's 401 is never shown as one. It is our key that was refused, not the client's.
"""

from gateway.errors import unsupported
from gateway.foreign import refusal_by_foreign
from gateway.http import Headers, UpstreamFailure
from gateway.wire import Refusal, Route
from projections.routing_workers import Worker

MAX_REFUSAL_BYTES = 64 * 1024
"""Most of an engine's error that is passed on; what is longer is no message."""
NOT_IMPLEMENTED = 501
_KEPT_HEADERS = frozenset({b"retry-after"})
_TRY_AGAIN = "Try again."


class EngineRefusal:
    """An answer that is no success, gathered until it is whole."""

    __slots__ = ("_parts", "_route", "_size", "_worker", "headers", "status")

    def __init__(self, route: Route, worker: Worker, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._route = route
        self._worker = worker
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_REFUSAL_BYTES:
            self._parts.append(data)

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    @property
    def is_long(self) -> bool:
        """More than a message; its rest need not be waited for."""
        return self._size > MAX_REFUSAL_BYTES

    @property
    def is_temporary(self) -> bool:
        """Another worker may do better; 501 is vLLM's word for what no worker of the model can."""
        return self.status >= 500 and self.status != NOT_IMPLEMENTED

    @property
    def kept_headers(self) -> Headers:
        return [(name, value) for name, value in self.headers if name in _KEPT_HEADERS]

    def translated(self) -> Refusal | None:
        """What to tell instead; None: the engine's own words stand."""
        refusal = refusal_by_foreign(self.status, self.headers) if self._worker.foreign else None
        refusal = refusal or unsupported(self._route, self.status, self.body)
        if refusal is not None:
            return refusal
        if self.status >= 500 or not self.status >= 400:
            message = f"The model's worker failed ({self.status}). {_TRY_AGAIN}"
            return Refusal(503 if self.status == 503 else 502, "upstream_error", message)
        if self.is_long:
            return Refusal(502, "upstream_error", f"The model's worker refused the request at length. {_TRY_AGAIN}")
        return None


def failure_refusal(failure: UpstreamFailure, *, begun: bool) -> Refusal:
    """For an engine that gave no whole answer; `begun`: the client has some of it."""
    if failure.kind == "unreachable":
        return Refusal(502, "upstream_unreachable", f"The model's worker could not be reached. {_TRY_AGAIN}")
    if failure.kind == "silent":
        return Refusal(504, "upstream_timeout", "The model's worker did not answer in time.")
    after = " after its answer had begun" if begun else ""
    return Refusal(502, "upstream_read_failed", f"The model's worker broke off{after}. {_TRY_AGAIN}")
