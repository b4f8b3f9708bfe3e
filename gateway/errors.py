"""How a refusal reads: in OpenAI's words, or in Anthropic's for its endpoint; as an answer or a stream's last event.

    Refusal ──error_reply──> {"error": {"message", "type", "param", "code"}}
            └─error_event──> the same as an event on which a client's library raises

The surprising rule: an engine's plain "not found" is no answer to the client. It means that the engine has no such
endpoint, which is what the client is told: model_does_not_support.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.wire import MAX_ECHO_CHARS, Refusal, Route

_OPENAI_TYPES: Mapping[int, str] = {401: "authentication_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""https://docs.anthropic.com/en/api/errors; others are invalid_request_error below 500, api_error from there on."""


class _EngineError(msgspec.Struct):
    message: str = ""


class _EngineAnswer(msgspec.Struct):
    error: _EngineError | str | None = None
    detail: Any = None
    message: str = ""


_engine_decoder = msgspec.json.Decoder(_EngineAnswer)


def error_reply(route: Route | None, refusal: Refusal, request_id: str = "") -> bytes:
    """The body of a refusal, in the language of the endpoint; OpenAI's where there is none."""
    return msgspec.json.encode(_error(route, refusal, request_id))


def error_event(route: Route, refusal: Refusal, request_id: str = "") -> bytes:
    """The last event of a stream that broke; the libraries of OpenAI and Anthropic raise on it."""
    error = _error(route, refusal, request_id)
    if route.language == "openai":
        return b"data: " + msgspec.json.encode(error) + b"\n\n"
    if route.language == "responses":
        # The event as documented has the words at its top; the library raises on an `error` object.
        words = {"type": "error", "code": refusal.code, "message": refusal.message, "param": refusal.param}
        error = {**words, "sequence_number": 0, **error}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


def _error(route: Route | None, refusal: Refusal, request_id: str) -> dict[str, Any]:
    if route is not None and route.language == "messages":
        kind = _ANTHROPIC_TYPES.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
        error = {"type": kind, "message": refusal.message}
        return {"type": "error", "error": error, **({"request_id": request_id} if request_id else {})}
    kind = _OPENAI_TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}


def does_not_support(model: str, route: Route) -> Refusal:
    """No worker of the model offers the endpoint, as far as its workers have said."""
    message = f"The model '{model[:MAX_ECHO_CHARS]}' does not support {route.path}."
    return Refusal(400, "model_does_not_support", message, param="model")


def unsupported(route: Route, status: int, body: bytes) -> Refusal | None:
    """An engine's error, when it says that it has no such endpoint; None: it says something else.

    Engines say so by a 404 of their web server (an unknown model is a 404 too, but names it), by 405, and vLLM by 400
    or 501 with "The model does not support ... API".
    """
    if status not in {400, 404, 405, 501}:
        return None
    said = _words(body)
    missing = status == 405 or (status == 404 and _is_unknown_path(said))
    refused = status in {400, 501} and "does not support" in said and said.rstrip(".").endswith("API")
    if not missing and not refused:
        return None
    message = f"This model does not support {route.path}."
    return Refusal(400, "model_does_not_support", message, param="model")


def _words(body: bytes) -> str:
    """An error's sentence; "" for what has no shape that we know, like a web server's page."""
    try:
        said = _engine_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    if isinstance(said.error, _EngineError):
        return said.error.message
    return said.error or said.message or (said.detail if isinstance(said.detail, str) else "")


def _is_unknown_path(said: str) -> bool:
    return said in {"", "Not Found", "404: Not Found", "File Not Found"} or said.startswith("Invalid URL")
