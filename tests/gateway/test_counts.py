"""Every language's usage, read as one."""

from typing import Any

import msgspec
import pytest

from gateway.counts import Counts, Usage, count_images, counts_of, counts_of_tail, counts_of_whole, read_usage


def of_whole(answer: Any, *, images: bool = False) -> Counts:
    return counts_of_whole(msgspec.json.encode(answer), images=images)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}, (7, 5, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, (7, 5, 4)),
        ({"prompt_tokens": 7, "total_tokens": 7}, (7, 0, 0)),
        ({"total_tokens": 9}, (9, 0, 0)),
        ({"input_tokens": 7, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}, (7, 5, 4)),
        ({"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 4}, (7, 5, 4)),
        ({"input_tokens": 3, "output_tokens": 5, "cache_creation_input_tokens": 4}, (7, 5, 0)),
        ({"prompt_tokens": None, "completion_tokens": None}, (0, 0, 0)),
    ],
)
def test_tokens_are_read_in_every_language(usage: dict[str, Any], tokens: tuple[int, int, int]) -> None:
    counts = of_whole({"usage": usage})
    assert (counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens) == tokens
    assert counts.counted_by == "engine"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, "stop"),
        ({"choices": [{"finish_reason": None}, {"finish_reason": "length"}]}, "length"),
        ({"stop_reason": "end_turn"}, "end_turn"),
        ({"status": "completed"}, "completed"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"data": []}, None),
    ],
)
def test_why_an_answer_ended_is_read_in_every_language(answer: Any, reason: str | None) -> None:
    assert of_whole(answer).finish_reason == reason


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"text": "", "usage": {"type": "duration", "seconds": 5}}, 5.0),
        ({"text": "", "duration": "5.25"}, 5.25),
        ({"text": "", "duration": 5.25}, 5.25),
        ({"text": "", "duration": "long"}, 0.0),
        ({"text": ""}, 0.0),
    ],
)
def test_audio_is_counted_by_its_length(answer: Any, seconds: float) -> None:
    assert of_whole(answer).input_audio_seconds == seconds


def test_pictures_are_counted_and_vectors_are_not() -> None:
    answer = {"data": [{"url": "x"}, {"b64_json": "y"}]}
    assert of_whole(answer, images=True).output_images == 2
    assert of_whole(answer).output_images == 0


def test_usage_is_found_in_an_answer_that_is_otherwise_strange() -> None:
    counts = of_whole({"choices": "none", "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert (counts.prompt_tokens, counts.completion_tokens) == (3, 1)


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"usage":[]}', b'{"usage":{"prompt_tokens":"x"}}', b"\xff"])
def test_what_is_no_usage_counts_nothing(body: bytes) -> None:
    assert counts_of_whole(body, images=False) == Counts()


def test_the_last_usage_of_a_tail_counts() -> None:
    tail = b'..."usage":{"prompt_tokens":1}}],"usage": {"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}'
    assert counts_of_tail(tail.replace(b": {", b":{"), images=0).prompt_tokens == 2
    assert counts_of_tail(b'"usage":{"prompt_tokens":1', images=3) == Counts(output_images=3)


def test_a_later_usage_goes_over_an_earlier_one() -> None:
    begun, ended = Usage(input_tokens=7, output_tokens=0, cache_read_input_tokens=2), Usage(output_tokens=5)
    counts = counts_of(ended.over(begun))
    assert (counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens) == (9, 5, 2)


def test_a_picture_whose_beginning_was_cut_is_counted_once() -> None:
    data = b'{"data":[{"b64_json": "xx"},{"url":"https://x"}]}'
    for cut in range(len(data) + 1):
        assert count_images(b"", data[:cut]) + count_images(data[:cut], data[cut:]) == 2


def test_what_is_no_object_is_no_usage() -> None:
    assert read_usage(b"7") is None
    assert read_usage(b'{"prompt_tokens":7}') == Usage(prompt_tokens=7)
