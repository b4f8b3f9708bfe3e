"""What an answer is worth: the `usage` objects of every language that engines speak, read as one.

    {"prompt_tokens", "completion_tokens", ...}                   OpenAI's chat, completions, embeddings; rerank, score
    {"input_tokens", "output_tokens", "input_tokens_details"}     OpenAI's responses and images
    {"input_tokens", "output_tokens", "cache_read_input_tokens"}  Anthropic's messages
    {"type": "duration", "seconds"}                               transcriptions

The surprising rule: OpenAI's prompt tokens contain the cached ones, Anthropic's do not. Ours always contain them.
"""

import re
from typing import Any, Literal

import msgspec

CARRY_BYTES = 64
"""Of the piece before, so that an image whose beginning was cut in two is still seen."""

_USAGE_KEY = b'"usage":'
_IMAGE = re.compile(rb'"(?:b64_json|url)"\s*:\s*"')


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """See domain.usage for the fields.

    Attributes:
        counted_by: "gateway" when the engine has told nothing (yet), and the chunks that passed stand for its tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    counted_by: Literal["engine", "gateway"] = "gateway"
    finish_reason: str | None = None
    input_audio_seconds: float = 0.0
    output_images: int = 0


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, omit_defaults=True):
    """An engine's own words; which of them it uses depends on its language."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    seconds: float | None = None

    def over(self, before: "Usage") -> "Usage":
        """What this one does not say, the one before may."""
        said = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return msgspec.structs.replace(before, **said)

    @property
    def prompt(self) -> int:
        """Tokens read, cached ones among them."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.input_tokens is not None:
            return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return max(0, (self.total_tokens or 0) - self.completion)

    @property
    def completion(self) -> int:
        return self.completion_tokens or self.output_tokens or 0

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details or self.input_tokens_details
        return (details.cached_tokens or 0 if details else 0) or self.cache_read_input_tokens or 0


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class WholeAnswer(msgspec.Struct):
    """An answer in one piece, of whichever endpoint."""

    usage: Usage | None = None
    choices: list[_Choice] | None = None
    stop_reason: str | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    duration: float | str | None = None
    data: list[msgspec.Raw] | None = None

    @property
    def finish_reason(self) -> str | None:
        """The word of OpenAI's choices, Anthropic's stop reason, or why a response is incomplete, else its status."""
        for choice in self.choices or ():
            if choice.finish_reason:
                return choice.finish_reason
        if self.incomplete_details is not None and self.incomplete_details.reason:
            return self.incomplete_details.reason
        return self.stop_reason or self.status


_usage_decoder = msgspec.json.Decoder(Usage)
_whole_decoder = msgspec.json.Decoder(WholeAnswer)
_lenient_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def counts_of(usage: Usage | None, *, finish_reason: str | None = None, images: int = 0) -> Counts:
    """An engine's usage as we book it; without any, nothing but what else is known."""
    if usage is None:
        return Counts(finish_reason=finish_reason, output_images=images)
    return Counts(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_tokens=usage.cached,
        counted_by="engine",
        finish_reason=finish_reason,
        input_audio_seconds=usage.seconds or 0.0,
        output_images=images,
    )


def read_usage(text: bytes) -> Usage | None:
    """A usage object; None when it is none."""
    try:
        return _usage_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def counts_of_whole(body: bytes, *, images: bool) -> Counts:
    """Of an answer in one piece that is here as a whole; `images`: its data are pictures, not vectors."""
    try:
        answer = _whole_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return counts_of(_usage_of_strange(body))
    usage = answer.usage
    if usage is None and answer.duration is not None:
        usage = Usage(seconds=_seconds(answer.duration))
    pictures = len(answer.data) if images and answer.data else 0
    return counts_of(usage, finish_reason=answer.finish_reason, images=pictures)


def counts_of_tail(tail: bytes, *, images: int) -> Counts:
    """Of a long answer of which only the end is here, which is where usage stands."""
    return counts_of(_usage_in(tail), images=images)


def count_images(carry: bytes, data: bytes) -> int:
    """Pictures that begin in `data`; `carry` is the end of what came before."""
    return sum(match.end() > len(carry) for match in _IMAGE.finditer(carry + data))


def _usage_of_strange(body: bytes) -> Usage | None:
    """Of JSON whose other fields are not as we know them."""
    try:
        raw = _lenient_decoder.decode(body).get("usage")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return read_usage(bytes(raw)) if raw is not None else None


def _seconds(given: Any) -> float | None:
    """A duration is a number for OpenAI, and text for vLLM."""
    try:
        return float(given)
    except ValueError:
        return None


def _usage_in(tail: bytes) -> Usage | None:
    """The last `"usage": {...}` of a long JSON text. Within a JSON string its quotes would be escaped."""
    at = tail.rfind(_USAGE_KEY)
    if at < 0:
        return None
    begin = at + len(_USAGE_KEY)
    depth = 0
    for index in range(begin, len(tail)):
        depth += (tail[index] == ord("{")) - (tail[index] == ord("}"))
        if depth == 0 and tail[index] == ord("}"):
            return read_usage(tail[begin : index + 1])
    return None
