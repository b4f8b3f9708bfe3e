"""The official client, as applications use it, against the gateway."""

from collections.abc import Iterator

import openai
import pytest

from tests.journeys.platform import MODEL, Platform

pytestmark = pytest.mark.journey


@pytest.fixture
def client(platform: Platform, ready_instance: str) -> Iterator[openai.OpenAI]:
    url = f"{platform.card['gateway_url']}/v1"
    with openai.OpenAI(base_url=url, api_key=platform.key, max_retries=0, timeout=30) as made:
        yield made


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]


def test_a_chat_is_answered_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "good morning"}])
    assert "good morning" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_comes_in_pieces_and_hides_the_usage_nobody_asked_for(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three four five six"}], stream=True
    ) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) > 1
    assert "one two three" in "".join(pieces)
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_tells_its_usage_when_asked(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None


def test_max_tokens_ends_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "a long story " * 20}], max_tokens=3
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_a_completion_is_answered(client: openai.OpenAI) -> None:
    assert "tick tock" in client.completions.create(model=MODEL, prompt="tick tock").choices[0].text


def test_texts_are_embedded(client: openai.OpenAI) -> None:
    embedded = client.embeddings.create(model=MODEL, input=["left", "right"])
    assert [item.index for item in embedded.data] == [0, 1]
    assert all(isinstance(number, float) for number in embedded.data[0].embedding)


def test_an_unknown_model_is_the_clients_own_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "hello"}])
    assert refused.value.code == "model_not_found"


def test_a_wrong_key_is_the_clients_own_authentication_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-inv-wrong").models.list()
