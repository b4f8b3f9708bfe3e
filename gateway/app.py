"""The OpenAI-compatible front: which request goes where, and who may make it. No framework stands before a token.

    GET  /v1/models, /v1/models/<code>            ──> from the routing table
    POST a path of wire.ROUTES                    ──> admit, read, resolve, limit, exchange (exchange.py)
    GET  /v1/queue/<ticket>                       ──> where a waiting request stands
    GET  /healthz, /readyz, /metrics              ──> alive; able to answer, and since when; figures

Every reply carries x-request-id; every error has the shape that the endpoint's clients know. Keys are checked before a
body is read, and with a table that is too old nobody passes: it may still hold keys that were revoked. Prompts and
answers are never logged.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import structlog

from domain.key_scope import Endpoint
from domain.network import Network, is_within
from gateway.account import Inference
from gateway.admission import Asked, address_of, admit, require_model
from gateway.errors import error_reply
from gateway.exchange import Exchange
from gateway.http import Attendant, Head, Headers, Reply
from gateway.limits import estimate
from gateway.passes import FRESH_S, Aim, Pass, Passes
from gateway.resolution import find_live, list_live, model_name, resolve
from gateway.services import Services, usage_not_kept
from gateway.trace import trace_of
from gateway.wire import (
    MODELS_PATH,
    ROUTES,
    Refusal,
    Route,
    model_body,
    models_body,
    parse_request,
)
from projections.routing_table import KnownKey

_RETRY_LATER = ((b"retry-after", b"5"),)
_JSON = (b"content-type", b"application/json")
METRICS_PATH = "/metrics"
QUEUE_PATH = "/v1/queue/"
_PAGES = frozenset({"/healthz", "/readyz", METRICS_PATH, MODELS_PATH})
SWEEP_S = 0.1
"""A worker that becomes ready, or well again, is found by who waits within this time."""
MAX_AIMS = 64
"""Models that one admission remembers."""

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
    """Implements client_connection.Application.

    Attributes:
        readiness: for /readyz, and to say why nobody is let in.
        lets_in: whether the table is loaded and young enough; asked on each request, so it must be cheap.
        figures: content type and text of /metrics.
        now: UTC. new_id: UUIDv7. draw_bits: a number of that many random bits.
        trusted_proxies: our own, whose word about a client's address counts.
        figures_for: from where /metrics may be read; it names models of all tenants.
    """

    services: Services
    readiness: Callable[[], Readiness]
    lets_in: Callable[[], bool]
    figures: Callable[[], tuple[str, bytes]]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    draw_bits: Callable[[int], int]
    trusted_proxies: Sequence[Network] = ()
    figures_for: Sequence[Network] = ()
    passes: Passes = field(default_factory=Passes)

    async def keep_swept(self) -> None:
        """Lets those go who have waited too long, tries anew for those who wait, and forgets; until cancelled."""
        while True:
            self.services.queue.sweep()
            self.passes.forget(self.services.now_s())
            await asyncio.sleep(SWEEP_S)

    def admit(self, head: Head) -> Pass | None:
        """Looks at the key of a request for an engine; None for every other request that may be answered.

        Raises:
            Refusal: no such page or method; or as admission.admit.
        """
        route = ROUTES.get(head.path)
        if route is None:
            if not _is_page(head.path) or (head.path == METRICS_PATH and not self._may_see_figures(head)):
                raise Refusal(404, "unknown_url", "There is nothing at this address; the API's paths begin with /v1/.")
            _allow(head.method, "GET")
            return None
        _allow(head.method, "POST")
        return self._pass(head, route, head.started_s)

    def max_body_bytes(self, head: Head) -> int:
        route = ROUTES.get(head.path)
        return route.max_body_bytes if route else 0

    def answer(self, head: Head, admitted: Pass | None, body: bytes, reply: Reply) -> Attendant | None:
        """Answers now, or starts an exchange that will.

        Raises:
            Refusal: as in the README's table; nothing has been sent.
        """
        if admitted is None:
            self._page(head, reply)
            return None
        return self._infer(head, admitted, body, reply)

    def cuts_off(self) -> None:
        self.services.cut_off.set()

    def refusal(self, head: Head | None, refusal: Refusal) -> tuple[int, Headers, bytes]:
        route = ROUTES.get(head.path) if head else None
        request_id = self.new_id()
        self.services.watch.refused(refusal.code, refusal.status, request_id=request_id)
        headers = (_JSON, (b"x-request-id", request_id.encode()), *refusal.headers)
        return refusal.status, headers, error_reply(route, refusal, request_id)

    def _page(self, head: Head, reply: Reply) -> None:
        status, content_type, body = 200, "application/json", b'{"status":"ok"}'
        if head.path == "/readyz":
            status, body = self._readyz()
        elif head.path == METRICS_PATH:
            content_type, body = self.figures()
        elif head.path != "/healthz":
            key, asked = self._admit(head, "models")
            if head.path.startswith(QUEUE_PATH):
                body = self.services.queue.told(key.row.organization_id, head.path.removeprefix(QUEUE_PATH))
            else:
                body = self._models(head.path, key, asked)
        headers = ((b"content-type", content_type.encode()), (b"x-request-id", self.new_id().encode()))
        reply.whole(status, headers, body)

    def _may_see_figures(self, head: Head) -> bool:
        """Whoever asks from near, and not through a proxy: that stands near, too."""
        through_a_proxy = b"x-forwarded-for" in head.given or b"forwarded" in head.given
        return is_within(head.peer, self.figures_for) and not through_a_proxy

    def _readyz(self) -> tuple[int, bytes]:
        readiness = self.readiness()
        accepting = self.services.meter.accepting
        body = {**msgspec.structs.asdict(readiness), "usage_kept": accepting}
        well = readiness.ready and readiness.trusted and accepting
        return 200 if well else 503, msgspec.json.encode(body)

    def _models(self, path: str, key: KnownKey, asked: Asked) -> bytes:
        table, caller = self.services.table(), key.row.organization_id
        name = path.removeprefix(MODELS_PATH).removeprefix("/")
        if name:
            return model_body(find_live(table, caller, key.scope, name, asked.now))
        return models_body(list_live(table, caller, key.scope, asked.now))

    def _admit(self, head: Head, endpoint: Endpoint) -> tuple[KnownKey, Asked]:
        readiness = self.readiness()
        if not readiness.ready:
            raise Refusal(503, "gateway_starting", "The gateway is still loading its table.", headers=_RETRY_LATER)
        if not readiness.trusted:
            message = (
                f"The gateway has not heard for {readiness.age_s:.0f} s which keys still hold, so it lets none in."
            )
            raise Refusal(503, "key_table_too_old", message, headers=_RETRY_LATER)
        address = address_of(head.peer, head.headers, self.trusted_proxies)
        asked = Asked(headers=head.headers, endpoint=endpoint, address=address, now=self.now())
        return admit(asked, self.services.table()), asked

    def _pass(self, head: Head, route: Route, now_s: float) -> Pass:
        table = self.services.table()
        found = self.passes.find(head, table, now_s) if self.lets_in() else None
        if found is None:
            key, asked = self._admit(head, route.endpoint)
            found = Pass(
                route=route,
                key=key,
                asked=asked,
                table=table,
                position=table.position,
                until_s=now_s + FRESH_S,
                aims={},
            )
            self.passes.keep(head, found)
        return found

    def _aim(self, found: Pass, model: str) -> Aim:
        aim = found.aims.get(model)
        if aim is None:
            table, caller, asked = found.table, found.key.row.organization_id, found.asked
            require_model(found.key, asked, model_name(table, caller, model))
            target = resolve(table, caller, model, asked.now)
            place = target.organization_id, target.model_code
            aim = Aim(target=target, place=place, limits=table.limits_of(caller), openings={})
            if len(found.aims) < MAX_AIMS:
                found.aims[model] = aim
        return aim

    def _infer(self, head: Head, admitted: Pass, body: bytes, reply: Reply) -> Attendant:
        services, route, now_s = self.services, admitted.route, self.services.now_s()
        if not admitted.holds(services.table(), now_s):  # the body may have taken a minute
            admitted = self._pass(head, route, now_s)
        if not services.meter.accepting:
            raise usage_not_kept()
        ask = parse_request(route, head.headers, body)
        aim, request_id, now = self._aim(admitted, ask.model), self.new_id(), self.now()
        cap = aim.limits.max_completion_tokens
        needed = estimate(
            len(body),
            aim.target.price,
            generates=bool(route.tokens_field),
            max_tokens=ask.max_tokens,
            cap=cap,
            answers=ask.answers * ask.prompts,
        )
        grant = services.limits.admit(
            admitted.key,
            aim.limits,
            tokens=needed.tokens,
            spend_eur_micros=needed.spend_eur_micros,
            request_id=request_id,
            now=now,
            now_s=now_s,
        )
        inference = Inference(
            request_id=request_id,
            key=admitted.key,
            target=aim.target,
            route=route,
            ask=ask,
            given=head.given,
            at=now,
            started_s=head.started_s,
            max_tokens=cap,
            grant=grant,
            trace=trace_of(head.given, self.draw_bits),
            place=aim.place,
            openings=aim.openings,
        )
        exchange = Exchange(inference, body, services, reply)
        try:
            exchange.start()
        except BaseException:
            grant.settle(tokens=0)
            raise
        return exchange


def _is_page(path: str) -> bool:
    return path in {"/healthz", "/readyz", METRICS_PATH, MODELS_PATH} or path.startswith(
        (f"{MODELS_PATH}/", QUEUE_PATH)
    )


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        message = f"Use {allowed} here."
        raise Refusal(405, "method_not_allowed", message, headers=((b"allow", allowed.encode()),))
