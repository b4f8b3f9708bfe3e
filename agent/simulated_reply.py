"""What the simulated engine answers, as plain data: no socket, no clock. Requests and replies have vLLM's shapes.

    request ──> prompt text ──> "mock: <last user message>" ──cut into tokens of 4 characters──> chunks | reply

A token is a quarter of the text's characters, at least one: rough, but the same on every path, so that what is
streamed, counted and billed agrees to the token.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, Literal

import msgspec

PREFIX = "mock: "
CHARACTERS_PER_TOKEN = 4
MAX_CHOICES = 16
EMBEDDING = (0.0, 0.0, 0.0)

FinishReason = Literal["stop", "length"]
TextInput = str | list[str | int | list[int]]
"""One text, several, the token ids of one, or of several."""


class ContentPart(msgspec.Struct):
    type: str = "text"
    text: str = ""


class Message(msgspec.Struct):
    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class Generation(msgspec.Struct, kw_only=True):
    """The parameters that both kinds of generation share; ignore_eos goes on up to the limit, as in vLLM."""

    model: str
    max_tokens: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    ignore_eos: bool = False


class ChatRequest(Generation, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None


class CompletionRequest(Generation, kw_only=True):
    prompt: TextInput


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str
    input: TextInput


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str = ""


class InvalidRequestError(Exception):
    """The request can be read, but not answered: status 400."""


class Answer(msgspec.Struct, frozen=True):
    """What will be generated, once for each choice.

    Attributes:
        pieces: one per token, in order.
        prompt: the text that the engine read, for its prefix cache.
    """

    prompt: str
    prompt_tokens: int
    pieces: tuple[str, ...]
    finish_reason: FinishReason
    choices: int

    def usage(self, generated: int) -> dict[str, Any]:
        """The usage object of vLLM after `generated` tokens of each choice."""
        completion_tokens = generated * self.choices
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": None,
        }


def answer_chat(request: ChatRequest, context_tokens: int) -> Answer:
    """Raises InvalidRequestError for a request that cannot be answered."""
    if not request.messages:
        raise InvalidRequestError("messages must not be empty")
    prompt_tokens = sum(count_tokens(message.text) for message in request.messages)
    prompt = "\n".join(f"{message.role}: {message.text}" for message in request.messages)
    said = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    wanted = request.max_completion_tokens or request.max_tokens
    return _answer(
        request, prompt=prompt, said=said, prompt_tokens=prompt_tokens, wanted=wanted, context=context_tokens
    )


def answer_completion(request: CompletionRequest, context_tokens: int) -> Answer:
    """The first of several prompts is answered. Raises InvalidRequestError for a request that cannot be answered."""
    prompt = _texts(request.prompt)[0]
    tokens = count_tokens(prompt)
    wanted = request.max_tokens
    return _answer(request, prompt=prompt, said=prompt, prompt_tokens=tokens, wanted=wanted, context=context_tokens)


def _answer(
    request: Generation, *, prompt: str, said: str, prompt_tokens: int, wanted: int | None, context: int
) -> Answer:
    room = context - prompt_tokens
    if room < 1 or (wanted or 0) > room:
        raise InvalidRequestError(
            f"This model's maximum context length is {context} tokens, but {prompt_tokens} tokens were given "
            f"and {wanted or 1} asked for."
        )
    choices = 1 if request.n is None else request.n
    if not 1 <= choices <= MAX_CHOICES or (wanted is not None and wanted < 1):
        raise InvalidRequestError(f"max_tokens must be at least 1, and n from 1 to {MAX_CHOICES}")
    text = _before_stop(PREFIX + said, request.stop)
    pieces = _pieces(text)
    limit = wanted if wanted is not None else room
    if request.ignore_eos:
        pieces = tuple(islice(cycle(pieces), limit))
    finish_reason: FinishReason = "length" if len(pieces) > limit or request.ignore_eos else "stop"
    return Answer(prompt, prompt_tokens, pieces[:limit], finish_reason, choices)


def count_tokens(text: str) -> int:
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


def count_input_tokens(given: TextInput) -> int:
    return sum(count_tokens(text) for text in _texts(given))


def _texts(given: TextInput) -> Sequence[str]:
    """The texts of an input field; token ids stand for texts of as many tokens."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequestError("the input must not be empty")
    if isinstance(given[0], int):
        return [_text_of_ids(len(given))]
    return [
        item if isinstance(item, str) else _text_of_ids(len(item) if isinstance(item, list) else 1) for item in given
    ]


def _text_of_ids(count: int) -> str:
    return "#" * CHARACTERS_PER_TOKEN * count


def embeddings(request: EmbeddingRequest) -> dict[str, Any]:
    tokens = count_input_tokens(request.input)
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": EMBEDDING}
            for index, _ in enumerate(_texts(request.input))
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def _before_stop(text: str, stop: str | list[str] | None) -> str:
    words = [stop] if isinstance(stop, str) else stop or []
    cuts = [text.index(word) for word in words if word and word in text]
    return text[: min(cuts)] if cuts else text


def _pieces(text: str) -> tuple[str, ...]:
    """At least one, as any answer has a last token, if only the one that ends it."""
    return tuple(text[at : at + CHARACTERS_PER_TOKEN] for at in range(0, len(text), CHARACTERS_PER_TOKEN)) or ("",)


class Wire(msgspec.Struct, frozen=True):
    """Shapes one request's answer for the wire: as a chat or as a completion, whole or in chunks."""

    request_id: str
    model: str
    created: int
    chat: bool

    def whole(self, answer: Answer) -> dict[str, Any]:
        text = "".join(answer.pieces)
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choices = [
            {"index": index, **body, "logprobs": None, "finish_reason": answer.finish_reason, "stop_reason": None}
            for index in range(answer.choices)
        ]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._envelope(kind), "choices": choices, "usage": answer.usage(len(answer.pieces))}

    def opening(self, index: int) -> dict[str, Any]:
        """A chat's first chunk, which names the role."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None)

    def piece(self, index: int, text: str, finish_reason: FinishReason | None) -> dict[str, Any]:
        return self._chunk(index, {"delta": {"content": text}} if self.chat else {"text": text}, finish_reason)

    def usage(self, answer: Answer) -> dict[str, Any]:
        """The last chunk of a stream that asked for usage: no choices."""
        return {**self._envelope(self._chunk_kind), "choices": [], "usage": answer.usage(len(answer.pieces))}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _chunk(self, index: int, body: dict[str, Any], finish_reason: FinishReason | None) -> dict[str, Any]:
        choice = {"index": index, **body, "logprobs": None, "finish_reason": finish_reason}
        return {**self._envelope(self._chunk_kind), "choices": [choice]}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.request_id, "object": kind, "created": self.created, "model": self.model}
