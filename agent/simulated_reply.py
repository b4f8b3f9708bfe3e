"""What the simulated engine answers, as plain data: no socket, no clock.

request ──> prompt text ──> "mock: <last user message>" ──cut into tokens of 4 characters──> Answer
or a call of the tool, or an object that fits the schema
"""

import json
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, Literal

import msgspec

from agent.simulated_requests import (
    CHARACTERS_PER_TOKEN,
    ChatRequest,
    CompletionRequest,
    Generation,
    InvalidRequestError,
    NamedTool,
    count_tokens,
    texts,
)
from agent.simulated_schema import fitting

PREFIX = "mock: "
MAX_CHOICES = 16
MAX_LOGPROBS = 20
"""vLLM's default --max-logprobs."""

FinishReason = Literal["stop", "length", "tool_calls"]


class Answer(msgspec.Struct, frozen=True):
    """What will be generated, once for each choice.

    Attributes:
        pieces: one per token, in order.
        prompt: the text that the engine read, for its prefix cache.
        tool: the function that the pieces are the arguments of; "" for an answer to be read.
        logprobs: alternatives shown for each token; None shows no probabilities at all.
    """

    prompt: str
    prompt_tokens: int
    pieces: tuple[str, ...]
    finish_reason: FinishReason
    choices: int
    tool: str = ""
    logprobs: int | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def usage(self, generated: int, choices: int | None = None) -> dict[str, Any]:
        """The running usage of vLLM after `generated` tokens of each of `choices`, by default all."""
        completion_tokens = generated * (self.choices if choices is None else choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
        }


def answer_chat(request: ChatRequest, context_tokens: int) -> Answer:
    """Raises InvalidRequestError for a request that cannot be answered."""
    if not request.messages:
        raise InvalidRequestError("messages must not be empty")
    prompt_tokens = sum(message.tokens for message in request.messages)
    prompt = "\n".join(f"{message.role}: {message.text}" for message in request.messages)
    tool, text = _said(request)
    wanted = request.max_completion_tokens or request.max_tokens
    alternatives = _alternatives(request.top_logprobs or 0) if request.logprobs else None
    answer = _answer(
        request, prompt=prompt, text=text, prompt_tokens=prompt_tokens, wanted=wanted, context=context_tokens
    )
    called: FinishReason = "tool_calls" if tool and answer.finish_reason == "stop" else answer.finish_reason
    return msgspec.structs.replace(answer, tool=tool, finish_reason=called, logprobs=alternatives)


def answer_completion(request: CompletionRequest, context_tokens: int) -> Answer:
    """The first of several prompts is answered. Raises InvalidRequestError for a request that cannot be answered."""
    prompt = texts(request.prompt)[0]
    tokens = count_tokens(prompt)
    answer = _answer(
        request,
        prompt=prompt,
        text=PREFIX + prompt,
        prompt_tokens=tokens,
        wanted=request.max_tokens,
        context=context_tokens,
    )
    alternatives = None if request.logprobs is None else _alternatives(request.logprobs)
    return msgspec.structs.replace(answer, logprobs=alternatives)


def _said(request: ChatRequest) -> tuple[str, str]:
    """The tool that is called, if one is, and the text: its arguments, an object, or an echo."""
    if tool := _called(request):
        parameters = next((one.function.parameters for one in request.tools if one.function.name == tool), {})
        return tool, json.dumps(fitting(parameters))
    said = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    wanted = request.response_format
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is not None:
        return "", json.dumps(fitting(wanted.json_schema.schema_))
    if wanted is not None and wanted.type == "json_object":
        return "", json.dumps({"mock": said})
    return "", PREFIX + said


def _called(request: ChatRequest) -> str:
    """The tool that was demanded, else the first; none once it has answered, or when there shall be none."""
    if isinstance(request.tool_choice, NamedTool):
        return request.tool_choice.function.name
    if not request.tools or request.tool_choice == "none" or request.messages[-1].role == "tool":
        return ""
    return request.tools[0].function.name


def _alternatives(wanted: int) -> int:
    if not 0 <= wanted <= MAX_LOGPROBS:
        raise InvalidRequestError(f"Requested sample logprobs of {wanted}, which is not from 0 to {MAX_LOGPROBS}")
    return wanted


def _answer(
    request: Generation, *, prompt: str, text: str, prompt_tokens: int, wanted: int | None, context: int
) -> Answer:
    if prompt_tokens >= context or (wanted or 0) > context:
        raise InvalidRequestError(
            f"This model's maximum context length is {context} tokens, but {prompt_tokens} tokens were given "
            f"and {wanted or 1} asked for."
        )
    choices = 1 if request.n is None else request.n
    if not 1 <= choices <= MAX_CHOICES or (wanted is not None and wanted < 1):
        raise InvalidRequestError(f"max_tokens must be at least 1, and n from 1 to {MAX_CHOICES}")
    if request.temperature is not None and request.temperature < 0:
        raise InvalidRequestError(f"temperature must be non-negative, got {request.temperature}.")
    pieces = _pieces(_before_stop(text, request.stop))
    limit = min(wanted or context, context - prompt_tokens)
    if request.ignore_eos:
        pieces = tuple(islice(cycle(pieces), limit))
    finish_reason: FinishReason = "length" if len(pieces) > limit or request.ignore_eos else "stop"
    return Answer(prompt, prompt_tokens, pieces[:limit], finish_reason, choices)


def _before_stop(text: str, stop: str | Sequence[str] | None) -> str:
    words = [stop] if isinstance(stop, str) else stop or []
    cuts = [text.index(word) for word in words if word and word in text]
    return text[: min(cuts)] if cuts else text


def _pieces(text: str) -> tuple[str, ...]:
    """At least one, as any answer has a last token, if only the one that ends it."""
    return tuple(text[at : at + CHARACTERS_PER_TOKEN] for at in range(0, len(text), CHARACTERS_PER_TOKEN)) or ("",)
