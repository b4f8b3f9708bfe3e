"""A playbook of bytes: what an engine sends, cut anywhere, against what the client gets and what is counted."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay import HELD_BYTES, MAX_EVENT_BYTES, Counts, Relay

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
HEL = 'data: {"choices":[{"index":0,"delta":{"content":"Hél🙂"},"finish_reason":null}]}\n\n'.encode()
LO = b'data: {"choices":[{"index":0,"delta":{"content":"lo\\n\\n"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
SHOWN = ROLE + HEL + LO + STOP + DONE
STREAM = ROLE + HEL + LO + STOP + USAGE + DONE
ENGINES_COUNT = Counts(prompt_tokens=7, completion_tokens=5, cached_tokens=4, counted_by="engine", finish_reason="stop")


def streaming(*, hides_usage: bool = True) -> Relay:
    relay = Relay(hides_usage=hides_usage)
    relay.start(b"text/event-stream; charset=utf-8")
    return relay


def plain() -> Relay:
    relay = Relay(hides_usage=True)
    relay.start(b"application/json")
    return relay


def played(relay: Relay, *parts: bytes) -> bytes:
    return b"".join([relay.receive(part) for part in parts]) + relay.end()


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_usage_is_taken_and_hidden_at_every_cut(line_end: bytes) -> None:
    stream, shown = STREAM.replace(b"\n", line_end), SHOWN.replace(b"\n", line_end)
    for cut in range(len(stream) + 1):
        relay = streaming()
        assert played(relay, stream[:cut], stream[cut:]) == shown
        assert relay.counts == ENGINES_COUNT
        assert relay.finished


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=12).map(sorted))
def test_any_number_of_cuts_changes_nothing(cuts: list[int]) -> None:
    edges = [0, *cuts, len(STREAM)]
    parts = [STREAM[a:b] for a, b in pairwise(edges)]
    relay = streaming()
    assert played(relay, *parts) == SHOWN
    assert relay.counts == ENGINES_COUNT


def test_one_byte_at_a_time_changes_nothing() -> None:
    relay = streaming()
    assert played(relay, *(STREAM[i : i + 1] for i in range(len(STREAM)))) == SHOWN


def test_usage_is_shown_to_a_client_who_asked() -> None:
    relay = streaming(hides_usage=False)
    assert played(relay, STREAM) == STREAM
    assert relay.counts == ENGINES_COUNT


def test_an_event_leaves_as_soon_as_it_is_complete() -> None:
    relay = streaming()
    assert relay.receive(ROLE + HEL[:20]) == ROLE
    assert relay.receive(HEL[20:]) == HEL


def test_content_is_noticed_at_its_first_chunk_and_not_before() -> None:
    relay = streaming()
    relay.receive(ROLE)
    assert not relay.has_content
    relay.receive(HEL)
    assert relay.has_content


def test_a_broken_stream_counts_its_content_chunks() -> None:
    relay = streaming()
    relay.receive(ROLE + HEL + LO + STOP[:10])
    assert relay.counts == Counts(
        prompt_tokens=0, completion_tokens=2, cached_tokens=0, counted_by="gateway", finish_reason=None
    )
    assert not relay.finished


def test_usage_in_every_chunk_is_shown_and_the_last_one_counts() -> None:
    chunk = (
        b'data: {"choices":[{"text":"a","finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n'
    )
    relay = streaming()
    sent = chunk % 1 + chunk % 2
    assert relay.receive(sent) == sent
    assert (relay.counts.completion_tokens, relay.counts.counted_by) == (2, "engine")


@pytest.mark.parametrize(
    "delta", [b'{"reasoning_content":"hm"}', b'{"reasoning":"hm"}', b'{"tool_calls":[{"index":0}]}', b'{"content":"x"}']
)
def test_thoughts_and_tool_calls_are_content(delta: bytes) -> None:
    relay = streaming()
    relay.receive(b'data: {"choices":[{"delta":%s,"finish_reason":null}]}\n\n' % delta)
    assert relay.counts.completion_tokens == 1


@pytest.mark.parametrize(
    "strange", [b": keep-alive\n\n", b"data: no json\n\n", b'data: {"choices":7}\n\n', b"event: x\nid: 3\n\n", b"\n\n"]
)
def test_what_is_not_understood_passes_through(strange: bytes) -> None:
    relay = streaming()
    assert played(relay, HEL + strange + DONE) == HEL + strange + DONE
    assert relay.counts.completion_tokens == 1


def test_an_event_of_several_data_lines_is_read_as_one() -> None:
    relay = streaming()
    relay.receive(b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n')
    assert relay.counts.completion_tokens == 2


def test_a_last_event_without_its_blank_line_is_still_read() -> None:
    relay = streaming()
    assert played(relay, HEL + USAGE.rstrip(b"\n")) == HEL
    assert relay.counts.counted_by == "engine"


def test_an_engines_error_in_the_stream_is_noticed() -> None:
    relay = streaming()
    relay.receive(b'data: {"error":{"message":"out of memory","code":500}}\n\n')
    assert relay.failed


def test_breaking_off_drops_the_half_event() -> None:
    relay = streaming()
    assert relay.receive(HEL + LO[:12]) == HEL
    assert relay.break_off() == b""


def test_an_endless_event_is_let_through_and_closed_when_it_breaks() -> None:
    relay = streaming()
    endless = b"data: " + b"x" * MAX_EVENT_BYTES
    assert relay.receive(endless) == endless
    assert relay.break_off() == b"\n\n"


def test_after_an_endless_event_the_next_one_is_read_again() -> None:
    relay = streaming()
    relay.receive(b"data: " + b"x" * MAX_EVENT_BYTES)
    assert played(relay, b"xx\n\n" + USAGE + DONE) == b"xx\n\n" + DONE
    assert relay.counts.counted_by == "engine"


def answer(text: str) -> bytes:
    return msgspec.json.encode(
        {
            "choices": [{"message": {"content": text}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": None},
        }
    )


def test_an_answer_in_one_piece_comes_out_whole_at_its_end() -> None:
    body = answer("hello")
    for cut in range(len(body) + 1):
        relay = plain()
        assert relay.receive(body[:cut]) + relay.receive(body[cut:]) == b""
        assert relay.end() == body
        assert relay.counts == Counts(
            prompt_tokens=3, completion_tokens=2, cached_tokens=0, counted_by="engine", finish_reason="length"
        )


@pytest.mark.parametrize("read_bytes", [1000, 65_536, HELD_BYTES, 3 * HELD_BYTES])
def test_a_long_answer_passes_through_and_its_usage_is_found_at_the_end(read_bytes: int) -> None:
    body = answer('"usage":{"completion_tokens":9}' * 40_000)
    relay = plain()
    assert played(relay, *(body[i : i + read_bytes] for i in range(0, len(body), read_bytes))) == body
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens) == (3, 2)


def test_a_long_answer_is_never_held_as_a_whole() -> None:
    relay, released, sent = plain(), 0, 0
    for _ in range(100):
        released += len(relay.receive(b"x" * 65_536))
        sent += 65_536
        assert sent - released <= HELD_BYTES


@pytest.mark.parametrize("body", [b"", b"Bad Gateway", b"[1,2]", b'{"usage":null}', b'{"usage":"x"}', b"\xff\xfe"])
def test_an_answer_without_usage_passes_and_counts_nothing(body: bytes) -> None:
    relay = plain()
    assert played(relay, body) == body
    assert (relay.counts.completion_tokens, relay.counts.counted_by) == (0, "gateway")
