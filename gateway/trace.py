"""W3C trace context (www.w3.org/TR/trace-context, level 1): the client's trace goes on to the engine. Pure.

    traceparent valid ──> same trace id and flags, a span id of our own, tracestate as it came
    absent or invalid ──> a new trace id, flags 00, no tracestate

The gateway records no spans; its span id is what the access log and the engine's spans meet by. The surprising rule: a
new trace is not flagged as sampled. Who samples is the operator's choice, in the client or in the engine, and a gateway
that said 01 would make every engine record every request.
"""

import re
from collections.abc import Callable, Mapping

import msgspec

MAX_TRACESTATE_BYTES = 512
"""What the standard asks everybody to carry; a longer one is not passed on, since a part of it would mislead."""
MAX_TRACESTATE_MEMBERS = 32

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


class Trace(msgspec.Struct, frozen=True):
    """What one request is called in everybody's traces.

    Attributes:
        traceparent: the header to send on.
        tracestate: the header to send on; empty: send none.
    """

    traceparent: bytes
    tracestate: bytes = b""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.traceparent[3:35].decode()


def trace_of(given: Mapping[bytes, bytes], draw_bits: Callable[[int], int]) -> Trace:
    """The client's trace continued, or a new one.

    Args:
        given: the client's headers, names in lower case.
        draw_bits: a number of that many random bits.
    """
    parent = given.get(b"traceparent")
    if parent is None or (found := _TRACEPARENT.fullmatch(parent.strip())) is None:
        return _new(draw_bits)
    version, trace_id, span_id, flags, rest = found.groups()
    # What follows the flags is for versions to come; version ff will never be.
    if version == b"ff" or (version == b"00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return _new(draw_bits)
    traceparent = b"00-%b-%016x-%02x" % (trace_id, draw_bits(64), int(flags, 16) & 1)
    return Trace(traceparent, _state(given.get(b"tracestate", b"")))


def _new(draw_bits: Callable[[int], int]) -> Trace:
    return Trace(b"00-%032x-%016x-00" % (draw_bits(128), draw_bits(64)))


def _state(told: bytes) -> bytes:
    """As it came, or nothing: it goes into a request head, so it is one line of what the standard allows."""
    told = told.strip()
    if len(told) > MAX_TRACESTATE_BYTES or told.count(b",") >= MAX_TRACESTATE_MEMBERS or _NOT_PRINTABLE.search(told):
        return b""
    return told
