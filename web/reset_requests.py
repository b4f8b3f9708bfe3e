"""Wishes for a password reset link, done after their reply.

    POST .../request ──> queue ──> 200, whatever the address ──> one task: look up, RequestPasswordReset ──> a mail

Nothing is looked up before the reply, so neither its words nor its time tell whether anybody has that address. The
surprising rule: a wish is lost when the process dies or the log is away just then. Its person asks again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

import structlog

from domain.decider import Rejected
from domain.ids import PLATFORM
from domain.message import Context
from domain.user import USER, RequestPasswordReset
from projections.projection import EVERYTHING
from projections.users import NO_DIGEST, find_user_by_digest
from web.services import Services

LINK_LASTS = timedelta(hours=1)
MAX_WAITING = 100
TIMEOUT_S = 10.0
LAST_REQUESTS_S = 2.0
"""For what still waits when the process stops."""
TOKEN_KIND = "password_reset"  # noqa: S105 - the word for what a token is for

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Wish:
    email: str = field(repr=False)
    at: datetime
    correlation: str


class ResetRequests:
    """Of one process. `run` is a task of the application's life."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: asyncio.Queue[_Wish] = asyncio.Queue(MAX_WAITING)

    def add(self, email: str, *, at: datetime, correlation: str) -> None:
        """Puts the wish in line; beyond MAX_WAITING it is dropped."""
        try:
            self._waiting.put_nowait(_Wish(email, at, correlation))
        except asyncio.QueueFull:
            _log.warning("password_reset_dropped", waiting=MAX_WAITING)

    async def run(self) -> None:
        """Does one after the other, for ever."""
        while True:
            wish = await self._waiting.get()
            try:
                await asyncio.wait_for(self._do(wish), TIMEOUT_S)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next person's wish must be done
                _log.warning("password_reset_failed", error=repr(error))
            finally:
                self._waiting.task_done()

    async def settled(self) -> None:
        """Returns when nothing waits any more; LAST_REQUESTS_S at most."""
        try:
            await asyncio.wait_for(self._waiting.join(), LAST_REQUESTS_S)
        except TimeoutError:
            _log.warning("password_resets_left_out", wishes=self._waiting.qsize())

    async def _do(self, wish: _Wish) -> None:
        services = self._services
        digest = services.vault.digest("email", wish.email)
        # nobody is signed in; only the person's own digest finds the row
        async with services.read("users", scope=EVERYTHING) as connection:
            user = await find_user_by_digest(connection, username_digest=NO_DIGEST, email_digest=digest)
        if user is None:
            return
        expires_at = wish.at + LINK_LASTS
        token = services.one_time_tokens.token(TOKEN_KIND, f"{user.id}/{expires_at.isoformat()}")
        command = RequestPasswordReset(token_sha256=sha256(token.encode()).hexdigest(), expires_at=expires_at)
        context = Context(actor=f"user:{user.id}", correlation=wish.correlation)
        try:
            await services.dispatch(USER, PLATFORM, user.id, command, context)
        except Rejected as refusal:  # forgotten meanwhile
            _log.info("password_reset_refused", user=user.id, code=refusal.code)
