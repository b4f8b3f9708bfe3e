"""A playbook of bytes: what an engine sends, cut anywhere, against what the client gets and what is counted."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.counts import Counts
from gateway.relay import HELD_BYTES, MAX_EVENT_BYTES, Relay
from gateway.wire import ROUTES, Ask
from tests.gateway.streams import (
    CHAT,
    COMPLETIONS,
    DONE,
    MESSAGES,
    RESPONSES,
    chunk,
    message_stream,
    response_stream,
    usage,
    usage_chunk,
)

ROLE = chunk({"role": "assistant", "content": ""}, used=usage(7, 0))
HEL = chunk({"content": "Hél🙂"}, used=usage(7, 2))
LO = chunk({"content": 'lo\n\n"usage":{}}'}, used=usage(7, 5))
STOP = chunk({}, finish_reason="stop", used=usage(7, 5))
USAGE = usage_chunk(7, 5, cached=4)
STREAM = ROLE + HEL + LO + STOP + USAGE + DONE
BARE = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"content": "Hél🙂"})
    + chunk({"content": 'lo\n\n"usage":{}}'})
    + chunk({}, finish_reason="stop")
)
ENGINES_COUNT = Counts(prompt_tokens=7, completion_tokens=5, cached_tokens=4, counted_by="engine", finish_reason="stop")

SILENT = Ask(model="m", stream=True)
WANTS_USAGE = Ask(model="m", stream=True, wants_usage=True, names_options=True)
WANTS_ALL = Ask(model="m", stream=True, wants_usage=True, wants_progress=True, names_options=True)


def streaming(ask: Ask = SILENT, path: str = CHAT) -> Relay:
    relay = Relay(ROUTES[path], ask)
    relay.start(b"text/event-stream; charset=utf-8")
    return relay


def plain(path: str = CHAT, content_type: bytes = b"application/json") -> Relay:
    relay = Relay(ROUTES[path], Ask(model="m"))
    relay.start(content_type)
    return relay


def played(relay: Relay, *parts: bytes) -> bytes:
    return b"".join([relay.receive(part, ended=False) for part in parts]) + relay.receive(b"", ended=True)


def cut_at(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("ask", "shown"), [(SILENT, BARE + DONE), (WANTS_USAGE, BARE + USAGE + DONE), (WANTS_ALL, STREAM)]
)
def test_the_gateways_own_asks_are_hidden_at_every_cut(line_end: bytes, ask: Ask, shown: bytes) -> None:
    stream, shown = STREAM.replace(b"\n", line_end), shown.replace(b"\n", line_end)
    for cut in range(len(stream) + 1):
        relay = streaming(ask)
        assert played(relay, stream[:cut], stream[cut:]) == shown
        assert relay.counts == ENGINES_COUNT
        assert relay.finished


EVENTS = st.sampled_from(
    [
        ROLE,
        HEL,
        LO,
        chunk({"content": "x"}),
        chunk({"content": "x"}, raw=',"usage":null'),
        chunk({"content": "x"}, raw=',"usage":{"prompt_tokens":7,"completion_tokens":9},"obfuscation":"zz}}"'),
        chunk({"content": "x"}, raw=', "usage": {"prompt_tokens": 7, "completion_tokens": 9}'),
        chunk({"tool_calls": [{"function": {"arguments": '{"usage":{"a":1}}'}}]}, used=usage(7, 3)),
        STOP,
        USAGE,
        b": ping\n\n",
        b"\n\n",
        b"data: no json\n\n",
        b'data: {"choices":7}\n\n',
        b'data: {"error":{"message":"out of memory"}}\n\n',
        DONE,
    ]
)


@given(
    events=st.lists(EVENTS, max_size=8),
    cuts=st.lists(st.integers(min_value=0), max_size=12),
    ask=st.sampled_from([SILENT, WANTS_USAGE, WANTS_ALL, Ask(model="m", stream=True, answers=2)]),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_no_cutting_changes_what_is_shown_or_counted(
    events: list[bytes], cuts: list[int], ask: Ask, line_end: bytes
) -> None:
    stream = b"".join(events).replace(b"\n", line_end)
    whole, parted = streaming(ask), streaming(ask)
    assert played(parted, *cut_at(stream, cuts)) == played(whole, *(event.replace(b"\n", line_end) for event in events))
    assert parted.counts == whole.counts
    assert (parted.finished, parted.failed, parted.has_content) == (whole.finished, whole.failed, whole.has_content)


@given(cuts=st.lists(st.integers(min_value=0), max_size=12), kind=st.sampled_from([MESSAGES, RESPONSES]))
def test_other_languages_pass_unchanged_however_they_are_cut(cuts: list[int], kind: str) -> None:
    stream = message_stream(5, 3) if kind == MESSAGES else response_stream(5, 3)
    relay = streaming(path=kind)
    assert played(relay, *cut_at(stream, cuts)) == stream
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens, relay.counts.counted_by) == (5, 3, "engine")


def test_one_byte_at_a_time_changes_nothing() -> None:
    relay = streaming()
    assert played(relay, *(STREAM[i : i + 1] for i in range(len(STREAM)))) == BARE + DONE


@pytest.mark.parametrize(
    ("given_chunk", "bare"),
    [
        (b'data: {"choices":[],"usage":null,"x":1}\n\n', b'data: {"choices":[],"x":1}\n\n'),
        (b'data: {"usage":{"prompt_tokens":1},"choices":[{}]}\n\n', b'data: {"choices":[{}]}\n\n'),
        (b'data: {"choices": [{}], "usage": {"a": {"b": 1}} }\n\n', b'data: {"choices": [{}] }\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'id: 3\ndata: {"choices":[{}],"usage":{"a":"}"}}\n\n', b'id: 3\ndata: {"choices":[{}]}\n\n'),
        (b'data: {"x":{"usage":{"a":1}},"choices":[{}]}\n\n', b'data: {"x":{"usage":{"a":1}},"choices":[{}]}\n\n'),
        (b'data: {"usage":{"a":1},"x":{"usage":{"a":1}}}\n\n', b'data: {"usage":{"a":1},"x":{"usage":{"a":1}}}\n\n'),
        (b'data: {"choices":[{}],\ndata: "usage":{}}\n\n', b'data: {"choices":[{}],\ndata: "usage":{}}\n\n'),
    ],
)
@pytest.mark.parametrize("first", [b"", HEL])
def test_usage_is_cut_out_wherever_it_stands_or_left_alone(given_chunk: bytes, bare: bytes, first: bytes) -> None:
    relay = streaming()
    relay.receive(first, ended=False)
    assert relay.receive(given_chunk, ended=False) == bare


def test_an_event_leaves_as_soon_as_it_is_complete() -> None:
    relay = streaming(WANTS_ALL)
    assert relay.receive(ROLE + HEL[:20], ended=False) == ROLE
    assert relay.receive(HEL[20:], ended=False) == HEL


def test_content_is_noticed_at_its_first_chunk_and_not_before() -> None:
    relay = streaming()
    relay.receive(ROLE, ended=False)
    assert not relay.has_content
    relay.receive(HEL, ended=False)
    assert relay.has_content


@pytest.mark.parametrize("last", [HEL, LO, LO + STOP[:10]])
def test_a_broken_stream_is_counted_as_the_engine_did_until_then(last: bytes) -> None:
    relay = streaming()
    relay.receive(ROLE + HEL + last, ended=False)
    counted = 2 if last == HEL else 5
    assert relay.counts == Counts(prompt_tokens=7, completion_tokens=counted, counted_by="engine")
    assert not relay.finished


def test_without_running_usage_the_chunks_of_content_count() -> None:
    relay = streaming()
    relay.receive(BARE + b"data: {", ended=False)
    assert relay.counts == Counts(completion_tokens=2, counted_by="gateway", finish_reason="stop")


def test_a_message_that_breaks_has_the_prompt_it_began_with_and_its_chunks() -> None:
    relay = streaming(path=MESSAGES)
    stream = message_stream(5, 3)
    relay.receive(stream[: stream.index(b"event: content_block_stop")], ended=False)
    assert relay.counts == Counts(prompt_tokens=5, completion_tokens=3, counted_by="gateway")
    assert relay.progress == b'"usage":{"input_tokens":5,"output_tokens":0},"chunks":3'


def test_anthropics_cached_tokens_are_prompt_tokens_too() -> None:
    relay = streaming(path=MESSAGES)
    played(relay, message_stream(5, 3, cached=40))
    assert (relay.counts.prompt_tokens, relay.counts.cached_tokens) == (45, 40)


def test_answers_side_by_side_are_counted_together() -> None:
    relay = streaming(Ask(model="m", stream=True, answers=2))
    relay.receive(
        b"".join(chunk({"content": "x"}, index=i % 2, used=usage(7, 1 + i // 2)) for i in range(5)), ended=False
    )
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens) == (7, 5)
    assert relay.progress == b'"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}'


def test_prompts_side_by_side_are_counted_together() -> None:
    relay = streaming(Ask(model="m", stream=True, answers=2, prompts=2), COMPLETIONS)
    stream = b"".join(chunk(text="x", index=i, used=usage(3 + i // 2, 4)) for i in range(4))
    relay.receive(stream, ended=False)
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens) == (3 + 4, 16)
    played(relay, usage_chunk(7, 20), DONE)
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens) == (7, 20)


def test_progress_is_told_with_each_chunk_and_only_then() -> None:
    relay = streaming()
    told = []
    for event in (ROLE, HEL, b": ping\n\n", LO):
        relay.receive(event, ended=False)
        told.append(relay.progress)
    running = [msgspec.json.decode(b"{%b}" % tail) for tail in told]
    assert running == [{"usage": usage(7, 0)}, {"usage": usage(7, 2)}, {}, {"usage": usage(7, 5)}]


def test_progress_without_usage_is_the_number_of_chunks() -> None:
    relay = streaming()
    for _ in range(3):
        relay.receive(chunk({"content": "x"}), ended=False)
    assert relay.progress == b'"chunks":3'


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0}]},
        {"content": "x"},
        {"refusal": "no"},
    ],
)
def test_thoughts_and_tool_calls_are_content(delta: dict[str, Any]) -> None:
    relay = streaming()
    relay.receive(chunk(delta), ended=False)
    assert relay.has_content
    assert relay.counts.completion_tokens == 1


@pytest.mark.parametrize(
    "strange", [b": keep-alive\n\n", b"data: no json\n\n", b'data: {"choices":7}\n\n', b"event: x\nid: 3\n\n", b"\n\n"]
)
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
def test_what_is_not_understood_passes_through(strange: bytes, path: str) -> None:
    relay = streaming(WANTS_ALL, path)
    assert played(relay, HEL + strange + DONE) == HEL + strange + DONE


def test_an_event_of_several_data_lines_is_read_as_one() -> None:
    relay = streaming()
    relay.receive(b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n', ended=False)
    assert relay.counts.completion_tokens == 2


def test_a_last_event_without_its_blank_line_is_still_read() -> None:
    relay = streaming()
    assert played(relay, HEL + USAGE.rstrip(b"\n")) == chunk({"content": "Hél🙂"})
    assert relay.counts.cached_tokens == 4


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (CHAT, b'data: {"error":{"message":"out of memory","code":500}}\n\n'),
        (MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'),
        (RESPONSES, b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed"}}\n\n'),
    ],
)
def test_an_engines_error_in_the_stream_is_noticed(path: str, event: bytes) -> None:
    relay = streaming(path=path)
    assert relay.receive(event, ended=False) == event
    assert relay.failed


def test_breaking_off_drops_the_half_event() -> None:
    relay = streaming(WANTS_ALL)
    assert relay.receive(HEL + LO[:12], ended=False) == HEL
    assert relay.break_off() == b""


def test_an_endless_event_is_let_through_and_closed_when_it_breaks() -> None:
    relay = streaming()
    endless = b"data: " + b"x" * MAX_EVENT_BYTES + b"\n"
    assert relay.receive(endless, ended=False) == endless[:-1]
    assert relay.break_off() == b"\n\n"


@pytest.mark.parametrize("end", [(b"xx\n\n",), (b"x\n", b"\n"), (b"\n", b"\n")])
def test_after_an_endless_event_the_next_one_is_read_again(end: tuple[bytes, ...]) -> None:
    relay = streaming()
    relay.receive(HEL + b"data: " + b"x" * MAX_EVENT_BYTES, ended=False)
    assert played(relay, *end, USAGE + DONE) == b"".join(end) + DONE
    assert relay.counts.cached_tokens == 4


def test_an_event_in_small_pieces_costs_no_more_than_its_length() -> None:
    relay, piece = streaming(), b"x" * 1000
    relay.receive(b"data: ", ended=False)
    assert all(relay.receive(piece, ended=False) == b"" for _ in range(MAX_EVENT_BYTES // 1000 - 1))
    assert len(relay.receive(piece * 3, ended=False)) > MAX_EVENT_BYTES


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
        assert relay.receive(body[:cut], ended=False) == b""
        assert relay.receive(body[cut:], ended=True) == body
        assert relay.counts == Counts(
            prompt_tokens=3, completion_tokens=2, cached_tokens=0, counted_by="engine", finish_reason="length"
        )


def test_an_answer_in_one_read_is_passed_on_as_it_is() -> None:
    relay, body = plain(), answer("hello")
    assert relay.receive(body, ended=True) is body
    assert relay.finished


@pytest.mark.parametrize("read_bytes", [1000, 65_536, HELD_BYTES, 3 * HELD_BYTES])
def test_a_long_answer_passes_through_and_its_usage_is_found_at_the_end(read_bytes: int) -> None:
    body = answer('"usage":{"completion_tokens":9}' * 40_000)
    relay = plain()
    assert played(relay, *(body[i : i + read_bytes] for i in range(0, len(body), read_bytes))) == body
    assert (relay.counts.prompt_tokens, relay.counts.completion_tokens) == (3, 2)


def test_a_long_answer_is_never_held_as_a_whole() -> None:
    relay, released, sent = plain(), 0, 0
    for _ in range(100):
        released += len(relay.receive(b"x" * 65_536, ended=False))
        sent += 65_536
        assert sent - released <= HELD_BYTES


def test_speech_is_not_held_at_all() -> None:
    relay = plain("/v1/audio/speech", b"audio/mpeg")
    assert relay.receive(b"ID3", ended=False) == b"ID3"
    assert relay.receive(b"..", ended=True) == b".."
    assert relay.finished


@pytest.mark.parametrize("read_bytes", [17, 1000, 65_536, HELD_BYTES + 1, 3_000_000])
@pytest.mark.parametrize("size", [10, 200_000])
def test_pictures_are_counted_however_long_they_are(read_bytes: int, size: int) -> None:
    picture = {"b64_json": "x" * size, "url": None, "revised_prompt": 'a "url":"b"'}
    body = msgspec.json.encode({"created": 1, "data": [picture] * 3, "usage": {"input_tokens": 4, "output_tokens": 9}})
    relay = plain("/v1/images/generations")
    assert played(relay, *(body[i : i + read_bytes] for i in range(0, len(body), read_bytes))) == body
    assert (relay.counts.output_images, relay.counts.completion_tokens) == (3, 9)


@pytest.mark.parametrize("body", [b"", b"Bad Gateway", b"[1,2]", b'{"usage":null}', b'{"usage":"x"}', b"\xff\xfe"])
def test_an_answer_without_usage_passes_and_counts_nothing(body: bytes) -> None:
    relay = plain()
    assert played(relay, body) == body
    assert (relay.counts.completion_tokens, relay.counts.counted_by) == (0, "gateway")


def test_a_stream_that_was_not_asked_for_is_read_all_the_same() -> None:
    relay = Relay(ROUTES["/v1/audio/speech"], Ask(model="m"))
    relay.start(b"text/event-stream")
    body = (
        b'data: {"type":"speech.audio.delta","audio":"x"}\n\n'
        b'data: {"type":"speech.audio.done","usage":{"input_tokens":3,"output_tokens":8,"total_tokens":11}}\n\n'
    )
    assert played(relay, body) == body
    assert (relay.has_content, relay.counts.completion_tokens) == (True, 8)
