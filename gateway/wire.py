"""What the gateway reads of a request and writes into it; everything else passes through as bytes.

    request body ──parse_request──> Ask(model, stream, usage wanted?, ...) ──body_for_engine──> the same + our asks

The surprising rule: a body is hardly ever decoded as a whole. msgspec looks at few fields and skips the rest; what we
add is spliced in front of the last brace. Only what must be changed rather than added is worth writing the body anew: a
name of the model that engines do not know, stream options of the client's own, more tokens than policy allows.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from domain.key_scope import Endpoint
from gateway.http import Headers
from gateway.multipart import Span, text_fields

MODELS_PATH = "/v1/models"
MAX_BODY_BYTES = 10 * 1024 * 1024
"""Longest request body; a million tokens of text are about 4 MiB."""
MAX_UPLOAD_BYTES = 26 * 1024 * 1024
"""Longest form; OpenAI and vLLM take audio files of 25 MB."""

MAX_ECHO_CHARS = 100
"""Most characters of a client's own words that an error message repeats."""

Language = Literal["openai", "responses", "messages"]
"""In which an endpoint's answers, its stream's events and its errors are written."""


class Refusal(Exception):  # noqa: N818 - an answer to the client, not a fault
    """The gateway's own answer instead of an engine's: status, a code for programs, a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint for inference.

    Attributes:
        endpoint: its word in the scope of a key, and in what an engine is known to answer.
        path: where an engine has it, and its name in usage records.
        streams: its body's `stream` asks for events.
        tokens_field: the field that bounds an answer's tokens; "" when there is none.
        asks_usage: its streams tell token counts only when asked to.
    """

    endpoint: Endpoint
    path: str
    language: Language = "openai"
    streams: bool = False
    body: Literal["json", "multipart"] = "json"
    max_body_bytes: int = MAX_BODY_BYTES
    tokens_field: str = ""
    asks_usage: bool = False


_CHAT = Route(
    endpoint="chat",
    path="/v1/chat/completions",
    streams=True,
    asks_usage=True,
    tokens_field="max_completion_tokens",
)
_COMPLETIONS = Route(
    endpoint="completions", path="/v1/completions", streams=True, asks_usage=True, tokens_field="max_tokens"
)
_RESPONSES = Route(
    endpoint="responses", path="/v1/responses", language="responses", streams=True, tokens_field="max_output_tokens"
)
_MESSAGES = Route(
    endpoint="messages", path="/v1/messages", language="messages", streams=True, tokens_field="max_tokens"
)
_COUNT_TOKENS = Route(endpoint="messages", path="/v1/messages/count_tokens", language="messages")
_EMBEDDINGS = Route(endpoint="embeddings", path="/v1/embeddings")
_RERANK = Route(endpoint="rerank", path="/v1/rerank")
_SCORE = Route(endpoint="score", path="/v1/score")
_TOKENIZE = Route(endpoint="tokenize", path="/tokenize")
_DETOKENIZE = Route(endpoint="tokenize", path="/detokenize")
_SPEECH = Route(endpoint="audio", path="/v1/audio/speech")
_IMAGES = Route(endpoint="images", path="/v1/images/generations", streams=True)


def _upload(path: str) -> Route:
    return Route(endpoint="audio", path=path, streams=True, body="multipart", max_body_bytes=MAX_UPLOAD_BYTES)


ROUTES: Mapping[str, Route] = {
    **{
        route.path: route
        for route in (_CHAT, _COMPLETIONS, _RESPONSES, _MESSAGES, _COUNT_TOKENS, _EMBEDDINGS, _SPEECH, _IMAGES)
    },
    **{path: _upload(path) for path in ("/v1/audio/transcriptions", "/v1/audio/translations")},
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), _RERANK),
    **dict.fromkeys(("/v1/score", "/score"), _SCORE),
    **dict.fromkeys(("/tokenize", "/v1/tokenize"), _TOKENIZE),
    **dict.fromkeys(("/detokenize", "/v1/detokenize"), _DETOKENIZE),
}
"""Path -> endpoint. Some have several paths, as vLLM has them."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway needs to know of a request.

    Attributes:
        wants_usage: the client itself asked for usage at the end of its stream, so it is shown.
        wants_progress: the client itself asked for usage in every chunk, so that is shown.
        names_options, names_tokens: the body has `stream_options`, or a bound of tokens: none can be spliced in.
        max_tokens: the most tokens that the client wants of one answer; None when it does not say, or not as a number.
        answers: generated side by side for each prompt (`n`). prompts: how many.
        model_at: where a form has the model's name.
    """

    model: str
    stream: bool = False
    wants_usage: bool = False
    wants_progress: bool = False
    names_options: bool = False
    names_tokens: bool = False
    max_tokens: int | None = None
    answers: int = 1
    prompts: int = 1
    model_at: Span = (0, 0)


class LiveModel(msgspec.Struct, frozen=True):
    """A model that a worker answers for; `since` is when the eldest of its workers was requested."""

    name: str
    since: datetime
    owned_by: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Body(msgspec.Struct):
    """What we are told to bound is read as whatever it is: to refuse a wrong type is the engine's, in its words."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: Any = msgspec.UNSET
    max_completion_tokens: Any = msgspec.UNSET
    max_output_tokens: Any = msgspec.UNSET
    n: Any = None

    @property
    def names_tokens(self) -> bool:
        unset = msgspec.UNSET
        return (
            self.max_tokens is not unset
            or self.max_completion_tokens is not unset
            or self.max_output_tokens is not unset
        )


class _CompletionBody(_Body):
    prompt: msgspec.Raw = msgspec.Raw(b"")


_TOKENS_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_body_decoder = msgspec.json.Decoder(_Body)
_completion_decoder = msgspec.json.Decoder(_CompletionBody)
_whole_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_options_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_prompts_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_true = msgspec.Raw(b"true")


def parse_request(route: Route, headers: Headers, body: bytes) -> Ask:
    """The few fields that decide the way of a request.

    Raises:
        Refusal: 400 invalid_json, invalid_type, invalid_form or missing_model.
    """
    if route.body == "multipart":
        return _parse_form(headers, body)
    try:
        parsed = (_completion_decoder if route is _COMPLETIONS else _body_decoder).decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid_type", f"The request body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", "The request body is not valid JSON.") from error
    if not parsed.model:
        raise _missing_model()
    stream = bool(parsed.stream) and route.streams
    options = parsed.stream_options
    asked = options if stream and isinstance(options, _StreamOptions) and options.include_usage else None
    return Ask(
        model=parsed.model,
        stream=stream,
        wants_usage=asked is not None,
        wants_progress=asked is not None and bool(asked.continuous_usage_stats),
        names_options=options is not msgspec.UNSET,
        names_tokens=parsed.names_tokens,
        max_tokens=_asked_tokens(parsed, route) if route.tokens_field else None,
        answers=parsed.n if type(parsed.n) is int else 1,
        prompts=_prompts(parsed.prompt) if isinstance(parsed, _CompletionBody) else 1,
    )


def _parse_form(headers: Headers, body: bytes) -> Ask:
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    try:
        fields = text_fields(content_type, body)
        begin, end = fields.get("model", (0, 0))
        model = body[begin:end].decode()
    except ValueError as error:
        raise Refusal(400, "invalid_form", f"The form cannot be read: {error}.") from error
    if not model:
        raise _missing_model()
    stream_at = slice(*fields.get("stream", (0, 0)))
    return Ask(model=model, model_at=(begin, end), stream=body[stream_at].lower() in {b"true", b"1"})


def _missing_model() -> Refusal:
    return Refusal(400, "missing_model", "Name a model; GET /v1/models lists yours.", param="model")


def _asked_tokens(parsed: _Body, route: Route) -> int | None:
    """Engines let a chat's newer field win, and read a number that is written as text."""
    asked = getattr(parsed, route.tokens_field)
    return _whole_number(parsed.max_tokens if route is _CHAT and (asked is None or asked is msgspec.UNSET) else asked)


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


def _prompts(prompt: msgspec.Raw) -> int:
    """One text and one list of token ids are one prompt; a list of either are as many as it has."""
    if bytes(memoryview(prompt)[:1]) != b"[":
        return 1
    listed = _prompts_decoder.decode(prompt)
    return 1 if not listed or bytes(listed[0])[:1].isdigit() else len(listed)


def body_for_engine(
    route: Route, body: bytes, ask: Ask, model: str, *, max_tokens: int | None = None, foreign: bool = False
) -> bytes:
    """The client's body as the engine shall read it; a stream's also asks for token counts.

    Args:
        route: of the request.
        body: as it came.
        ask: what was read from it.
        model: what the engine calls the model; the client may have used another name.
        max_tokens: the most that policy allows one answer; also what one gets that does not say.
        foreign: the engine is not one of ours, so it may refuse to be asked for counts in every chunk.
    """
    if route.body == "multipart":
        begin, end = ask.model_at
        return body if ask.model == model else body[:begin] + model.encode() + body[end:]
    asked = ask.max_tokens
    cap = max_tokens if route.tokens_field and (asked is None or max_tokens is None or asked > max_tokens) else None
    asks = ask.stream and route.asks_usage and not (ask.wants_usage and (foreign or ask.wants_progress))
    if ask.model == model and cap is None and not asks:
        return body
    if ask.model != model or (asks and ask.names_options) or (cap is not None and ask.names_tokens):
        return _written_anew(route, body, model, cap=cap, asks=asks, foreign=foreign)
    more = b"" if cap is None else b',"%b":%d' % (route.tokens_field.encode(), cap)
    if asks:
        more += _ASKS_FOREIGN if foreign else _ASKS
    return body[: body.rindex(b"}")] + more + b"}"


_ASKS_FOREIGN = b',"stream_options":{"include_usage":true}'
_ASKS = b',"stream_options":{"include_usage":true,"continuous_usage_stats":true}'


def _written_anew(route: Route, body: bytes, model: str, *, cap: int | None, asks: bool, foreign: bool) -> bytes:
    fields = _whole_decoder.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    if cap is not None:
        _cap(fields, route, cap)
    if asks:
        options = _options_decoder.decode(fields.get("stream_options", b"null")) or {}
        options["include_usage"] = _true
        if not foreign:
            options["continuous_usage_stats"] = _true
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


def _cap(fields: dict[str, msgspec.Raw], route: Route, cap: int) -> None:
    """What is no number is left for the engine to refuse."""
    said = {name: msgspec.json.decode(fields[name]) for name in _TOKENS_FIELDS if name in fields}
    named = {name: value for name, value in said.items() if value is not None}
    for name, value in named.items():
        number = _whole_number(value)
        if number is not None and number > cap:
            fields[name] = msgspec.Raw(b"%d" % cap)
    if not named:
        fields[route.tokens_field] = msgspec.Raw(b"%d" % cap)


def models_body(models: Sequence[LiveModel]) -> bytes:
    return msgspec.json.encode({"object": "list", "data": [_model(model) for model in models]})


def model_body(model: LiveModel) -> bytes:
    return msgspec.json.encode(_model(model))


def _model(model: LiveModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": int(model.since.timestamp()), "owned_by": model.owned_by}


def model_not_found(code: str) -> Refusal:
    message = f"The model '{code[:MAX_ECHO_CHARS]}' does not exist or is not deployed in your organisation."
    return Refusal(404, "model_not_found", message, param="model")
