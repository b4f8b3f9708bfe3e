"""The other two languages that vLLM speaks about a conversation: OpenAI's responses, Anthropic's messages.

created ─> item, part ─> output_text.delta per token ─> done ... ─> response.completed with usage
message_start with the prompt's tokens ─> block ─> delta per token ─> message_delta with usage ─> message_stop
"""

from typing import Any

import msgspec

from agent.simulated_reply import Answer


def named_event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: ".encode() + msgspec.json.encode(value) + b"\n\n"


class ResponsesScript(msgspec.Struct, frozen=True):
    """Implements simulated_wire.Script. `numbered` events carry a sequence number, counted from 0."""

    request_id: str
    model: str
    created: int

    def whole(self, answer: Answer) -> dict[str, Any]:
        ended = {"stop": "completed", "length": "incomplete"}.get(answer.finish_reason, "completed")
        used = len(answer.pieces)
        usage = {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + used,
        }
        return self._response(ended, [self._item("completed", [_part(answer.text)])], usage)

    def opening(self, answer: Answer) -> bytes:  # noqa: ARG002 - see Script
        begun = self._response("in_progress", [], None)
        return b"".join(
            (
                self._event("response.created", 0, response=begun),
                self._event("response.in_progress", 1, response=begun),
                self._event("response.output_item.added", 2, output_index=0, item=self._item("in_progress", [])),
                self._event("response.content_part.added", 3, **self._at, part=_part("")),
            )
        )

    def piece(self, answer: Answer, at: int) -> bytes:
        delta = answer.pieces[at]
        return self._event("response.output_text.delta", 4 + at, **self._at, delta=delta, logprobs=[])

    def closing(self, answer: Answer) -> bytes:
        number = 4 + len(answer.pieces)
        whole = self.whole(answer)
        return b"".join(
            (
                self._event("response.output_text.done", number, **self._at, text=answer.text, logprobs=[]),
                self._event("response.content_part.done", number + 1, **self._at, part=_part(answer.text)),
                self._event("response.output_item.done", number + 2, output_index=0, item=whole["output"][0]),
                self._event(f"response.{whole['status']}", number + 3, response=whole),
            )
        )

    @property
    def _at(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.request_id}", "output_index": 0, "content_index": 0}

    def _event(self, kind: str, number: int, **more: Any) -> bytes:
        return named_event({"type": kind, "sequence_number": number, **more})

    def _item(self, status: str, content: list[Any]) -> dict[str, Any]:
        return {
            "id": f"msg_{self.request_id}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
        why = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self.request_id}",
            "object": "response",
            "created_at": self.created,
            "model": self.model,
            "status": status,
            "incomplete_details": why,
            "error": None,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


class MessagesScript(msgspec.Struct, frozen=True):
    """Implements simulated_wire.Script."""

    request_id: str
    model: str

    def whole(self, answer: Answer) -> dict[str, Any]:
        return {
            **self._message([{"type": "text", "text": answer.text}]),
            "stop_reason": _stop_reason(answer),
            "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": len(answer.pieces)},
        }

    def opening(self, answer: Answer) -> bytes:
        begun = {
            **self._message([]),
            "stop_reason": None,
            "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": 0},
        }
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return named_event({"type": "message_start", "message": begun}) + named_event(block)

    def piece(self, answer: Answer, at: int) -> bytes:
        delta = {"type": "text_delta", "text": answer.pieces[at]}
        return named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, answer: Answer) -> bytes:
        ended = {
            "type": "message_delta",
            "delta": {"stop_reason": _stop_reason(answer), "stop_sequence": None},
            "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": len(answer.pieces)},
        }
        stop = named_event({"type": "content_block_stop", "index": 0})
        return stop + named_event(ended) + named_event({"type": "message_stop"})

    def _message(self, content: list[Any]) -> dict[str, Any]:
        return {
            "id": f"msg_{self.request_id}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.model,
            "stop_sequence": None,
        }


def _stop_reason(answer: Answer) -> str:
    return "max_tokens" if answer.finish_reason == "length" else "end_turn"
