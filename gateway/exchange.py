"""One admitted request on its way: a worker is chosen, its answer relayed, its account written, whatever ends it.

    choose ──> open ──> relay ──> client          nothing sent to the client yet: once more, on another worker
                 └── failed ──┤                   something sent: a stream ends with an error event, the rest is cut
    client gone ──────────────┴──> engine's connection closed at once ──> one usage record

Two tasks run for each request: one pumps bytes, one waits for the client to leave, because an ASGI server drops what is
sent to a client that has gone and tells nobody but `receive`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import structlog

from domain.usage import Outcome, UsageRecord
from gateway.choice import choose, why_none
from gateway.loads import Loads
from gateway.meter import Meter
from gateway.relay import Relay
from gateway.resolution import Target
from gateway.upstream import Answer, Timeouts, UpstreamFailure, open_answer
from gateway.wire import Ask, Headers, Refusal, body_for_engine, error_event
from projections.routing_rows import KeyRow
from projections.routing_table import RoutingTable, Worker

MAX_ATTEMPTS = 2
"""One request reaches for at most two connections; more would multiply the load of a fleet in trouble."""
CLIENT_GONE = 499
"""The status that a record shows for a client who left before any answer; nginx's word for it."""

_FORWARDED = frozenset({b"content-type", b"accept", b"x-inventiv-session"})
"""The client's headers that an engine sees."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every exchange works with; one for the life of the process."""

    table: Callable[[], RoutingTable]
    loads: Loads
    meter: Meter
    session: aiohttp.ClientSession
    now_s: Callable[[], float]
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 - a frozen struct


@dataclass(kw_only=True)
class Exchange:
    """One request's facts, and what became of it; `target` stays as it was when the request came."""

    request_id: str
    key: KeyRow
    target: Target
    path: str
    ask: Ask
    body: bytes
    headers: Headers
    at: datetime
    started_s: float
    worker: Worker | None = None
    relay: Relay | None = None
    status: int = CLIENT_GONE
    head_sent: bool = False
    first_content_s: float | None = None
    broken: bool = False
    recorded: bool = False


async def serve(exchange: Exchange, services: Services, receive: Receive, send: Send) -> None:
    """Answers the client and records the request's usage exactly once, if a worker was chosen.

    Raises:
        Refusal: nobody could answer, and nothing has been sent.
    """
    pump = asyncio.ensure_future(_pump(exchange, services, send))
    gone = asyncio.ensure_future(_client_gone(receive))
    try:
        await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # this gateway stops and waits no longer
        exchange.broken = True
        raise
    finally:
        pump.cancel()
        gone.cancel()
        await asyncio.gather(pump, gone, return_exceptions=True)
        exchange.broken = exchange.broken or not (pump.cancelled() or pump.exception() is None)
        _record(exchange, services)
    if not pump.cancelled():
        pump.result()


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pump(exchange: Exchange, services: Services, send: Send) -> None:
    tried: set[str] = set()
    failure: UpstreamFailure | None = None
    for _ in range(MAX_ATTEMPTS):
        worker = _next_worker(exchange, services, tried, failure)
        if worker is None:
            break
        exchange.worker = worker
        tried.add(worker.instance_id)
        try:
            with services.loads.request_on(worker.instance_id):
                await _relay(exchange, worker, services, send)
        except UpstreamFailure as error:
            failure = error
            log.warning(
                "upstream_failed", request_id=exchange.request_id, instance_id=worker.instance_id, reason=str(error)
            )
            if exchange.head_sent or error.kind == "silent":
                break
        else:
            return
    await _give_up(exchange, services, send, failure)


def _next_worker(
    exchange: Exchange, services: Services, tried: set[str], failure: UpstreamFailure | None
) -> Worker | None:
    """The best worker not tried yet.

    When there is none after a dropped connection: the same again on a fresh one, since the connection may have been a
    reused one that the engine was just closing.
    """
    table, target = services.table(), exchange.target
    workers = table.candidates(target.organization_id, target.model_code)
    worker = choose(workers, load_of=services.loads.of, is_stale=services.loads.is_stale, excluded=tried)
    if worker is None and failure is None:
        is_own = target.organization_id == exchange.key.organization_id
        missing = table.missing_flags(target.organization_id, target.model_code) if is_own else ()
        raise why_none(exchange.ask.model, missing)
    if worker is None and failure is not None and failure.kind == "dropped":
        return exchange.worker
    return worker


async def _relay(exchange: Exchange, worker: Worker, services: Services, send: Send) -> None:
    ask = exchange.ask
    relay = exchange.relay = Relay(hides_usage=not ask.wants_usage)
    exchange.first_content_s = None
    url = worker.engine_url.rstrip("/") + exchange.path
    body = body_for_engine(exchange.body, ask, exchange.target.model_code)
    headers = _engine_headers(exchange)
    async with open_answer(services.session, url, body, headers, stream=ask.stream, limits=services.timeouts) as answer:
        relay.start(answer.content_type)
        while data := await answer.read():
            out = relay.receive(data)
            if relay.has_content and exchange.first_content_s is None and answer.status < 400:
                exchange.first_content_s = services.now_s()
            if relay.finished:
                exchange.status = answer.status
                _record(exchange, services)
            if out:
                await _send_head(exchange, answer, send)
                await send({"type": "http.response.body", "body": out, "more_body": True})
        out = relay.end()
        exchange.status = answer.status
        _record(exchange, services)
        await _send_head(exchange, answer, send, length=None if relay.is_stream else len(out))
        await send({"type": "http.response.body", "body": out, "more_body": False})


def _engine_headers(exchange: Exchange) -> dict[str, str]:
    """Built from scratch: no key, no cookie, no hop-by-hop header of the client's ever reaches an engine."""
    given = {name: value.decode("latin-1") for name, value in exchange.headers if name in _FORWARDED}
    return {
        "content-type": given.get(b"content-type", "application/json"),
        "accept": given.get(b"accept", "*/*"),
        "accept-encoding": "identity",
        "x-request-id": exchange.request_id,
        **({"x-inventiv-session": given[b"x-inventiv-session"]} if b"x-inventiv-session" in given else {}),
    }


async def _send_head(exchange: Exchange, answer: Answer, send: Send, *, length: int | None = None) -> None:
    if exchange.head_sent:
        return
    exchange.head_sent = True
    exchange.status = answer.status
    headers = [(b"content-type", answer.content_type), *reply_headers(exchange.request_id)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    else:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})


def reply_headers(request_id: str) -> Headers:
    """What every reply of the gateway carries."""
    return [(b"x-request-id", request_id.encode())]


async def _give_up(exchange: Exchange, services: Services, send: Send, failure: UpstreamFailure | None) -> None:
    """No engine answered, or one broke off."""
    relay = exchange.relay
    exchange.broken = relay is None or not relay.finished
    refusal = _failure_refusal(exchange, failure)
    if not exchange.head_sent:
        exchange.status = refusal.status
        raise refusal
    _record(exchange, services)
    if relay is not None and relay.is_stream:
        last_words = b"" if relay.finished else relay.break_off() + error_event(refusal)
        await send({"type": "http.response.body", "body": last_words, "more_body": False})
    # An answer in one piece is left incomplete: the server then cuts the connection, and the client sees that.


def _failure_refusal(exchange: Exchange, failure: UpstreamFailure | None) -> Refusal:
    if failure is not None and failure.kind == "unreachable":
        return Refusal(502, "upstream_unreachable", "The model's worker could not be reached. Try again.")
    if failure is not None and failure.kind == "silent":
        return Refusal(504, "upstream_timeout", "The model's worker did not answer in time.")
    began = " after its answer had begun" if exchange.head_sent else ""
    return Refusal(502, "upstream_read_failed", f"The model's worker broke off{began}. Try again.")


def _record(exchange: Exchange, services: Services) -> None:
    """Writes the request's account; the first call counts."""
    worker = exchange.worker
    if exchange.recorded or worker is None:
        return
    exchange.recorded = True
    counts = (exchange.relay or Relay(hides_usage=False)).counts
    services.meter.record(
        UsageRecord(
            request_id=exchange.request_id,
            organization_id=exchange.key.organization_id,
            api_key_id=exchange.key.id,
            deployment_id=worker.deployment_id,
            instance_id=worker.instance_id,
            model_code=worker.model_code,
            endpoint=exchange.path,
            at=exchange.at,
            streamed=exchange.ask.stream,
            outcome=_outcome(exchange),
            status_code=exchange.status,
            finish_reason=counts.finish_reason,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            cached_tokens=counts.cached_tokens,
            counted_by=counts.counted_by,
            ttft_ms=_ms(exchange.first_content_s, exchange.started_s),
            duration_ms=round(1000 * (services.now_s() - exchange.started_s), 3),
            provider_organization_id=exchange.target.provider,
            offering_id=exchange.target.offering_id,
            share_id=exchange.target.share_id,
            input_eur_micros_per_million=exchange.target.price.input_eur_micros_per_million,
            output_eur_micros_per_million=exchange.target.price.output_eur_micros_per_million,
        )
    )


def _outcome(exchange: Exchange) -> Outcome:
    relay = exchange.relay
    if exchange.broken or (relay is not None and relay.failed):
        return "upstream_failed"
    if relay is None or not relay.finished:
        return "client_left"
    if exchange.status >= 500:
        return "upstream_failed"
    return "refused_by_engine" if exchange.status >= 400 else "completed"


def _ms(moment_s: float | None, started_s: float) -> float | None:
    return None if moment_s is None else round(1000 * (moment_s - started_s), 3)
