"""What every exchange works with; one of it for the life of the process."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.account import Account
from gateway.breaker import Breakers, RetryBudget
from gateway.calls import PLAIN, STREAMED, Calls, Timeouts
from gateway.foreign import FindKey
from gateway.limits import Limits
from gateway.loads import Loads
from gateway.meter import Meter
from gateway.queueing import Queue
from gateway.wire import Refusal
from projections.routing_table import RoutingTable

SETTLE_CHECK_S = 0.01
SETTLE_S = 1.5
"""Longer than an engine may take to stop (COUNT_OUT_S and a sweep)."""


class Watch(Protocol):
    """Who counts and logs what happened; none of it sees content, and none of it may raise."""

    def finished(self, account: Account) -> None: ...

    def refused(
        self, code: str, status: int, *, request_id: str = "", trace_id: str = "", booked: bool = False
    ) -> None:
        """`booked`: a worker was asked before, so the request is told as finished too."""
        ...

    def retried(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """Attributes:
    table: the newest; replaced as a whole when the log was replaced.
    secret_of: credential id -> bearer of a foreign engine; None while it cannot be opened.
    draw: a random number below its argument.
    now_s: monotonic.
    cut_off: set once a stopping gateway itself ends what is left.
    queue_wait_s: for a worker to have room, where the client does not say.
    """

    table: Callable[[], RoutingTable]
    loads: Loads
    breakers: Breakers
    budget: RetryBudget
    calls: Calls
    limits: Limits
    queue: Queue
    meter: Meter
    watch: Watch
    secret_of: FindKey
    draw: Callable[[int], int]
    now_s: Callable[[], float]
    streamed: Timeouts = STREAMED
    plain: Timeouts = PLAIN
    queue_wait_s: float = 30.0
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)

    async def settled(self) -> None:
        """Waits for the engines of clients who have left to stop, so that what they did is booked; bounded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self.loads.open_requests:  # noqa: ASYNC110 - once in a gateway's life
                    await asyncio.sleep(SETTLE_CHECK_S)


def usage_not_kept() -> Refusal:
    """An answer that nobody could account for is not given."""
    message = "The gateway cannot keep usage records at the moment, so it takes no requests."
    return Refusal(503, "usage_not_kept", message, headers=((b"retry-after", b"5"),))
