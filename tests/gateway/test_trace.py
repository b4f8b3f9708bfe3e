"""A client's trace goes on; what is not one is replaced by a new one."""

import pytest

from gateway.trace import MAX_TRACESTATE_BYTES, MAX_TRACESTATE_MEMBERS, Trace, trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def drawn(bits: int) -> int:
    return int({128: "1" * 32, 64: "2" * 16}[bits], 16)


def traced(parent: bytes | None, state: bytes | None = None) -> Trace:
    given = {b"host": b"x"}
    if parent is not None:
        given[b"traceparent"] = parent
    if state is not None:
        given[b"tracestate"] = state
    return trace_of(given, drawn)


def test_a_valid_trace_goes_on_with_a_span_of_our_own() -> None:
    assert traced(PARENT, b"a=1,b=2") == Trace(f"00-{TRACE}-{'2' * 16}-01".encode(), b"a=1,b=2")
    assert traced(PARENT[:-2] + b"00").traceparent.endswith(b"-00")


def test_a_trace_is_known_by_its_id() -> None:
    assert (traced(PARENT).trace_id, traced(None).trace_id) == (TRACE, "1" * 32)


def test_of_the_flags_only_sampled_is_passed_on() -> None:
    assert traced(PARENT[:-2] + b"ff").traceparent.endswith(b"-01")
    assert traced(PARENT[:-2] + b"fe").traceparent.endswith(b"-00")


def test_a_later_version_is_read_as_far_as_we_know_it() -> None:
    later = b"cc" + PARENT[2:] + b"-what-the-future-will-be-like"
    assert traced(later) == Trace(f"00-{TRACE}-{'2' * 16}-01".encode())


NEW = Trace(b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-00")


@pytest.mark.parametrize(
    "parent",
    [
        None,
        b"",
        b"ff" + PARENT[2:],
        PARENT.upper(),
        PARENT + b"-more",
        PARENT + b"x",
        PARENT[:-1],
        PARENT + b", " + PARENT,
        b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE.encode() + b"\r\n-" + SPAN.encode() + b"-01",
        b"cc" + PARENT[2:] + b"x",
        b"\xd9\xa0" * 28,
    ],
)
def test_without_a_valid_trace_a_new_one_begins_and_no_state_is_kept(parent: bytes | None) -> None:
    assert traced(parent, b"a=1") == NEW


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (b" a=1 , b=2 ", b"a=1 , b=2"),
        (b"a=" + b"x" * (MAX_TRACESTATE_BYTES - 2), b"a=" + b"x" * (MAX_TRACESTATE_BYTES - 2)),
        (b"a=" + b"x" * (MAX_TRACESTATE_BYTES - 1), b""),
        (b",".join([b"a=1"] * MAX_TRACESTATE_MEMBERS), b",".join([b"a=1"] * MAX_TRACESTATE_MEMBERS)),
        (b",".join([b"a=1"] * (MAX_TRACESTATE_MEMBERS + 1)), b""),
        (b"a=1\r\nx-evil: 1", b""),
        (b"a=\xff", b""),
    ],
)
def test_a_state_is_passed_on_whole_or_not_at_all(state: bytes, kept: bytes) -> None:
    assert traced(PARENT, state).tracestate == kept
