"""One relayed response as a state machine that does no I/O: an engine's bytes in, the client's bytes and counts out.

    start(status, content type) ──> receive(bytes) ... ──> end()          what they return is for the client, at once
                                          └──────────────> break_off()    the engine failed on the way

A stream (server-sent events) goes out event by event, wherever the network cut it; an incomplete event waits for its
rest. Any other answer is held until it is complete or has outgrown HELD_BYTES, so that a failure before that can still
be answered properly or tried elsewhere. The surprising rule: while a stream runs nobody knows its tokens, so chunks
with content are counted too, as the lower bound for a stream that never reaches its usage.
"""

from typing import Any, Literal

import msgspec

HELD_BYTES = 256 * 1024
"""Most of one answer that is held back, or kept to look for usage at its end."""
MAX_EVENT_BYTES = 1024 * 1024
"""An event without an end is let through unread from here on, so that memory stays bounded."""

_DONE = b"[DONE]"
_USAGE_KEY = b'"usage":'


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    delta: _Delta | None = None
    text: str | None = None

    def has_content(self) -> bool:
        delta = self.delta
        if self.text or delta is None:
            return bool(self.text)
        return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)


class _Answer(msgspec.Struct):
    """A chunk of a stream, or a whole answer; of any engine that speaks OpenAI's language."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is worth; see domain.usage for the fields."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    counted_by: Literal["engine", "gateway"]
    finish_reason: str | None


_answer_decoder = msgspec.json.Decoder(_Answer)
_usage_decoder = msgspec.json.Decoder(_Usage)


class Relay:
    """One response.

    Args:
        hides_usage: the gateway asked for the usage chunk, the client did not.

    Attributes:
        finished: the answer is complete as far as the client is concerned (its [DONE], or its end).
        failed: the engine itself reported an error within the stream.
        has_content: something that a person would see has come.
        is_stream: the answer is a stream of events.
    """

    def __init__(self, *, hides_usage: bool) -> None:
        self.finished = False
        self.failed = False
        self.has_content = False
        self.is_stream = False
        self._hides_usage = hides_usage
        self._held = b""
        self._passed_on = False
        self._mid_event = False
        self._content_chunks = 0
        self._finish_reason: str | None = None
        self._usage: _Usage | None = None

    def start(self, content_type: bytes) -> None:
        """The engine's head has come; `content_type` is its header."""
        self.is_stream = content_type.lower().startswith(b"text/event-stream")

    def receive(self, data: bytes) -> bytes:
        """What the client gets now; may be empty."""
        if self.is_stream:
            return self._events(data)
        self.has_content = True
        self._held += data
        if not self._passed_on and len(self._held) <= HELD_BYTES:
            return b""
        released = data if self._passed_on else self._held
        self._passed_on = True
        self._held = self._held[-HELD_BYTES:]
        return released

    def end(self) -> bytes:
        """The engine closed the answer in good order; what was still held back."""
        self.finished = True
        rest, self._held = self._held, b""
        if self.is_stream:
            return self._pass(rest) if rest else b""
        self._read_answer(rest)
        return b"" if self._passed_on else rest

    def break_off(self) -> bytes:
        """The engine failed: closes an event that is half at the client; drops one that is wholly held."""
        self._held = b""
        return b"\n\n" if self._mid_event else b""

    @property
    def counts(self) -> Counts:
        """What is known so far; final once the answer has ended or broken."""
        usage = self._usage
        if usage is None:
            return Counts(
                prompt_tokens=0,
                completion_tokens=self._content_chunks,
                cached_tokens=0,
                counted_by="gateway",
                finish_reason=self._finish_reason,
            )
        details = usage.prompt_tokens_details
        return Counts(
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            counted_by="engine",
            finish_reason=self._finish_reason,
        )

    def _events(self, data: bytes) -> bytes:
        held = self._held + data if self._held else data
        out, start = [], 0
        while end := _event_end(held, start):
            out.append(self._pass(held[start:end]))
            start = end
        if len(held) - start > MAX_EVENT_BYTES:
            out.append(held[start:])
            start, self._mid_event = len(held), True
        self._held = held[start:]
        return b"".join(out)

    def _pass(self, event: bytes) -> bytes:
        """One event with its closing blank line: counted, and returned unless it is to be hidden."""
        if self._mid_event:
            self._mid_event = False
            return event
        data = _event_data(event)
        if data == _DONE:
            self.finished = True
            return event
        chunk = _decoded(data) if data else None
        if chunk is None:
            return event
        self._count(chunk)
        usage_only = chunk.usage is not None and chunk.choices == []
        return b"" if usage_only and self._hides_usage else event

    def _count(self, chunk: _Answer) -> None:
        self._usage = chunk.usage or self._usage
        self.failed = self.failed or chunk.error is not None
        for choice in chunk.choices or ():
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.has_content():
                self._content_chunks += 1
                self.has_content = True

    def _read_answer(self, body: bytes) -> None:
        """Usage of an answer in one piece; of a long one only the end is here, which is where usage stands."""
        answer = None if self._passed_on else _decoded(body)
        if answer is not None:
            self._usage = answer.usage
            for choice in answer.choices or ():
                self._finish_reason = choice.finish_reason or self._finish_reason
        elif self._passed_on:
            self._usage = _usage_in_tail(body)


def _event_end(held: bytes, start: int) -> int:
    """Index after the first blank line from `start` on; 0 when the event is not complete."""
    unix, dos = held.find(b"\n\n", start), held.find(b"\r\n\r\n", start)
    if unix < 0 and dos < 0:
        return 0
    return dos + 4 if unix < 0 or 0 <= dos < unix else unix + 2


def _event_data(event: bytes) -> bytes:
    """The event's data lines, joined as the standard says."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2:
        return event[6:].strip()
    lines = (line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines)


def _decoded(data: bytes) -> _Answer | None:
    """None for what is not an answer as we know it; it passes through all the same."""
    try:
        return _answer_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _usage_in_tail(tail: bytes) -> _Usage | None:
    """The last `"usage": {...}` of a long JSON text. Within a JSON string its quotes would be escaped."""
    at = tail.rfind(_USAGE_KEY)
    if at < 0:
        return None
    begin = at + len(_USAGE_KEY)
    depth = 0
    for index in range(begin, len(tail)):
        depth += (tail[index] == ord("{")) - (tail[index] == ord("}"))
        if depth == 0 and tail[index] == ord("}"):
            try:
                return _usage_decoder.decode(tail[begin : index + 1])
            except (msgspec.MsgspecError, UnicodeError):
                return None
    return None
