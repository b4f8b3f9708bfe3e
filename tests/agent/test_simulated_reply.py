"""The simulated engine's answers: an echo, counted in quarters of its characters."""

import pytest

from agent.simulated_pooling import EmbeddingRequest, embeddings
from agent.simulated_reply import Answer, answer_chat, answer_completion
from agent.simulated_requests import (
    IMAGE_TOKENS,
    ChatRequest,
    CompletionRequest,
    ContentPart,
    Function,
    InvalidRequestError,
    JsonSchema,
    Message,
    NamedTool,
    ResponseFormat,
    Tool,
    count_tokens,
)
from agent.simulated_wire import OpenAIScript

CONTEXT = 100


def chat(*messages: Message, **parameters: object) -> ChatRequest:
    asked = messages or (Message("user", "hello there"),)
    return ChatRequest(model="m", messages=list(asked), **parameters)  # type: ignore[arg-type] # as each spec says


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("a" * 400, 100)])
def test_a_token_is_a_quarter_of_the_characters_and_at_least_one(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_the_last_user_message_is_echoed_behind_the_prefix() -> None:
    asked = chat(Message("user", "first"), Message("assistant", "no"), Message("user", "second"))
    answer = answer_chat(asked, CONTEXT)
    assert "".join(answer.pieces) == "mock: second"
    assert (answer.prompt_tokens, answer.finish_reason) == (2 + 1 + 2, "stop")


def test_content_in_parts_is_read_as_one_text() -> None:
    asked = chat(Message("user", [ContentPart(text="in "), ContentPart(type="text", text="parts")]))
    assert "".join(answer_chat(asked, CONTEXT).pieces) == "mock: in parts"


def test_a_limit_cuts_the_answer_and_says_so() -> None:
    answer = answer_chat(chat(max_tokens=2), CONTEXT)
    assert answer.pieces == ("mock", ": he")
    assert answer.finish_reason == "length"


def test_the_newer_name_of_the_limit_counts_too() -> None:
    assert len(answer_chat(chat(max_completion_tokens=1, max_tokens=9), CONTEXT).pieces) == 1


def test_an_answer_of_exactly_the_limit_was_not_cut() -> None:
    whole = answer_chat(chat(), CONTEXT)
    assert answer_chat(chat(max_tokens=len(whole.pieces)), CONTEXT).finish_reason == "stop"


def test_a_stop_word_ends_the_answer_before_it() -> None:
    answer = answer_chat(chat(stop=["never", " there"]), CONTEXT)
    assert "".join(answer.pieces) == "mock: hello"
    assert answer.finish_reason == "stop"


def test_an_answer_that_stops_at_once_still_has_its_last_token() -> None:
    answer = answer_chat(chat(stop="mock"), CONTEXT)
    assert (answer.pieces, answer.finish_reason) == (("",), "stop")


def test_parameters_that_are_null_mean_their_defaults() -> None:
    assert answer_chat(chat(n=None, stream=None, stop=None, max_tokens=None), CONTEXT).choices == 1


def test_ignoring_the_end_generates_up_to_the_limit() -> None:
    answer = answer_chat(chat(ignore_eos=True, max_tokens=50), CONTEXT)
    assert (len(answer.pieces), answer.finish_reason) == (50, "length")


def test_usage_counts_every_choice() -> None:
    answer = answer_chat(chat(n=3, max_tokens=2), CONTEXT)
    assert answer.usage(2)["completion_tokens"] == 6
    assert answer.usage(2)["total_tokens"] == answer.prompt_tokens + 6


@pytest.mark.parametrize("parameters", [{"max_tokens": 0}, {"max_tokens": 101}, {"n": 0}, {"n": 17}])
def test_what_cannot_be_generated_is_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError):
        answer_chat(chat(**parameters), CONTEXT)


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="maximum context length is 100"):
        answer_chat(chat(Message("user", "a" * 401)), CONTEXT)


def test_a_chat_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        answer_chat(ChatRequest(model="m", messages=[]), CONTEXT)


def test_a_prompt_of_token_ids_counts_its_ids() -> None:
    assert answer_completion(CompletionRequest(model="m", prompt=[1, 2, 3]), CONTEXT).prompt_tokens == 3


def test_each_input_gets_its_embedding() -> None:
    found = embeddings(EmbeddingRequest(model="m", input=["one", "two and"]))
    assert [item["index"] for item in found["data"]] == [0, 1]
    assert found["data"][0]["embedding"] == (0.0, 0.0, 0.0)
    assert found["usage"]["prompt_tokens"] == 1 + 2


def test_a_limit_that_the_context_has_no_room_for_ends_at_its_edge() -> None:
    answer = answer_chat(chat(Message("user", "a" * 360), max_tokens=100), CONTEXT)
    assert (len(answer.pieces), answer.finish_reason) == (10, "length")


def test_chat_and_completion_have_their_own_shapes() -> None:
    answer = answer_chat(chat(max_tokens=1), CONTEXT)
    as_chat, as_text = OpenAIScript("id", "m", 0, chat=True), OpenAIScript("id", "m", 0, chat=False)
    assert as_chat.whole(answer)["choices"][0]["message"]["content"] == "mock"
    assert as_text.whole(answer)["choices"][0]["text"] == "mock"
    assert b'"delta":{"content":"mock"}' in as_chat.piece(answer, 0)
    assert b'"text":"mock"' in as_text.piece(answer, 0)


WEATHER = Tool(Function("weather", {"type": "object", "properties": {"city": {"enum": ["Lyon", "Paris"]}}}))


def test_a_tool_is_called_once_and_its_result_is_answered() -> None:
    called = answer_chat(chat(tools=[WEATHER]), CONTEXT)
    assert (called.tool, called.text, called.finish_reason) == ("weather", '{"city": "Lyon"}', "tool_calls")
    done = answer_chat(chat(Message("user", "hi"), Message("tool", "rain"), tools=[WEATHER]), CONTEXT)
    assert (done.tool, done.text) == ("", "mock: hi")


def test_a_tool_that_is_named_is_called_and_none_means_none() -> None:
    other = Tool(Function("other"))
    named = answer_chat(chat(tools=[WEATHER, other], tool_choice=NamedTool(Function("other"))), CONTEXT)
    assert (named.tool, named.text) == ("other", "null")
    assert answer_chat(chat(tools=[WEATHER], tool_choice="none"), CONTEXT).tool == ""


def test_a_schema_is_answered_by_an_object_that_fits_it() -> None:
    schema = {
        "$defs": {"part": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}},
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}, "ok": {"type": "boolean"}},
    }
    wanted = ResponseFormat("json_schema", JsonSchema(schema))
    assert answer_chat(chat(response_format=wanted), CONTEXT).text == '{"parts": [{"n": 3}], "ok": true}'


def test_a_picture_is_counted_when_it_is_here_and_refused_when_it_must_be_fetched() -> None:
    here = ContentPart("image_url", image_url={"url": "data:image/png;base64,AAAA"})
    away = ContentPart("image_url", image_url={"url": "https://example.com/a.png"})
    assert answer_chat(chat(Message("user", [here])), CONTEXT).prompt_tokens == IMAGE_TOKENS + 1
    with pytest.raises(InvalidRequestError, match="data URL"):
        answer_chat(chat(Message("user", [away])), CONTEXT)


def test_probabilities_are_shown_for_each_token_that_was_made() -> None:
    answer = answer_chat(chat(logprobs=True, top_logprobs=2), CONTEXT)
    shown = OpenAIScript("id", "m", 0, chat=True).whole(answer)["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in shown] == list(answer.pieces)
    assert {len(one["top_logprobs"]) for one in shown} == {2}
    with pytest.raises(InvalidRequestError, match="logprobs"):
        answer_chat(chat(logprobs=True, top_logprobs=21), CONTEXT)


def test_an_answer_is_told_alike_whole_and_in_pieces() -> None:
    answer: Answer = answer_chat(chat(), CONTEXT)
    assert answer.text == "".join(answer.pieces) == "mock: hello there"
