"""Streams as engines write them, for playbooks: vLLM's chunks, Anthropic's messages, OpenAI's responses."""

import json
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
DONE = b"data: [DONE]\n\n"


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """A running count in vLLM's order."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def chunk(
    delta: dict[str, Any] | None = None,
    *,
    text: str | None = None,
    index: int = 0,
    finish_reason: str | None = None,
    used: dict[str, Any] | None = None,
    raw: str = "",
) -> bytes:
    """One chunk; `raw` is written behind the choices as it is."""
    body = {"delta": delta} if text is None else {"text": text}
    choice = {"index": index, **body, "logprobs": None, "finish_reason": finish_reason}
    tail = raw or (f',"usage":{_json(used)}' if used is not None else "")
    return f'data: {{"id":"chatcmpl-1","created":1,"model":"m","choices":[{_json(choice)}]{tail}}}\n\n'.encode()


def usage_chunk(prompt: int, completion: int, *, cached: int = 0) -> bytes:
    counted = {**usage(prompt, completion), "prompt_tokens_details": {"cached_tokens": cached}}
    return f'data: {{"id":"chatcmpl-1","created":1,"model":"m","choices":[],"usage":{_json(counted)}}}\n\n'.encode()


def message_stream(prompt: int, completion: int, *, cached: int = 0) -> bytes:
    begun: dict[str, Any] = {"input_tokens": prompt, "output_tokens": 0}
    if cached:
        begun["cache_read_input_tokens"] = cached
    block = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "usage": begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[block] * completion,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": completion}},
        {"type": "message_stop"},
    ]
    return _named(events)


def response_stream(prompt: int, completion: int) -> bytes:
    counted = {"input_tokens": prompt, "output_tokens": completion, "input_tokens_details": {"cached_tokens": 0}}
    delta = {"type": "response.output_text.delta", "delta": "x"}
    done = {"type": "response.completed", "response": {"status": "completed", "usage": counted}}
    created = {"type": "response.created", "response": {"status": "in_progress", "usage": None}}
    return _named([created, *[delta] * completion, done])


def _named(events: list[dict[str, Any]]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {_json(event)}\n\n".encode() for event in events)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
