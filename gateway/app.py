"""The OpenAI-compatible front, as a bare ASGI application: no framework stands between a token and its reader.

    GET  /v1/models, /v1/models/<code>                                ──> from the routing table
    POST /v1/chat/completions, /v1/completions, /v1/embeddings        ──> admit, read, resolve, relay (exchange.py)
    GET  /healthz, /readyz                                            ──> alive; able to answer, and since when

Every reply carries x-request-id; every error has OpenAI's shape. Keys are checked before a body is read, and with a
table that is too old nobody passes: it may still hold keys that were revoked. Prompts and answers are never logged.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog

from domain.key_scope import Endpoint
from domain.network import Network
from gateway.admission import Asked, address_of, admit, require_model
from gateway.exchange import Exchange, Message, Receive, Send, Services, reply_headers, serve
from gateway.resolution import find_live, list_live, resolve
from gateway.wire import (
    INFERENCE_PATHS,
    MAX_BODY_BYTES,
    MODELS_PATH,
    Headers,
    Refusal,
    error_body,
    model_body,
    models_body,
    parse_request,
)
from projections.routing_table import KnownKey

BODY_TIMEOUT_S = 60.0
"""Longest a client may take to send its body."""
_RETRY_LATER = ((b"retry-after", b"5"),)

log = structlog.get_logger(__name__)


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What /readyz says.

    Attributes:
        ready: the routing table is loaded; without it every key would look unknown.
        trusted: the table is young enough to tell by it who may pass.
        source: where the table started from.
        position: of the last event in it.
        log_connected: new events arrive, as far as is known.
        age_s: seconds since the table was last proven to be current.
    """

    ready: bool
    trusted: bool
    source: str
    position: int
    log_connected: bool
    age_s: float


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The ASGI application.

    Attributes:
        readiness: asked on each request, so it must be cheap.
        now: UTC. new_id: UUIDv7.
        trusted_proxies: our own, whose word about a client's address counts.
    """

    services: Services
    readiness: Callable[[], Readiness]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    trusted_proxies: Sequence[Network] = ()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = self.new_id()
        try:
            await self._answer(scope, receive, send, request_id)
        except Refusal as refusal:
            await _send_reply(send, refusal.status, error_body(refusal), request_id, refusal.headers)
        except _ClientLeftError:
            return

    async def _answer(self, scope: Message, receive: Receive, send: Send, request_id: str) -> None:
        method, path = scope["method"], scope["path"]
        if path in {"/healthz", "/readyz"}:
            status, body = (200, b'{"status":"ok"}') if path == "/healthz" else self._readyz()
            await _send_reply(send, status, body, request_id)
        elif path in INFERENCE_PATHS:
            _allow(method, "POST")
            await self._infer(scope, receive, send, request_id)
        elif path == MODELS_PATH or path.startswith(f"{MODELS_PATH}/"):
            _allow(method, "GET")
            await _send_reply(send, 200, self._models(scope), request_id)
        else:
            raise Refusal(404, "unknown_url", "There is nothing at this address; the API's paths begin with /v1/.")

    def _readyz(self) -> tuple[int, bytes]:
        readiness = self.readiness()
        accepting = self.services.meter.accepting
        body = {**msgspec.structs.asdict(readiness), "usage_kept": accepting}
        well = readiness.ready and readiness.trusted and accepting
        return 200 if well else 503, msgspec.json.encode(body)

    def _models(self, scope: Message) -> bytes:
        key, asked = self._admit(scope, "models")
        table, caller = self.services.table(), key.row.organization_id
        name = scope["path"].removeprefix(MODELS_PATH).removeprefix("/")
        if name:
            return model_body(find_live(table, caller, key.scope, name, asked.now))
        return models_body(list_live(table, caller, key.scope, asked.now))

    def _admit(self, scope: Message, endpoint: Endpoint) -> tuple[KnownKey, Asked]:
        readiness = self.readiness()
        if not readiness.ready:
            raise Refusal(503, "gateway_starting", "The gateway is still loading its table.", headers=_RETRY_LATER)
        if not readiness.trusted:
            message = (
                f"The gateway has not heard for {readiness.age_s:.0f} s which keys still hold, so it lets none in."
            )
            raise Refusal(503, "key_table_too_old", message, headers=_RETRY_LATER)
        headers = scope["headers"]
        address = address_of((scope.get("client") or ("",))[0], headers, self.trusted_proxies)
        asked = Asked(headers=headers, endpoint=endpoint, address=address, now=self.now())
        return admit(asked, self.services.table()), asked

    async def _infer(self, scope: Message, receive: Receive, send: Send, request_id: str) -> None:
        started_s = self.services.now_s()
        endpoint = INFERENCE_PATHS[scope["path"]]
        self._admit(scope, endpoint)
        body = await _read_body(scope["headers"], receive)
        key, asked = self._admit(scope, endpoint)  # once more: the body may have taken a minute
        if not self.services.meter.accepting:
            message = "The gateway cannot keep usage records at the moment, so it takes no requests."
            raise Refusal(503, "usage_not_kept", message, headers=_RETRY_LATER)
        ask = parse_request(scope["path"], body)
        require_model(key, asked, ask.model)
        exchange = Exchange(
            request_id=request_id,
            key=key.row,
            target=resolve(self.services.table(), key.row.organization_id, ask.model, asked.now),
            path=scope["path"],
            ask=ask,
            body=body,
            headers=scope["headers"],
            at=asked.now,
            started_s=started_s,
        )
        try:
            await serve(exchange, self.services, receive, send)
        except Refusal:
            raise
        except Exception as error:
            log.exception("request_failed", request_id=request_id)
            if exchange.head_sent:
                raise
            raise Refusal(
                500, "internal_error", "The gateway failed. Try again, and tell us this request id."
            ) from error


class _ClientLeftError(Exception):
    """The connection closed before the request was whole; nobody is left to answer."""


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413 over MAX_BODY_BYTES, announced or counted; 408 too slow.
    """
    announced = next((value for name, value in headers if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientLeftError
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                if length > MAX_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError as error:
        raise Refusal(408, "request_timeout", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from error


def _too_large() -> Refusal:
    message = f"A request body has at most {MAX_BODY_BYTES // (1024 * 1024)} MiB."
    return Refusal(413, "request_too_large", message)


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        message = f"Use {allowed} here."
        raise Refusal(405, "method_not_allowed", message, headers=((b"allow", allowed.encode()),))


async def _send_reply(send: Send, status: int, body: bytes, request_id: str, headers: Headers = ()) -> None:
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *reply_headers(request_id),
            *headers,
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
