"""Refused attempts of known principals, on their way into the audit log.

    401, 403 ──> layer ──┐
    failed sign-in ──────┴──> record_denial ──budget──> queue ──> one task ──> RecordDenied on access/<principal>

The surprising rule: an attempt whose principal nobody knows (no valid credential) never enters the audit log, for then
anyone could write into it; it is one line of the structured log and a counter in /metrics. A request never waits for a
record, and no stream of refusals can flood the log: what is too much is counted, and the next record tells the count.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.access import ACCESS, MAX_RECORDED_PER_MINUTE, WINDOW, RecordDenied, access_id_of
from domain.ids import PLATFORM
from domain.message import Context
from web.draw import Draw
from web.services import Services

MAX_PROCESS_RECORDS_PER_MINUTE = 100
"""Of all principals together: 144,000 events a day at the very worst, about 100 MB."""
MAX_LOGGED_PER_MINUTE = 60
"""Lines about strangers."""
MAX_PRINCIPALS = 10_000
"""Remembered with what they were refused; who comes back after so many others begins anew."""
MAX_WAITING = 200
RECORD_TIMEOUT_S = 10.0
LAST_RECORDS_S = 2.0
"""For what still waits when the process stops."""
SEED_BYTES = 32
_WITNESSED = frozenset({401, 403})

_log = structlog.get_logger()


@dataclass(frozen=True)
class Principal:
    """Whose credential it was, as far as it is known for certain.

    Attributes:
        id: of the user or key.
        actor: as in envelopes.
        organization: where the attempt was made; the platform outside of any.
        origin: see domain.message.Envelope.
    """

    id: str
    actor: str
    organization: str = PLATFORM
    origin: str = ""


class Counts(msgspec.Struct):
    """Since the process began. `left_out`: too many, or the log did not answer; `strangers`: nobody known."""

    recorded: int = 0
    left_out: int = 0
    strangers: int = 0


@dataclass(frozen=True)
class _Attempt:
    principal: Principal
    command: RecordDenied
    at: datetime


@dataclass
class _Minute:
    began_at: datetime
    count: int = 0


class Budget:
    """How many attempts of each principal, and of all together, may still be recorded in this minute."""

    def __init__(self, most: int, *, each: int = MAX_RECORDED_PER_MINUTE, window: timedelta = WINDOW) -> None:
        self._most = most
        self._each = each
        self._window = window
        self._all: _Minute | None = None
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()
        self._left_out: dict[str, int] = {}

    def admit(self, principal: str, at: datetime) -> int | None:
        """How many of this principal's attempts were left out since its last record; None: leave this one out too."""
        self._all = self._now(self._all, at)
        own = self._now(self._minutes.pop(principal, None), at)
        self._minutes[principal] = own
        while len(self._minutes) > MAX_PRINCIPALS:
            forgotten, _ = self._minutes.popitem(last=False)
            self._left_out.pop(forgotten, None)
        if own.count >= self._each or self._all.count >= self._most:
            self.left_out(principal, 1)
            return None
        own.count += 1
        self._all.count += 1
        return self._left_out.pop(principal, 0)

    def left_out(self, principal: str, attempts: int) -> None:
        """To be told with the principal's next record."""
        if principal in self._minutes:
            self._left_out[principal] = self._left_out.get(principal, 0) + attempts

    def _now(self, minute: _Minute | None, at: datetime) -> _Minute:
        return minute if minute is not None and at - minute.began_at < self._window else _Minute(at)


class Denials:
    """Of one process. `run` is a task of the application's life."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._budget = Budget(MAX_PROCESS_RECORDS_PER_MINUTE)
        self._strangers = Budget(MAX_LOGGED_PER_MINUTE, each=MAX_LOGGED_PER_MINUTE)
        self._waiting: asyncio.Queue[_Attempt] = asyncio.Queue(MAX_WAITING)
        self.counts = Counts()

    def add(self, principal: Principal, *, action: str, target: str, code: str) -> None:
        """Puts the attempt in line; microseconds, whatever the state of the log."""
        at = self._services.clock()
        unrecorded = self._budget.admit(_key(principal), at)
        if unrecorded is None:
            self.counts.left_out += 1
            return
        command = RecordDenied(action=action, target=target, code=code, unrecorded=unrecorded)
        attempt = _Attempt(principal, command, at)
        try:
            self._waiting.put_nowait(attempt)
        except asyncio.QueueFull:
            self._leave_out(attempt)

    def add_stranger(self, *, action: str, code: str) -> None:
        """Nobody known: a line of the log while there are few, a count always."""
        self.counts.strangers += 1
        unlogged = self._strangers.admit("", self._services.clock())
        if unlogged is not None:
            _log.info("stranger_denied", action=action, code=code, unlogged=unlogged)

    async def run(self) -> None:
        """Records one attempt after the other, for ever."""
        while True:
            attempt = await self._waiting.get()
            try:
                await self._record(attempt)
            finally:
                self._waiting.task_done()

    async def settled(self) -> None:
        """Returns when nothing waits any more; LAST_RECORDS_S at most."""
        try:
            await asyncio.wait_for(self._waiting.join(), LAST_RECORDS_S)
        except TimeoutError:
            _log.warning("denials_left_out", attempts=self._waiting.qsize())

    async def _record(self, attempt: _Attempt) -> None:
        who = attempt.principal
        correlation = Draw(seed=self._services.chance(SEED_BYTES), at=attempt.at).id("correlation")
        context = Context(actor=who.actor, correlation=correlation, origin=who.origin)
        aggregate_id = access_id_of(who.organization, who.id)
        try:
            dispatching = self._services.dispatch(ACCESS, who.organization, aggregate_id, attempt.command, context)
            receipt = await asyncio.wait_for(dispatching, RECORD_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt must be recorded
            _log.warning("denial_not_recorded", actor=who.actor, code=attempt.command.code, error=repr(error))
            self._leave_out(attempt)
            return
        if receipt.events:
            self.counts.recorded += 1
        else:  # other processes recorded this principal's share of the minute
            self._leave_out(attempt)

    def _leave_out(self, attempt: _Attempt) -> None:
        self.counts.left_out += 1
        self._budget.left_out(_key(attempt.principal), attempt.command.unrecorded + 1)


def _key(principal: Principal) -> str:
    return f"{principal.organization}/{principal.id}"


def note_principal(request: Request, principal: Principal) -> None:
    """Says whose credential the request carries, also when that is about to be refused."""
    request.state.principal = principal


def record_denial(request: Request, principal: Principal, *, action: str, code: str, target: str = "") -> None:
    """For a known account's refusal that no credential of it goes with: a failed sign-in.

    Args:
        request: at most one record comes of it.
        principal: the account that was tried.
        action: "sign_in" or the like.
        code: the refusal's.
        target: an id or a route; never what somebody typed.
    """
    request.state.witnessed = True
    denials: Denials = request.app.state.denials
    denials.add(principal, action=action, target=target, code=code)


def witnessed(app: ASGIApp) -> ASGIApp:
    """Records every 401 and 403 reply, once, when it has been sent."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await app(scope, receive, see)
        if status in _WITNESSED:
            _witness(scope)

    return layer


def _witness(scope: Scope) -> None:
    state: dict[str, Any] = scope.get("state", {})
    if state.get("witnessed"):
        return
    denials: Denials = scope["app"].state.denials
    action, target = _route_of(scope)
    code = state.get("refusal", "refused")
    principal: Principal | None = state.get("principal")
    if principal is None:
        denials.add_stranger(action=action, code=code)
    else:
        denials.add(principal, action=action, target=target, code=code)


def _route_of(scope: Scope) -> tuple[str, str]:
    """("GET /instances/{instance_id}", "/instances/0192..."); of the path's parameters only UUIDs are told.

    Others may be secrets: an invitation's token stands in its path.
    """
    path = str(getattr(scope.get("route"), "path_format", "")) or "(no route)"
    target = path
    for name, value in scope.get("path_params", {}).items():
        target = target.replace(f"{{{name}}}", _if_uuid(str(value)))
    return f"{scope['method']} {path}", target


def _if_uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        return "*"
