"""How a request is prepared to wait, as its client says in three headers. Pure.

    x-inventiv-max-wait: 12.5            seconds; less or more than the gateway's own patience, up to MAX_WAIT_S
    x-inventiv-priority: high|normal|low among the requests of its own organisation
    x-inventiv-ticket: job-42            its own id, to ask GET /v1/queue/job-42, and to come back with

The surprising rule: with no worker ready, nobody waits who did not ask to. A model that is being started takes minutes,
and a client that has not been told would rather have its error at once.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal, cast

import msgspec

from gateway.wire import Refusal

MAX_WAIT_S = 900.0
"""A large model's start takes minutes."""
MAX_TICKET_CHARS = 64
_TICKET = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_TICKET_CHARS}}}")

Priority = Literal["high", "normal", "low"]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """`max_wait_s`: None when the client does not say."""

    priority: Priority = "normal"
    max_wait_s: float | None = None
    ticket: str = ""

    def wait_s(self, *, has_ready_worker: bool, default_s: float) -> float:
        """How long the request waits; 0: not at all."""
        if self.max_wait_s is not None:
            return self.max_wait_s
        return default_s if has_ready_worker else 0.0


def patience_of(given: Mapping[bytes, bytes]) -> Patience:
    """From the client's headers.

    Raises:
        Refusal: 400 invalid_max_wait, invalid_priority or invalid_ticket.
    """
    priority = given.get(b"x-inventiv-priority", b"normal").decode("latin-1").strip().lower()
    if priority not in {"high", "normal", "low"}:
        raise Refusal(400, "invalid_priority", "x-inventiv-priority is high, normal or low.")
    ticket = given.get(b"x-inventiv-ticket", b"").decode("latin-1").strip()
    if ticket and not _TICKET.fullmatch(ticket):
        message = f"x-inventiv-ticket is 1 to {MAX_TICKET_CHARS} letters, digits, dots, dashes and underscores."
        raise Refusal(400, "invalid_ticket", message)
    asked = given.get(b"x-inventiv-max-wait")
    wait_s = None if asked is None else _seconds(asked)
    return Patience(priority=cast(Priority, priority), max_wait_s=wait_s, ticket=ticket)


def _seconds(asked: bytes) -> float:
    try:
        wait_s = float(asked)
    except ValueError:
        wait_s = math.nan
    if not wait_s >= 0:
        raise Refusal(400, "invalid_max_wait", "x-inventiv-max-wait is a number of seconds, 0 for not at all.")
    return min(wait_s, MAX_WAIT_S)
