"""Which workers are spared because they have just failed, and how many second attempts a process may make.

                 FAILURES_TO_OPEN in a row                    the pause is over
        closed ────────────────────────────> open ────────────────────────────> half-open: one probe at a time
          ^                                    ^                                     │           │
          └────────────────────────────────────┼──────────────── it succeeded ───────┘           │
                                               └──── it failed: a pause twice as long ───────────┘

A failure is a connection that was refused or died, silence past its bound, or a status of 500 and above. A client's
leaving says nothing about a worker. The surprising rule: failures of requests that were on their way when the breaker
opened change nothing, or one crash under load would count as a hundred, and its pause be the longest at once.
"""

from collections.abc import Callable
from typing import Final

FAILURES_TO_OPEN: Final = 3
"""In a row, of all requests of this process. One may be chance; a worker with 50 requests/s has had three in 60 ms."""
FIRST_PAUSE_S: Final = 1.0
"""About as long as an engine's process needs to come back when its weights are in memory; shorter probes in vain."""
LONGEST_PAUSE_S: Final = 30.0
"""A worker that is well again waits no longer than this for its first request."""
PROBE_S: Final = 15.0
"""A probe that has told nothing for so long counts no more, and the next may go: answers may take minutes."""

RETRY_SHARE: Final = 0.2
"""Of the requests: what a fleet in trouble is asked twice may raise its load by a fifth, never double it."""
RETRIES_PER_S: Final = 3.0
"""A quiet gateway earns nothing, and its few requests deserve a second attempt all the same."""
MOST_RETRIES: Final = 100.0
"""What can be saved up: one worker that dies takes as many waiting requests with it at once."""


class _Trouble:
    """A worker that has failed lately.

    Attributes:
        failures: in a row.
        pause_s: 0 while closed.
        until_s: when the pause is, or was, over.
        probe_until_s: until when a probe is awaited; 0 when none is under way.
    """

    __slots__ = ("failures", "pause_s", "probe_until_s", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.pause_s = self.until_s = self.probe_until_s = 0.0


class Breakers:
    """A breaker for each worker, of this process's own experience. A worker without trouble costs one look-up."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._troubled: dict[str, _Trouble] = {}

    def may_call(self, instance_id: str) -> bool:
        trouble = self._troubled.get(instance_id)
        if trouble is None or trouble.pause_s == 0:
            return True
        return self._now_s() >= max(trouble.until_s, trouble.probe_until_s)

    def began(self, instance_id: str) -> None:
        """A request goes to it; when half-open, this is the probe."""
        trouble = self._troubled.get(instance_id)
        if trouble is not None and trouble.pause_s:
            now_s = self._now_s()
            if now_s >= max(trouble.until_s, trouble.probe_until_s):
                trouble.probe_until_s = now_s + PROBE_S

    def succeeded(self, instance_id: str) -> None:
        """It began to answer, with a status below 500. Say so then, not at the end: a stream may last an hour."""
        self._troubled.pop(instance_id, None)

    def failed(self, instance_id: str) -> None:
        """Refused, died, silent, malformed, or a status of 500 and above; also when it broke off within an answer."""
        trouble = self._troubled.setdefault(instance_id, _Trouble())
        trouble.failures += 1
        if trouble.pause_s == 0:
            if trouble.failures >= FAILURES_TO_OPEN:
                self._open(trouble, FIRST_PAUSE_S)
        elif trouble.probe_until_s:
            self._open(trouble, min(2 * trouble.pause_s, LONGEST_PAUSE_S))

    def left(self, instance_id: str) -> None:
        """A request ended without a word about the worker: its client left. When it was the probe, another may go."""
        trouble = self._troubled.get(instance_id)
        if trouble is not None:
            trouble.probe_until_s = 0.0

    def is_open(self, instance_id: str) -> bool:
        """Failed, and not yet known to be well: open or half-open."""
        trouble = self._troubled.get(instance_id)
        return trouble is not None and trouble.pause_s > 0

    def forget(self, is_known: Callable[[str], bool]) -> None:
        """Drops the workers that exist no more."""
        self._troubled = {name: trouble for name, trouble in self._troubled.items() if is_known(name)}

    def _open(self, trouble: _Trouble, pause_s: float) -> None:
        trouble.pause_s = pause_s
        trouble.until_s = self._now_s() + pause_s
        trouble.probe_until_s = 0.0


class RetryBudget:
    """Second attempts as a bounded share of the requests: a token bucket that requests fill, and a little the time."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._seen_s = now_s()
        self._saved = MOST_RETRIES

    def earned(self) -> None:
        """A request came, first attempt."""
        self._saved = min(MOST_RETRIES, self._saved + RETRY_SHARE)

    def spend(self) -> bool:
        """Whether one may be made now; if so it is counted."""
        now_s = self._now_s()
        self._saved = min(MOST_RETRIES, self._saved + RETRIES_PER_S * (now_s - self._seen_s))
        self._seen_s = now_s
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
