"""What the simulated engine is asked, in the shapes of vLLM's requests, and how long a text is.

A token is a quarter of the text's characters, at least one: rough, but the same on every path, so that what is
streamed, counted and billed agrees to the token. A picture is IMAGE_TOKENS, whatever it shows.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 64

TextInput = str | list[str | int | list[int]]
"""One text, several, the token ids of one, or of several."""


class InvalidRequestError(Exception):
    """The request can be read, but not answered: status 400."""


class ContentPart(msgspec.Struct):
    """Of a message: text by any of its names, or a picture as a data URL; other kinds are nothing here."""

    type: str = "text"
    text: str = ""
    image_url: dict[str, Any] | str | None = None
    source: dict[str, Any] | None = None

    @property
    def tokens(self) -> int:
        """Of a picture; 0 for a text. Raises InvalidRequestError for a picture that would have to be fetched."""
        if self.type not in {"image_url", "input_image", "image"}:
            return 0
        url = self.image_url.get("url") if isinstance(self.image_url, dict) else self.image_url
        if self.source is None and not str(url).startswith("data:image/"):
            raise InvalidRequestError("a picture must be a data URL: this engine fetches nothing")
        return IMAGE_TOKENS


class Message(msgspec.Struct):
    role: str = "user"
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def tokens(self) -> int:
        pictures = sum(part.tokens for part in self.content) if isinstance(self.content, list) else 0
        return count_tokens(self.text) + pictures


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Generation(msgspec.Struct, kw_only=True):
    """The parameters that all kinds of generation share; ignore_eos goes on up to the limit, as in vLLM."""

    model: str
    max_tokens: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    ignore_eos: bool = False


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class Tool(msgspec.Struct):
    function: Function


class NamedTool(msgspec.Struct):
    function: Function


class JsonSchema(msgspec.Struct, rename={"schema_": "schema"}):
    schema_: dict[str, Any] = {}


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: JsonSchema | None = None


class ChatRequest(Generation, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Tool] = []
    tool_choice: str | NamedTool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0


class CompletionRequest(Generation, kw_only=True):
    prompt: TextInput
    logprobs: int | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """OpenAI's newer endpoint; its own state of conversations is not kept."""

    model: str
    input: str | list[Message]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = False
    temperature: float | None = None
    ignore_eos: bool = False

    def as_chat(self) -> ChatRequest:
        said = [Message("user", self.input)] if isinstance(self.input, str) else self.input
        system = [Message("system", self.instructions)] if self.instructions else []
        return ChatRequest(
            model=self.model,
            messages=[*system, *said],
            max_tokens=self.max_output_tokens,
            ignore_eos=self.ignore_eos,
        )


class MessagesRequest(msgspec.Struct, kw_only=True):
    """Anthropic's endpoint."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[ContentPart] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    ignore_eos: bool = False

    def as_chat(self) -> ChatRequest:
        system = [Message("system", self.system)] if self.system else []
        return ChatRequest(
            model=self.model,
            messages=[*system, *self.messages],
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            ignore_eos=self.ignore_eos,
        )


def count_tokens(text: str) -> int:
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


def count_input_tokens(given: TextInput) -> int:
    return sum(count_tokens(text) for text in texts(given))


def texts(given: TextInput) -> Sequence[str]:
    """The texts of an input field; token ids stand for texts of as many tokens."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequestError("the input must not be empty")
    if isinstance(given[0], int):
        return [text_of_ids(len(given))]
    return [
        item if isinstance(item, str) else text_of_ids(len(item) if isinstance(item, list) else 1) for item in given
    ]


def text_of_ids(count: int) -> str:
    return "#" * CHARACTERS_PER_TOKEN * count
