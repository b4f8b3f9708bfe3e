"""OpenAI's shapes, as far as the gateway reads or writes them; everything else passes through as bytes.

    request body ──parse_request──> Ask(model, stream, usage wanted?) ──body_for_engine──> the same bytes + usage asked
    Refusal ──error_body──> {"error": {"message", "type", "param", "code"}}

The surprising rule: a body is hardly ever decoded as a whole. msgspec looks at three fields and skips the rest; the one
addition (`stream_options.include_usage`) is spliced in front of the last brace. Only the name of an offering, which
engines do not know, is worth writing the body anew.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from domain.key_scope import Endpoint
from gateway.http import Headers

MODELS_PATH = "/v1/models"
STREAMING_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
INFERENCE_PATHS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
"""Path -> its word in the scope of a key."""
MAX_BODY_BYTES = 10 * 1024 * 1024
"""Longest request body; a million tokens of text are about 4 MiB."""
MAX_ECHO_CHARS = 100
"""Most characters of a client's own words that an error message repeats."""

_USAGE_ASKED = b',"stream_options":{"include_usage":true}}'


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


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway needs to know of a request.

    Attributes:
        wants_usage: the client itself asked for usage in its stream, so the usage chunk is shown to it.
        names_options: the body has a `stream_options` key, so nothing can simply be spliced in.
    """

    model: str
    stream: bool
    wants_usage: bool
    names_options: bool


class LiveModel(msgspec.Struct, frozen=True):
    """A model that a worker answers for; `since` is when the eldest of its workers was requested."""

    name: str
    since: datetime
    owned_by: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET


_body_decoder = msgspec.json.Decoder(_Body)
_whole_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_options_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def parse_request(path: str, body: bytes) -> Ask:
    """The few fields that decide the way of a request.

    Raises:
        Refusal: 400 invalid_json, invalid_type or missing_model.
    """
    try:
        parsed = _body_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid_type", f"The request body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", "The request body is not valid JSON.") from error
    if not parsed.model:
        raise Refusal(400, "missing_model", "Name a model; GET /v1/models lists yours.", param="model")
    options = parsed.stream_options
    return Ask(
        model=parsed.model,
        stream=bool(parsed.stream) and path in STREAMING_PATHS,
        wants_usage=isinstance(options, _StreamOptions) and bool(options.include_usage),
        names_options=options is not msgspec.UNSET,
    )


def body_for_engine(body: bytes, ask: Ask, model: str) -> bytes:
    """The client's body; a stream's also asks the engine for its token counts.

    Args:
        body: as it came.
        ask: what was read from it.
        model: what the engine calls the model; the client may have used another name.
    """
    asks_usage = ask.stream and not ask.wants_usage
    if ask.model == model and not asks_usage:
        return body
    if ask.model == model and not ask.names_options:
        return body[: body.rindex(b"}")] + _USAGE_ASKED
    fields = {**_whole_decoder.decode(body), "model": msgspec.Raw(msgspec.json.encode(model))}
    if asks_usage:
        options = _options_decoder.decode(fields.get("stream_options", b"null")) or {}
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
    return msgspec.json.encode(fields)


def error_body(refusal: Refusal) -> bytes:
    return msgspec.json.encode(_error(refusal))


def error_event(refusal: Refusal) -> bytes:
    """The last event of a stream that broke: OpenAI's clients raise on it."""
    return b"data: " + msgspec.json.encode(_error(refusal)) + b"\n\n"


def _error(refusal: Refusal) -> dict[str, Any]:
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    if refusal.status == 401:
        kind = "authentication_error"
    return {
        "error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code},
    }


def models_body(models: Sequence[LiveModel]) -> bytes:
    return msgspec.json.encode({"object": "list", "data": [_model(model) for model in models]})


def model_body(model: LiveModel) -> bytes:
    return msgspec.json.encode(_model(model))


def _model(model: LiveModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": int(model.since.timestamp()), "owned_by": model.owned_by}


def model_not_found(code: str) -> Refusal:
    message = f"The model '{code[:MAX_ECHO_CHARS]}' does not exist or is not deployed in your organisation."
    return Refusal(404, "model_not_found", message, param="model")
