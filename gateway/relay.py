"""One relayed answer as a state machine that does no I/O: an engine's bytes in, the client's bytes and counts out.

    start(content type) ──> receive(bytes) ... ──> receive(bytes, ended)     what they return is for the client, at once
                                └────────────────> break_off()               the engine failed on the way

A stream (server-sent events) goes out event by event, wherever the network cut it; an incomplete event waits for its
rest. JSON is held until it is complete or has outgrown HELD_BYTES, so that a failure before that can still be answered
properly or tried elsewhere; sound and pictures are not held. The surprising rule: a chunk of a stream is not decoded.
Engines write a chunk's usage as its last member, so it is found from the end, cut out as it stands, and read once, when
the stream is over. What does not look like that goes the long way, through events.py.
"""

from collections import deque

import msgspec

from gateway.counts import (
    CARRY_BYTES,
    Counts,
    Usage,
    count_images,
    counts_of,
    counts_of_tail,
    counts_of_whole,
    read_usage,
)
from gateway.events import SideBySide, read_event, without_usage
from gateway.wire import Ask, Route

HELD_BYTES = 256 * 1024
"""Most of one answer that is held back, or kept to look for usage at its end."""
MAX_EVENT_BYTES = 1024 * 1024
"""An event without an end is let through unread from here on, so that memory stays bounded."""

_BLANK = b"\n\n"
_CLOSING = b"}}\n\n"
_USAGE_IN_CHUNK = b'}],"usage":{'
_USAGE = b'"usage":'
_GOES_ON = b'"finish_reason":null'
_UNHELD = (b"audio/", b"image/", b"video/", b"application/octet-stream")
_usage_encoder = msgspec.json.Encoder()


class Relay:
    """One answer.

    Args:
        route: the endpoint that was asked.
        ask: what the client asked, so also what of the usage it shall not see because only the gateway asked for it.

    Attributes:
        finished: the answer is complete as far as the client is concerned (its last event, or its end).
        failed: the engine itself reported an error within the stream.
        has_content: something that a person would see has come.
        is_stream: the answer is a stream of events.
        progress: what the last `receive` told of the counts, for the journal of running requests: `"usage":{...}`, then
            `"chunks":n` for the chunks of content since that usage; either may be missing, and b"" is nothing new.
    """

    __slots__ = (
        "_blank",
        "_chunks",
        "_counts",
        "_finish_reason",
        "_hides_progress",
        "_hides_usage",
        "_images",
        "_is_plain_sailing",
        "_is_unheld",
        "_last_chunk",
        "_mid_event",
        "_parts",
        "_passed_on",
        "_route",
        "_seam",
        "_side_by_side",
        "_size",
        "_usage",
        "failed",
        "finished",
        "has_content",
        "is_stream",
        "progress",
    )

    def __init__(self, route: Route, ask: Ask) -> None:
        self.finished = self.failed = self.has_content = self.is_stream = False
        self.progress = b""
        self._route = route
        self._hides_usage = route.asks_usage and not ask.wants_usage
        self._hides_progress = route.asks_usage and not ask.wants_progress
        self._side_by_side = SideBySide(ask.answers) if ask.answers * ask.prompts > 1 else None
        self._counts: Counts | None = None
        self._usage = b""
        self._chunks = 0
        self._images = 0
        self._finish_reason: str | None = None
        self._last_chunk = b""
        self._blank = b""
        self._is_plain_sailing = False
        self._is_unheld = self._passed_on = self._mid_event = False
        self._parts: deque[bytes] = deque()
        self._seam = b""
        self._size = 0

    def start(self, content_type: bytes) -> None:
        """The engine's head has come; `content_type` is its header."""
        kind = content_type.lower()
        self.is_stream = kind.startswith(b"text/event-stream")
        self._is_unheld = kind.startswith(_UNHELD)

    def receive(self, data: bytes, *, ended: bool) -> bytes:
        """What the client gets now; may be empty. `ended`: the engine closed the answer in good order."""
        self.progress = b""
        if self._is_plain_sailing and not self._parts and not ended:
            # What most reads of most streams are, written out: one event of one line; see `_event` for the rest of it.
            at, last = data.rfind(_USAGE_IN_CHUNK), len(data) - 4
            if at > 0 and data.find(b"}", at + 12) == last and data.find(b"\n") == last + 2 and data.endswith(_CLOSING):
                self._last_chunk = data
                self._chunks = 0
                self.progress = self._usage = data[at + 3 : -3]
                return data[: at + 2] + b"}\n\n" if self._hides_progress else data
            if _is_one_event(data):
                return self._event(data)
        if not self.is_stream:
            return self._receive_whole(data, ended)
        out = self._receive_events(data)
        if ended:
            out += self._rest()
            self.finished = True
        return out

    def break_off(self) -> bytes:
        """The engine failed: closes an event that is half at the client; drops one that is wholly held."""
        self._drop_held()
        return _BLANK if self._mid_event else b""

    @property
    def counts(self) -> Counts:
        """What is known so far; final once the answer has ended or broken."""
        if self._counts is not None:
            return self._counts
        if self._last_chunk:
            told = read_event(self._route.language, self._last_chunk)
            self._finish_reason, self._last_chunk = told.finish_reason or self._finish_reason, b""
        usage = read_usage(self._usage[len(_USAGE) :]) if self._usage else None
        counts = counts_of(usage, finish_reason=self._finish_reason, images=self._images)
        if not self._chunks:
            return counts
        return msgspec.structs.replace(
            counts, completion_tokens=counts.completion_tokens + self._chunks, counted_by="gateway"
        )

    # ---- a stream

    def _event(self, event: bytes) -> bytes:
        """One event with its closing blank line: counted, and returned as the client shall see it."""
        if self._is_plain_sailing:
            at = event.rfind(_USAGE_IN_CHUNK)
            # Only two braces close behind `"usage":{`, both at the end: it is a member of the chunk itself, its last.
            if at > 0 and event.find(b"}", at + 12) == len(event) - 4 and event.endswith(_CLOSING):
                self._last_chunk = event
                self._chunks = 0
                self.progress = self._usage = event[at + 3 : -3]
                return event[: at + 2] + b"}\n\n" if self._hides_progress else event
            if at < 0 and self._is_content(event):
                self._last_chunk = event
                self._count_chunk()
                return event
        return self._read(event)

    def _is_content(self, event: bytes) -> bool:
        """A chunk that goes on, known by how it begins or by what it says of its end."""
        match self._route.language:
            case "openai":
                return _GOES_ON in event and _USAGE not in event
            case "messages":
                return event.startswith(b"event: content_block_delta\n")
            case "responses":
                return event.find(b".delta\n", 0, 80) > 0

    def _count_chunk(self) -> None:
        self._chunks += 1
        usage = self._usage + b"," if self._usage else b""
        self.progress = b'%b"chunks":%d' % (usage, self._chunks)

    def _read(self, event: bytes) -> bytes:
        """The long way."""
        if self._mid_event:
            self._mid_event = False
            self._sail()
            return event
        told = read_event(self._route.language, event)
        if told.has_content and not self.has_content:
            self.has_content = True
            self._sail()
        self.finished = self.finished or told.finished
        self.failed = self.failed or told.failed
        self._images += told.images
        if told.finish_reason:
            self._finish_reason, self._last_chunk = told.finish_reason, b""
        if told.usage is not None:
            self._take_usage(told.usage, told.index)
        elif told.has_content:
            self._count_chunk()
        if told.is_usage_only:
            return b"" if self._hides_usage else event
        hides = told.usage_text and self._hides_progress and (self._hides_usage or told.usage is not None)
        return without_usage(event, told.usage_text) if hides else event

    def _sail(self) -> None:
        """From the first content on, a chunk can be known at a glance; not where answers run side by side."""
        self._is_plain_sailing = self.has_content and self._side_by_side is None and self._blank == _BLANK

    def _take_usage(self, usage: Usage, index: int) -> None:
        """What it does not say, earlier ones may have: Anthropic tells the prompt first and the rest last."""
        if self._side_by_side is not None:
            usage = self._side_by_side.together(index, usage)
        before = read_usage(self._usage[len(_USAGE) :]) if self._usage else None
        self._usage = _USAGE + _usage_encoder.encode(usage if before is None else usage.over(before))
        self._chunks = 0
        self.progress = self._usage

    def _receive_events(self, data: bytes) -> bytes:
        """Cuts what came into events; the beginning of one is held."""
        if not self._blank:
            self._blank = _blank_of(self._seam + data)
        if not self._blank or self._blank not in self._seam + data:
            return self._hold(data)
        held = b"".join((*self._parts, data)) if self._parts else data
        self._drop_held()
        out, start = [], 0
        while (end := held.find(self._blank, start)) >= 0:
            end += len(self._blank)
            out.append(self._event(held[start:end]))
            start = end
        out.append(self._hold(held[start:]))
        return b"".join(out)

    def _hold(self, data: bytes) -> bytes:
        """Keeps the beginning of an event. One too long is let through, but for a line end that may close it."""
        if data:
            self._parts.append(data)
            self._size += len(data)
            self._seam = (self._seam + data)[-3:]
        if self._size <= MAX_EVENT_BYTES:
            return b""
        held = b"".join(self._parts)
        through = held.rstrip(b"\r\n")
        self._drop_held()
        self._mid_event, self._is_plain_sailing = True, False
        self._hold(held[len(through) :])
        return through

    def _drop_held(self) -> None:
        self._parts.clear()
        self._size, self._seam = 0, b""

    def _rest(self) -> bytes:
        """A last event without its blank line."""
        rest = b"".join(self._parts)
        self._drop_held()
        return self._read(rest) if rest else b""

    # ---- an answer in one piece

    def _receive_whole(self, data: bytes, ended: bool) -> bytes:
        self.has_content = self.has_content or bool(data)
        if ended:
            self.finished = True
            if not self._parts and not self._passed_on and not self._is_unheld:
                self._counts = counts_of_whole(data, images=self._route.endpoint == "images")
                return data
        if self._is_unheld:
            return data
        return self._keep(data, ended)

    def _keep(self, data: bytes, ended: bool) -> bytes:
        """Holds what came, or passes it on and keeps no more than the end, where usage stands."""
        released = b""
        if self._passed_on or self._size + len(data) > HELD_BYTES:
            released = data if self._passed_on else b"".join((*self._parts, data))
            self._images += self._count_images(released)
            self._passed_on = True
        self._parts.append(data)
        self._size += len(data)
        while self._passed_on and self._size - len(self._parts[0]) >= HELD_BYTES:
            self._size -= len(self._parts.popleft())
        if not ended:
            return released
        held = b"".join(self._parts)
        if self._passed_on:
            self._counts = counts_of_tail(held[-HELD_BYTES:], images=self._images)
            return released
        self._counts = counts_of_whole(held, images=self._route.endpoint == "images")
        return held

    def _count_images(self, data: bytes) -> int:
        if self._route.endpoint != "images":
            return 0
        carry, self._seam = self._seam, (self._seam + data)[-CARRY_BYTES:]
        return count_images(carry, data)


def _is_one_event(data: bytes) -> bool:
    """Whole, and nothing else. Most are one line, and one character is found twice as fast as two."""
    at = len(data) - 2
    return data.endswith(_BLANK) and (data.find(b"\n") == at or data.find(_BLANK) == at)


def _blank_of(data: bytes) -> bytes:
    """How this stream's events end, which its first line end tells; b"" while there is none."""
    at = data.find(b"\n")
    if at < 0:
        return b""
    return b"\r\n\r\n" if data[:at].endswith(b"\r") else _BLANK
