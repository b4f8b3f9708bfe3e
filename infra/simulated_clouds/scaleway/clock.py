"""The simulated cloud's time: real time at any speed, or a time that only a test moves; and what is due in it.

    at(20.0, boot) ──> a heap of due moments ──settle()──> boot()         settle: before each call, and every 20 ms

The surprising rule: nothing happens by itself. A deed that is due happens at the next settle, in the order of the due
moments and as if at its own moment, so that a virtual day passes in one call.
"""

import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a virtual time begins."""
MAX_DUE = 100_000


class Clock:
    """Seconds since the start, of simulated time.

    Args:
        speed: simulated seconds in a real one; None stands still between two calls of `advance`.
    """

    def __init__(self, speed: float | None = None) -> None:
        self.speed = speed
        self._began = time.monotonic()
        self._epoch = EPOCH if speed is None else datetime.now(UTC)
        self._advanced_s = 0.0
        self._moment: float | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def now(self) -> float:
        """While something due happens: its own moment."""
        return self._moment if self._moment is not None else self._time()

    def date(self, seconds: float) -> datetime:
        return self._epoch + timedelta(seconds=seconds)

    def at(self, moment: float, deed: Callable[[], None]) -> None:
        assert len(self._due) < MAX_DUE, "the simulated cloud has more to do than a whole test makes"  # noqa: S101 - the impossible
        heapq.heappush(self._due, (moment, next(self._order), deed))

    def advance(self, seconds: float) -> None:
        """Adds to the time, whatever its speed, and does what became due."""
        self._advanced_s += seconds
        self.settle()

    def settle(self) -> None:
        while self._due and self._due[0][0] <= self._time():
            moment, _, deed = heapq.heappop(self._due)
            self._moment = moment
            try:
                deed()
            finally:
                self._moment = None

    def _time(self) -> float:
        running = (time.monotonic() - self._began) * self.speed if self.speed is not None else 0.0
        return self._advanced_s + running
