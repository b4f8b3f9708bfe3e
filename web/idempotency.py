"""`Idempotency-Key` on every POST: one key, one effect, one reply, however often it is sent.

    key unknown ──> seed stored ──> endpoint runs, drawing ids from the seed ──> reply kept ──> replayed from then on
        │                                  └── died: after its lease the next attempt runs on from the same seed
        ├── running now ──> 409 idempotency_key_in_flight
        └── used for another request ──> 422 idempotency_key_reused

A layer around the application rather than a rule for each endpoint, so that none can forget it. The surprising rule:
not every reply is kept. What may change without a new decision (403, 429, 5xx) frees the key instead. The worker
endpoints need no keys: both may be repeated as they are.
"""

from hashlib import sha256
from typing import assert_never

import structlog
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.auth import identify, services_of
from web.draw import Draw
from web.errors import ApiError, error_reply
from web.services import Claimed, Idempotency, InFlight, KeptReply, KeyReused

MAX_KEY_LENGTH = 255
KEPT_STATUS = frozenset({200, 201, 202, 204, 400, 404, 409, 410, 422})
KEPT_HEADERS = frozenset({"content-type", "event-position", "set-cookie", "location"})
UNTOUCHED_STATUS = frozenset({401, 403, 413, 429})
"""Turned away at the door: nothing was done, so the key is as good as new."""
RETRY_AFTER_S = 1
LOGIN_PATH = "/auth/login"

_log = structlog.get_logger()


def idempotent(app: ASGIApp) -> ASGIApp:
    """Wraps `app`; requests that are no POST, or carry no key, pass through untouched."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        key = _key_of(scope)
        if key is None:
            await app(scope, receive, send)
        elif 0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable():
            await _run_once(app, Request(scope, receive), key, send)
        else:
            message = f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} printable ASCII characters."
            await error_reply(400, "invalid_idempotency_key", message)(scope, receive, send)

    return layer


def _key_of(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    return Headers(scope=scope).get("idempotency-key")


async def _run_once(app: ASGIApp, request: Request, key: str, send: Send) -> None:
    store, body = services_of(request).idempotency, await request.body()
    receive = _replaying(body, request.receive)
    principal, outcome = "", None
    try:
        principal = await _principal(request)
        outcome = await _claim(request, principal, key, body) if principal else None
    except OSError as error:
        _log.warning("idempotency_unavailable", error=str(error))
        await _refuse(request, send, 503, "unavailable", "The store of idempotency keys is away; try again.")
        return
    match outcome:
        case Claimed():
            request.state.draw = Draw(seed=outcome.seed, at=outcome.at, resumed=outcome.resumed)
            await _run(app, request, receive, send, store, principal, key)
        case KeptReply():
            await _send_kept(outcome, send)
        case InFlight():
            message = "The first request with this key is still running; ask again."
            await _refuse(request, send, 409, "idempotency_key_in_flight", message)
        case KeyReused():
            message = "This key was already used for another request; take a new one."
            await _refuse(request, send, 422, "idempotency_key_reused", message)
        case None:
            await app(request.scope, receive, send)
        case _:
            assert_never(outcome)


async def _refuse(request: Request, send: Send, status: int, code: str, message: str) -> None:
    headers = {} if status == 422 else {"retry-after": str(RETRY_AFTER_S)}
    await error_reply(status, code, message, headers)(request.scope, request.receive, send)


async def _principal(request: Request) -> str:
    """Whose key this is: keys of different callers never meet. Empty: the endpoint will turn the caller away."""
    if request.scope["path"] == LOGIN_PATH:
        return "login"
    try:
        return (await identify(request)).actor
    except ApiError:
        return ""


async def _claim(request: Request, principal: str, key: str, body: bytes) -> Claimed | KeptReply | InFlight | KeyReused:
    """Requests are compared by a keyed digest: a body may hold a password that a plain hash would let anyone guess."""
    services = services_of(request)
    query = request.scope["query_string"].decode("latin-1")
    canonical = f"{request.scope['path']}?{query} {sha256(body).hexdigest()}"
    digest = services.vault.digest("request", canonical).encode()
    return await services.idempotency.claim(principal, key, digest, services.clock())


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once more for the endpoint; then what the connection says."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _run(
    app: ASGIApp, request: Request, receive: Receive, send: Send, store: Idempotency, principal: str, key: str
) -> None:
    """Runs the endpoint, and keeps its reply before the client gets it."""
    start: Message = {}
    body = bytearray()

    async def capture(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    status = 500
    try:
        await app(request.scope, receive, capture)
        status = start["status"]
    finally:
        await _settle(store, principal, key, _kept(start, bytes(body)) if status in KEPT_STATUS else None, status)
    await send(start)
    await send({"type": "http.response.body", "body": bytes(body), "more_body": False})


async def _settle(store: Idempotency, principal: str, key: str, reply: KeptReply | None, status: int) -> None:
    """A store that is away now costs nothing but time: the lease runs out, and the seed gives the same reply again."""
    try:
        if reply is not None:
            await store.finish(principal, key, reply)
        else:
            await store.release(principal, key, untouched=status in UNTOUCHED_STATUS)
    except OSError as error:
        _log.warning("idempotency_not_settled", error=str(error))


def _kept(start: Message, body: bytes) -> KeptReply:
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start["headers"]]
    return KeptReply(status=start["status"], headers=tuple((n, v) for n, v in headers if n in KEPT_HEADERS), body=body)


async def _send_kept(reply: KeptReply, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    headers += [(b"idempotent-replayed", b"true"), (b"content-length", str(len(reply.body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
