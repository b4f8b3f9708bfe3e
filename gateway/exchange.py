"""One admitted request on its way: a worker is chosen, its answer relayed, its account written, whatever ends it.

    choose ──> call ──> relay ──> client          nothing sent to the client yet: once more, on another worker
      │          └── failed ──┤                   something sent: a stream ends with an error event, the rest is cut
      └─ none free: queue     │
    client gone ──────────────┴──> engine told at once, what it had sent is counted ──> one usage record

Both ends tell it what happens (Attendant, Answering); no task runs for it. The surprising rule: when a stream's client
leaves, the exchange lives on until the engine has stopped, COUNT_OUT_S at most: what was made by then is billed.
"""

from collections.abc import Callable

import structlog

from domain.usage import Outcome, cost_of
from gateway.account import Account, Inference, Progress, ending_of, opening_of
from gateway.affinity import affinity_of
from gateway.calls import origin_of
from gateway.choice import choose, why_none
from gateway.client_answer import ClientAnswer
from gateway.engine_answer import EngineRefusal, failure_refusal
from gateway.engine_request import engine_request
from gateway.errors import does_not_support
from gateway.foreign import key_unavailable
from gateway.http import Call, Headers, Reply, UpstreamFailure
from gateway.patience import patience_of
from gateway.queueing import Waiting
from gateway.relay import Relay
from gateway.services import Services, usage_not_kept
from gateway.wire import Refusal
from projections.routing_workers import Worker

MAX_ATTEMPTS = 3
"""One request reaches for at most so many workers; more would multiply the load of a fleet in trouble."""
CLIENT_GONE = 499
"""The status that a record shows for a client who left before any answer; nginx's word for it."""

log = structlog.get_logger(__name__)


class Exchange:
    """One request. `start` it once; from then on it is driven by what its two ends and the queue tell it."""

    __slots__ = (
        "_affinity",
        "_answer",
        "_asked",
        "_body",
        "_booked",
        "_call",
        "_content_type",
        "_gone",
        "_is_slow",
        "_opening",
        "_progress",
        "_refusing",
        "_relay",
        "_send_on",
        "_services",
        "_slot",
        "_tried",
        "_waiting",
        "_worker",
    )

    def __init__(self, asked: Inference, body: bytes, services: Services, reply: Reply) -> None:
        self._asked = asked
        self._body = body  # as the client sent it, until nothing can be tried elsewhere any more
        self._services = services
        self._answer = ClientAnswer(asked, reply)
        session = asked.given.get(b"x-inventiv-session", b"")
        self._affinity = affinity_of(session, body, asked.key.row.organization_id)
        self._progress = Progress(status=CLIENT_GONE)
        self._relay: Relay  # both of the newest attempt
        self._worker: Worker
        self._call: Call | None = None
        self._tried: tuple[str, ...] = ()
        self._waiting: Waiting | None = None
        self._send_on: Callable[[bytes], None] | None = None  # once a stream's content is on its way
        self._slot = -1
        self._opening = b""
        self._content_type = b""
        self._refusing: EngineRefusal | None = None
        self._gone: Outcome | None = None  # why nobody waits for the answer any more
        self._booked = self._is_slow = False

    # ---- the way to a worker

    def start(self) -> None:
        """Finds a worker, or a place in the queue.

        Raises:
            Refusal: neither; nothing has been sent, and nothing is booked.
        """
        queue, asked = self._services.queue, self._asked
        self._services.budget.earned()
        if not queue.has_waiting(asked.place) and self._ask_a_worker():
            return
        patience = patience_of(asked.given)
        wait_s = patience.wait_s(has_ready_worker=self._is_ready(), default_s=self._services.queue_wait_s)
        if wait_s <= 0:
            raise self._none_ready()
        self._waiting = Waiting(
            place=asked.place,
            tenant=asked.key.row.organization_id,
            priority=patience.priority,
            deadline_s=self._services.now_s() + wait_s,
            wake=self._woken,
            refuse=self._refuse_waiting,
            ticket=patience.ticket,
            size_bytes=len(self._body),
        )
        queue.enter(self._waiting)

    def _none_ready(self) -> Refusal:
        asked, workers = self._asked, self._services.table().ready(*self._asked.place)
        if any(self._secret_of(worker) is None for worker in workers):
            return key_unavailable()
        is_own = asked.target.organization_id == asked.key.row.organization_id
        missing = self._services.table().missing_flags(*asked.place) if is_own else ()
        return why_none(asked.ask.model, missing)

    def _is_ready(self) -> bool:
        """Whether workers are ready, and only have no room; False: there are none, but some may come.

        Raises:
            Refusal: 400 model_does_not_support: to wait would not help.
        """
        services, asked = self._services, self._asked
        workers = services.table().ready(*asked.place)
        if workers and not any(self._speaks(worker) for worker in workers):
            raise does_not_support(asked.ask.model, asked.route)
        return any(self._is_fit(worker) for worker in workers)

    def _woken(self) -> bool:
        """It is this one's turn; True when a worker was found."""
        self._progress.queue_s = self._services.now_s() - self._asked.started_s
        try:
            if not self._ask_a_worker():
                return False
        except Refusal as refusal:
            self._refuse_waiting(refusal)
        self._waiting = None
        return True

    def _refuse_waiting(self, refusal: Refusal) -> None:
        """It has waited too long, or was pushed out, or cannot be sent."""
        self._waiting = None
        self._asked.grant.settle(tokens=0)
        self._refuse(refusal)

    def _ask_a_worker(self) -> bool:
        """Calls the best worker that is free; False when none is.

        Raises:
            Refusal: 503 usage_not_kept.
        """
        services = self._services
        worker = choose(
            services.table().ready(*self._asked.place),
            load_of=services.loads.of,
            may_take=self._may_take,
            draw=services.draw,
            affinity=self._affinity,
            excluded=self._tried,
        )
        if worker is None:
            return False
        self._ask(worker)
        return True

    def _may_take(self, worker: Worker) -> bool:
        return self._services.loads.has_room(worker) and self._is_fit(worker)

    def _is_fit(self, worker: Worker) -> bool:
        """Whether it would answer this request, once it has room."""
        services, name = self._services, worker.instance_id
        return (
            self._speaks(worker)
            and services.breakers.may_call(name)
            and (worker.foreign or not services.loads.is_stale(name))
            and self._secret_of(worker) is not None
        )

    def _speaks(self, worker: Worker) -> bool:
        return worker.endpoints is None or self._asked.route.endpoint in worker.endpoints

    def _secret_of(self, worker: Worker) -> str | None:
        """None while it cannot be read; "" for an engine that wants none."""
        return self._services.secret_of(worker.credential_id) if worker.credential_id else ""

    def _ask(self, worker: Worker) -> None:
        """Sends the request, after it was noted down."""
        services, asked, name = self._services, self._asked, worker.instance_id
        self._worker, self._relay, self._refusing = worker, Relay(asked.route, asked.ask), None
        self._tried = (*self._tried, name)
        self._progress.attempts += 1
        self._progress.first_content_s = None
        opening = opening_of(asked, worker)
        slot = services.meter.open(opening, self._slot)
        if slot < 0:
            raise usage_not_kept()
        self._slot, self._opening = slot, opening
        services.loads.began(name)
        services.breakers.began(name)
        services.queue.began(asked.place, asked.key.row.organization_id)
        origin = origin_of(worker.engine_url, foreign=worker.foreign)
        call = services.calls.begin(
            origin,
            engine_request(origin, worker, asked, self._body, secret=self._secret_of(worker) or ""),
            self,
            timeouts=services.streamed if asked.ask.stream else services.plain,
        )
        self._call = call
        if self._is_slow:
            call.pause()

    # ---- what the engine says

    def answer_begun(self, status: int, headers: Headers) -> None:
        self._content_type = b"application/json"
        for name, value in headers:
            if name == b"content-type":
                self._content_type = value
        if status < 500:  # a refusal is a sign of life
            self._services.breakers.succeeded(self._worker.instance_id)
        if status >= 300:
            self._refusing = EngineRefusal(self._asked.route, self._worker, status, headers)
        else:
            self._progress.status = status
            self._relay.start(self._content_type)

    def answer_data(self, data: bytes, *, ended: bool) -> None:
        if self._refusing is not None:
            self._refusing.add(data)
            if self._refusing.is_long and not ended and self._call is not None:
                self._call.leave()
                ended = True
            if ended:
                self._engine_refused(self._refusing)
            return
        relay = self._relay
        out = relay.receive(data, ended=ended)
        if self._send_on is not None and not ended and not relay.finished:  # most chunks of most streams
            if relay.progress:
                self._services.meter.progress(self._slot, relay.progress)
            if out and not self._gone:
                self._send_on(out)
            return
        if relay.has_content and self._progress.first_content_s is None:
            self._progress.first_content_s = self._services.now_s()
        if relay.finished:
            self._book(self._gone or ("upstream_failed" if relay.failed else "completed"))
        elif relay.progress:
            self._services.meter.progress(self._slot, relay.progress)
        if ended:
            self._end(out)
            self._let_go()
        elif out and not self._gone:
            self._send(out)

    def answer_failed(self, failure: UpstreamFailure) -> None:
        self._let_go(failed=self._gone is None)
        if self._gone:
            self._book(self._gone)
            return
        log.warning(
            "upstream_failed",
            request_id=self._asked.request_id,
            instance_id=self._worker.instance_id,
            kind=failure.kind,
            reason=str(failure),
        )
        if self._relay.finished:
            self._end(b"")
        elif self._answer.begun:
            self._break_off(failure_refusal(failure, begun=True))
        elif failure.kind == "silent" or not self._ask_another():
            self._give_up(failure_refusal(failure, begun=False))

    def _engine_refused(self, refusing: EngineRefusal) -> None:
        """The whole of an engine's error is there: tried elsewhere, translated, or passed on as it is."""
        self._let_go(failed=refusing.is_temporary)
        if self._gone:
            self._book(self._gone)
        elif not (refusing.is_temporary and self._ask_another()):
            self._pass_on(refusing)

    def _pass_on(self, refusing: EngineRefusal) -> None:
        outcome: Outcome = "upstream_failed" if refusing.status >= 500 else "refused_by_engine"
        refusal = refusing.translated()
        if refusal is not None:
            self._give_up(refusal, outcome)
            return
        self._progress.status = refusing.status
        self._book(outcome)
        self._answer.whole(refusing.status, self._content_type, refusing.body, refusing.kept_headers)

    def _ask_another(self) -> bool:
        """Once more elsewhere, as long as nothing was sent, attempts are left and the fleet's budget allows it."""
        if self._answer.begun or self._progress.attempts >= MAX_ATTEMPTS or not self._services.budget.spend():
            return False
        try:
            asked = self._ask_a_worker()
        except Refusal:
            return False
        if asked:
            self._services.watch.retried()
        return asked

    # ---- what the client does

    def client_left(self) -> None:
        gone: Outcome = "gateway_died" if self._services.cut_off.is_set() else "client_left"
        self._gone = gone
        if self._waiting is not None:
            self._services.queue.leave(self._waiting)
            self._waiting = None
            self._asked.grant.settle(tokens=0)
        elif self._call is not None and self._asked.ask.stream:
            self._call.resume()
            self._call.count_out()
        elif self._call is not None:
            # Of an answer in one piece nothing can be counted before it is there.
            self._call.leave()
            self._let_go()
            self._book(gone)

    def client_slow(self) -> None:
        self._is_slow = True
        if self._call is not None:
            self._call.pause()

    def client_ready(self) -> None:
        self._is_slow = False
        if self._call is not None:
            self._call.resume()

    # ---- what the client gets

    def _send(self, data: bytes) -> None:
        if self._body:
            self._body = b""  # a thousand streams may have had a hundred megabytes of prompts
        relay = self._relay
        self._answer.send(self._progress.status, self._content_type, data, is_stream=relay.is_stream)
        if relay.is_stream and relay.has_content:
            self._send_on = self._answer.send_on

    def _end(self, data: bytes) -> None:
        self._answer.end(self._progress.status, self._content_type, data, is_stream=self._relay.is_stream)

    def _break_off(self, refusal: Refusal) -> None:
        self._book("upstream_failed")
        self._answer.break_off(refusal, self._relay.break_off())

    def _give_up(self, refusal: Refusal, outcome: Outcome = "upstream_failed") -> None:
        """Before the first byte: a proper answer."""
        self._progress.status = refusal.status
        self._book(outcome)
        self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        asked = self._asked
        self._services.watch.refused(
            refusal.code,
            refusal.status,
            request_id=asked.request_id,
            trace_id=asked.trace.trace_id,
            booked=self._booked,
        )
        self._answer.refuse(refusal)

    # ---- accounts

    def _let_go(self, *, failed: bool = False) -> None:
        """The worker has one request less; somebody who waits may have its place."""
        worker, services = self._worker, self._services
        self._call = None
        if failed:
            services.breakers.failed(worker.instance_id)
        elif self._gone:
            services.breakers.left(worker.instance_id)
        services.loads.ended(worker.instance_id)
        services.queue.ended(self._asked.place, self._asked.key.row.organization_id)

    def _book(self, outcome: Outcome) -> None:
        """Writes the request's account; the first call counts."""
        if self._booked or not self._progress.attempts:
            return
        self._booked = True
        services, asked, counts = self._services, self._asked, self._relay.counts
        ending = ending_of(asked, counts, self._progress, outcome=outcome, now_s=services.now_s())
        account = Account(asked, self._worker.model_code, self._opening, counts, ending)
        line = account.line()
        services.meter.record(line, self._slot, tail=account.tail_of(line))
        prompt, completion, price = counts.prompt_tokens, counts.completion_tokens, asked.target.price
        spent = cost_of(prompt, completion, price.input_eur_micros_per_million, price.output_eur_micros_per_million)
        asked.grant.settle(tokens=prompt + completion, spend_eur_micros=spent)
        services.watch.finished(account)
