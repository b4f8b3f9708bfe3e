"""What surrounds every endpoint: a limit to bodies, headers that make browsers careful, and `Event-Position`.

Plain ASGI functions, outermost first: hardened (limit, headers) > idempotent (idempotency.py) > positioned > routes.
"""

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.errors import error_reply

MAX_BODY_BYTES = 1_048_576
"""No request of this API needs more; a worker's heartbeat with 64 GPUs is about 20 kB."""
MAX_HEADER_BYTES = 16_384
"""Names and values of all headers together; the cookie is below 2 kB."""

HSTS = f"max-age={365 * 24 * 3600}; includeSubDomains"
SAFE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; object-src 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class _BodyTooLargeError(HTTPException):
    """An HTTPException, because FastAPI makes a 400 of anything else that reading a body raises."""

    def __init__(self) -> None:
        super().__init__(413, f"A body has at most {MAX_BODY_BYTES} bytes.")


def hardened(app: ASGIApp) -> ASGIApp:
    """Adds SAFE_HEADERS to every reply, and answers 413 to a body over MAX_BODY_BYTES, declared or not."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        send = _with_headers(send, secure=scope["app"].state.services.settings.cookie_secure)
        scope.setdefault("state", {})
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            message = f"The headers have at most {MAX_HEADER_BYTES} bytes together."
            return await error_reply(431, "headers_too_large", message)(scope, receive, send)
        too_large = error_reply(413, "body_too_large", _BodyTooLargeError().detail)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            return await too_large(scope, receive, send)
        try:
            await app(scope, _counting(receive), send)
        except _BodyTooLargeError:
            await too_large(scope, receive, send)

    return layer


def _with_headers(send: Send, *, secure: bool) -> Send:
    """`secure`: browsers reach us by https, and shall never come by http again."""
    added = {**SAFE_HEADERS, "strict-transport-security": HSTS} if secure else SAFE_HEADERS

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in added.items():
                headers.setdefault(name, value)
        await send(message)

    return send_safely


def _counting(receive: Receive) -> Receive:
    seen = 0

    async def count() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise _BodyTooLargeError
        return message

    return count


def positioned(app: ASGIApp) -> ASGIApp:
    """Adds `Event-Position` to the reply of every request that sent a command (intent.py leaves it in the state)."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_position(message: Message) -> None:
            position = scope.get("state", {}).get("position", 0)
            if message["type"] == "http.response.start" and position:
                MutableHeaders(scope=message)["event-position"] = str(position)
            await send(message)

        await app(scope, receive, send_with_position)

    return layer
