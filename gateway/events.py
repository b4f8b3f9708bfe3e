"""The long way of reading one server-sent event: decoded, for whatever the relay does not recognise at a glance.

    event ──data_of──> JSON ──read_event──> Told(content? usage? finish? end? error?)
                                └─ without_usage ──> the same event, less the usage that the client did not ask for

Three languages: OpenAI's chunks (and its events for sound and pictures), its responses, Anthropic's messages. The
surprising rule: with several answers side by side, or several prompts, an engine's running usage is each one's own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.counts import Usage, read_usage
from gateway.wire import Language

_DONE = b"[DONE]"
_NULL = b"null"


class Told(msgspec.Struct, kw_only=True):
    """What one event says.

    Attributes:
        usage: merged into what earlier events told. usage_text: its bytes in the event; b"" when it has no such member.
        is_usage_only: it carries nothing but usage.
        index: of the answer that it belongs to.
        finished: the stream's last word. failed: the engine gave up.
    """

    has_content: bool = False
    usage: Usage | None = None
    usage_text: bytes = b""
    is_usage_only: bool = False
    index: int = 0
    finish_reason: str | None = None
    finished: bool = False
    failed: bool = False
    images: int = 0


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    delta: _Delta | None = None
    text: str | None = None

    def has_content(self) -> bool:
        delta = self.delta
        if self.text or delta is None:
            return bool(self.text)
        return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls or delta.refusal)


class _Chunk(msgspec.Struct):
    """OpenAI's; `type` is that of its events for sound and pictures."""

    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    type: str = ""


class _MessageStart(msgspec.Struct):
    usage: Usage | None = None


class _MessageDelta(msgspec.Struct):
    stop_reason: str | None = None


class _MessageEvent(msgspec.Struct):
    type: str = ""
    message: _MessageStart | None = None
    delta: _MessageDelta | None = None
    usage: Usage | None = None


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    usage: Usage | None = None
    status: str | None = None
    incomplete_details: _Reason | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    error: Any = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_message_decoder = msgspec.json.Decoder(_MessageEvent)
_response_decoder = msgspec.json.Decoder(_ResponseEvent)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def data_of(event: bytes) -> bytes:
    """The event's data lines, joined as the standard says."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2:
        return event[6:].strip()
    lines = (line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines)


def read_event(language: Language, event: bytes) -> Told:
    """Never fails: what is not understood tells nothing, and passes through all the same."""
    data = data_of(event)
    if not data:
        return Told()
    if data == _DONE:
        return Told(finished=True)
    try:
        return _READERS[language](data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Told()


def _read_chunk(data: bytes) -> Told:
    chunk = _chunk_decoder.decode(data)
    text = bytes(chunk.usage)
    choices = chunk.choices or []
    return Told(
        has_content=any(choice.has_content() for choice in choices)
        or chunk.type.endswith((".delta", ".partial_image")),
        usage=read_usage(text) if text not in {b"", _NULL} else None,
        usage_text=text,
        is_usage_only=chunk.choices == [] and text not in {b"", _NULL},
        index=choices[0].index if choices else -1,
        finish_reason=next((choice.finish_reason for choice in choices if choice.finish_reason), None),
        failed=chunk.error is not None,
        images=int(chunk.type == "image_generation.completed"),
    )


def _read_message(data: bytes) -> Told:
    event = _message_decoder.decode(data)
    return Told(
        has_content=event.type == "content_block_delta",
        usage=event.message.usage if event.message else event.usage,
        finish_reason=event.delta.stop_reason if event.delta else None,
        finished=event.type == "message_stop",
        failed=event.type == "error",
    )


def _read_response(data: bytes) -> Told:
    event = _response_decoder.decode(data)
    is_last = event.type in {"response.completed", "response.incomplete", "response.failed"}
    response = event.response if is_last and event.response else _Response()
    why = response.incomplete_details.reason if response.incomplete_details else None
    return Told(
        has_content=event.type.endswith(".delta"),
        usage=response.usage,
        finish_reason=why or response.status,
        finished=is_last,
        failed=event.type in {"error", "response.failed"} or event.error is not None,
    )


_READERS: Mapping[Language, Callable[[bytes], Told]] = {
    "openai": _read_chunk,
    "messages": _read_message,
    "responses": _read_response,
}


def without_usage(event: bytes, usage_text: bytes) -> bytes:
    """A chunk less its `usage` member, every other byte as it was; the chunk itself where that cannot be done."""
    end = event.rfind(usage_text) + len(usage_text)
    key = event.rfind(b'"usage"', 0, end - len(usage_text))
    if key < 0 or event[key + 7 : end - len(usage_text)].strip() != b":":
        return event
    before, after = event[:key].rstrip(), event[end:].lstrip()
    if before.endswith(b","):
        cut = before[:-1] + event[end:]
    elif after.startswith(b","):
        cut = event[:key] + after[1:].lstrip()
    else:
        cut = event[:key] + event[end:]
    return cut if _is_cut_right(event, cut) else event


def _is_cut_right(event: bytes, cut: bytes) -> bool:
    """Only the member at the top is gone: not one of the same words further in."""
    try:
        whole, rest = _members_decoder.decode(data_of(event)), _members_decoder.decode(data_of(cut))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    del whole["usage"]
    return whole == rest


class SideBySide:
    """Running usage of several answers to several prompts, each chunk of one; index = prompt * answers + answer."""

    __slots__ = ("_answers", "_by_index")

    def __init__(self, answers: int) -> None:
        self._answers = max(1, answers)
        self._by_index: dict[int, Usage] = {}

    def together(self, index: int, usage: Usage) -> Usage:
        """The usage of the whole request, now that the answer at `index` has come so far; -1: it is the whole's."""
        if index < 0:
            return usage
        self._by_index[index] = usage
        read = {at // self._answers: one.prompt for at, one in self._by_index.items()}
        prompt, completion = sum(read.values()), sum(one.completion for one in self._by_index.values())
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
