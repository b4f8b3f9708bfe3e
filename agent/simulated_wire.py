"""Shapes an answer as vLLM writes it: whole, or as a stream that opens, says its pieces and closes.

A Script is one request's way of being told; these are OpenAI's chat and completions, simulated_languages.py has the
others. The surprising rule: as in vLLM, a chat's first chunk goes on behind its usage, and a running usage is that of
one choice.
"""

from typing import Any, Protocol

import msgspec

from agent.simulated_reply import Answer, FinishReason
from agent.simulated_requests import StreamOptions

DONE = b"data: [DONE]\n\n"


class Script(Protocol):
    """How one request's answer is told."""

    def whole(self, answer: Answer) -> dict[str, Any]: ...

    def opening(self, answer: Answer) -> bytes: ...

    def piece(self, answer: Answer, at: int) -> bytes:
        """The token at this place, of every choice."""
        ...

    def closing(self, answer: Answer) -> bytes: ...


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class OpenAIScript(msgspec.Struct, frozen=True):
    """Chat or completions. Implements Script.

    Attributes:
        options: of the stream; what they ask for is in it.
    """

    request_id: str
    model: str
    created: int
    chat: bool
    options: StreamOptions | None = None

    def whole(self, answer: Answer) -> dict[str, Any]:
        body = {"message": self._message(answer)} if self.chat else {"text": answer.text}
        probabilities = self._logprobs(answer, range(len(answer.pieces)))
        choices = [
            {
                "index": index,
                **body,
                "logprobs": probabilities,
                "finish_reason": answer.finish_reason,
                "stop_reason": None,
            }
            for index in range(answer.choices)
        ]
        kind = "chat.completion" if self.chat else "text_completion"
        usage = {**answer.usage(len(answer.pieces)), "prompt_tokens_details": None}
        return {**self._envelope(kind), "choices": choices, "usage": usage}

    def opening(self, answer: Answer) -> bytes:
        """A chat's first chunks, which name the role; for a tool, its name comes next."""
        if not self.chat:
            return b""
        first = {"delta": {"role": "assistant", "content": ""}}
        more = {"prompt_token_ids": None, "prompt_text": None}
        opened = [self._chunk(answer, index, first, None, 0, more) for index in range(answer.choices)]
        if answer.tool:
            call = {"id": self._call_id, "type": "function", "index": 0, "function": {"name": answer.tool}}
            delta = {"delta": {"tool_calls": [call]}}
            opened += [self._chunk(answer, index, delta, None, 0) for index in range(answer.choices)]
        return b"".join(opened)

    def piece(self, answer: Answer, at: int) -> bytes:
        reason = answer.finish_reason if at == len(answer.pieces) - 1 else None
        body: dict[str, Any] = {"text": answer.pieces[at]}
        if self.chat:
            call = {"index": 0, "function": {"arguments": answer.pieces[at]}}
            body = {"delta": {"tool_calls": [call]} if answer.tool else {"content": answer.pieces[at]}}
        return b"".join(self._chunk(answer, index, body, reason, at + 1) for index in range(answer.choices))

    def closing(self, answer: Answer) -> bytes:
        if not (self.options and self.options.include_usage):
            return DONE
        usage = answer.usage(len(answer.pieces))
        return event({**self._envelope(self._chunk_kind), "choices": [], "usage": usage}) + DONE

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    @property
    def _call_id(self) -> str:
        return f"chatcmpl-tool-{self.request_id}"

    def _chunk(
        self,
        answer: Answer,
        index: int,
        body: dict[str, Any],
        finish_reason: FinishReason | None,
        generated: int,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        probabilities = self._logprobs(answer, range(generated - 1, generated)) if generated else None
        choice = {"index": index, **body, "logprobs": probabilities, "finish_reason": finish_reason}
        chunk = {**self._envelope(self._chunk_kind), "choices": [choice]}
        if self.options and self.options.include_usage and self.options.continuous_usage_stats:
            chunk["usage"] = answer.usage(generated, 1)
        return event({**chunk, **(more or {})})

    def _message(self, answer: Answer) -> dict[str, Any]:
        if not answer.tool:
            return {"role": "assistant", "content": answer.text, "refusal": None, "tool_calls": []}
        function = {"name": answer.tool, "arguments": answer.text}
        call = {"id": self._call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}

    def _logprobs(self, answer: Answer, places: range) -> dict[str, Any] | None:
        if answer.logprobs is None:
            return None
        told = [(answer.pieces[at], logprob(at)) for at in places]
        if self.chat:
            return {"content": [_chat_logprob(token, value, answer.logprobs) for token, value in told]}
        offsets = [len("".join(answer.pieces[:at])) for at in places]
        return {
            "text_offset": offsets,
            "token_logprobs": [value for _, value in told],
            "tokens": [token for token, _ in told],
            "top_logprobs": [dict(_alternatives(token, value, max(1, answer.logprobs))) for token, value in told],
        }

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.request_id, "object": kind, "created": self.created, "model": self.model}


def logprob(at: int) -> float:
    """Of the token at this place: made up, but always the same."""
    return -0.125 * (1 + at % 7)


def _alternatives(token: str, value: float, count: int) -> list[tuple[str, float]]:
    return [(token, value), *((f"alt{n}", value - n) for n in range(1, count))][:count]


def _chat_logprob(token: str, value: float, count: int) -> dict[str, Any]:
    shown = [_token(other, its) for other, its in _alternatives(token, value, count)]
    return {**_token(token, value), "top_logprobs": shown}


def _token(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
