"""One event at a time, decoded; the relay's playbooks have the streams."""

import pytest

from gateway.counts import Usage
from gateway.events import SideBySide, Told, data_of, read_event, without_usage


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"event: a\nid: 3\ndata: x\ndata: y\n\n", b"x\ny"),
        (b": comment\n\n", b""),
        (b"\n\n", b""),
    ],
)
def test_the_data_of_an_event_is_its_data_lines(event: bytes, data: bytes) -> None:
    assert data_of(event) == data


def test_a_chunk_tells_its_content_usage_and_end() -> None:
    told = read_event(
        "openai", b'data: {"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"a":1}}\n\n'
    )
    assert (told.has_content, told.index, told.finish_reason) == (True, 1, "stop")
    assert (told.usage, told.usage_text, told.is_usage_only) == (Usage(), b'{"a":1}', False)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[DONE]", Told(finished=True)),
        (b'{"choices":[]}', Told(index=-1)),
        (b'{"choices":[],"usage":null}', Told(index=-1, usage_text=b"null")),
        (b'{"error":{"message":"x"}}', Told(index=-1, failed=True)),
        (b'{"type":"transcript.text.delta","delta":"x"}', Told(index=-1, has_content=True)),
        (b'{"type":"image_generation.completed","b64_json":"x"}', Told(index=-1, images=1)),
        (b"no json", Told()),
    ],
)
def test_openais_events_are_understood_or_let_alone(data: bytes, told: Told) -> None:
    assert read_event("openai", b"data: " + data + b"\n\n") == told


@pytest.mark.parametrize(
    ("kind", "finished", "failed"),
    [
        ("response.created", False, False),
        ("response.completed", True, False),
        ("response.incomplete", True, False),
        ("response.failed", True, True),
        ("error", False, True),
    ],
)
def test_a_response_ends_in_one_of_three_ways(kind: str, finished: bool, failed: bool) -> None:
    told = read_event("responses", f'event: {kind}\ndata: {{"type":"{kind}"}}\n\n'.encode())
    assert (told.finished, told.failed) == (finished, failed)


@pytest.mark.parametrize(
    ("kind", "content", "finished", "failed"),
    [
        ("message_start", False, False, False),
        ("content_block_delta", True, False, False),
        ("ping", False, False, False),
        ("message_stop", False, True, False),
        ("error", False, False, True),
    ],
)
def test_a_message_ends_with_its_stop(kind: str, content: bool, finished: bool, failed: bool) -> None:
    told = read_event("messages", f'event: {kind}\ndata: {{"type":"{kind}"}}\n\n'.encode())
    assert (told.has_content, told.finished, told.failed) == (content, finished, failed)


@pytest.mark.parametrize(
    ("event", "text", "bare"),
    [
        (b'data: {"a":1,"usage":{"b":2}}\n\n', b'{"b":2}', b'data: {"a":1}\n\n'),
        (b'data: {"usage":{"b":2},"a":1}\n\n', b'{"b":2}', b'data: {"a":1}\n\n'),
        (b'data: {"a":1 , "usage" : {"b":2} , "c":3}\n\n', b'{"b":2}', b'data: {"a":1  , "c":3}\n\n'),
        (b'data: {"usage":null}\n\n', b"null", b"data: {}\n\n"),
        (b'data: {"usage":{"b":2},"c":{"usage":{"b":2}}}\n\n', b'{"b":2}', None),
        (b'data: {"a":1,\ndata: "usage":{"b":2}}\n\n', b'{"b":2}', None),
    ],
)
def test_one_member_is_cut_out_and_every_other_byte_stays(event: bytes, text: bytes, bare: bytes | None) -> None:
    assert without_usage(event, text) == (event if bare is None else bare)


def test_answers_side_by_side_share_their_prompt() -> None:
    side = SideBySide(2)
    told = [side.together(index, Usage(prompt_tokens=10 + index // 2, completion_tokens=3)) for index in range(4)]
    together = told[-1]
    assert (together.prompt_tokens, together.completion_tokens) == (21, 12)
    assert side.together(-1, Usage(prompt_tokens=5)) == Usage(prompt_tokens=5)
