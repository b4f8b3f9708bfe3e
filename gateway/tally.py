"""What one key or one organisation has used on this gateway within the last minute, and has running.

    take ──> bucket of this second ──(60 s)──> out of the window          give_back ──> the estimate is set right

A sliding window of one-second buckets. A request counts from its moment on for 60 to 61 seconds: never too short, so no
minute, wherever it begins, holds more than the limit; at most one second (1.7 %) too long. The surprising rule: tokens
that were reserved and not used are taken out of the second in which they were reserved; what was used beyond the
reservation counts from now on.
"""

from collections import deque
from collections.abc import Iterable

from gateway.http import Headers

WINDOW_S = 60
NO_LIMIT = 1 << 62
"""Greater than anything that is counted, and an int64 on the wire."""
REQUESTS, TOKENS, RUNNING = range(3)
Amounts = tuple[int, int, int]
"""Of requests, of tokens, of requests that run."""
ZERO: Amounts = (0, 0, 0)

MAX_TOLD = 1 << 60
"""More than any limit that one can set, and less than NO_LIMIT."""

_RESET_REQUESTS = (b"x-ratelimit-reset-requests", b"1m0s")
_RESET_TOKENS = (b"x-ratelimit-reset-tokens", b"1m0s")
"""The window is as it was when the request at hand has left it."""
_OUT = -1
"""Second of a bucket that has left the window."""
Bucket = list[int]
"""[second, requests, tokens]; a grant holds on to the one that it was counted in."""


class Window:
    """Requests and tokens of the last minute. Seconds are whole, of one monotonic clock."""

    __slots__ = ("buckets", "requests", "tokens")

    def __init__(self) -> None:
        self.buckets: deque[Bucket] = deque()
        self.requests = 0
        self.tokens = 0

    def roll(self, second: int) -> None:
        """Drops what has left the window by now."""
        buckets, oldest = self.buckets, second - WINDOW_S
        while buckets and buckets[0][0] < oldest:
            bucket = buckets.popleft()
            bucket[0] = _OUT
            self.requests -= bucket[1]
            self.tokens -= bucket[2]

    def replace(self, since: int, told: Iterable[tuple[int, int, int]]) -> None:
        """Takes the word of its owner for all that was counted in the second `since` or later."""
        buckets = self.buckets
        while buckets and buckets[-1][0] >= since:
            bucket = buckets.pop()
            self.requests -= bucket[1]
            self.tokens -= bucket[2]
        for second, requests, tokens in told:
            buckets.append([second, requests, tokens])
            self.requests += requests
            self.tokens += tokens


class Tally(Window):
    """One subject's own counts, held against the room that it has here.

    Attributes:
        subject: a key's or an organisation's id.
        limits: of the subject, on all gateways together.
        requests_room, tokens_room, running_room: how much may be in use on this gateway; shared_counts.py says so.
        requests_cap, tokens_cap: how much of them the other gateways have left, as far as is known.
        running: requests admitted and not settled.
        changed_since: the earliest second that changed since others were told; None: nothing did.
        wanted: by how much the greatest request that was refused here was too great, since others were told.
        others: used by the other gateways, as far as is known.
        newest: the last bucket; one that is out of the window is followed by another before it is counted in.
        source: what the limits were read from; another object means that they may have changed.
        used_at: second in which it was last seen in use.

    Args:
        news: where a tally puts itself down when there is something to tell of it.
    """

    __slots__ = (
        "_news",
        "changed_since",
        "limits",
        "newest",
        "others",
        "requests_cap",
        "requests_room",
        "requests_told",
        "running",
        "running_room",
        "source",
        "subject",
        "tokens_cap",
        "tokens_room",
        "tokens_told",
        "used_at",
        "wanted",
    )

    def __init__(self, subject: str, limits: Amounts, news: "list[Tally]", second: int) -> None:
        super().__init__()
        self._news = news
        self.used_at = second
        self.source: object = None
        self.newest: Bucket = [_OUT, 0, 0]
        self.subject = subject
        self.limits = limits
        self.running = 0
        self.set_room(limits, ZERO)
        self.changed_since: int | None = None
        self.wanted: Amounts = ZERO

    @property
    def used(self) -> Amounts:
        return (self.requests, self.tokens, self.running)

    @property
    def total(self) -> Amounts:
        """Used by all gateways together, as far as is known."""
        others = self.others
        return (self.requests + others[0], self.tokens + others[1], self.running + others[2])

    def set_room(self, rights: Amounts, others: Amounts) -> None:
        """What may be used here: our rights, and no more than the others have left of the limits."""
        requests, tokens, running = self.limits
        self.others = others
        self.requests_cap, self.tokens_cap = requests - others[REQUESTS], tokens - others[TOKENS]
        self.requests_room = min(rights[REQUESTS], self.requests_cap)
        self.tokens_room = min(rights[TOKENS], self.tokens_cap)
        self.running_room = min(rights[RUNNING], running - others[RUNNING])
        self.requests_told = (b"x-ratelimit-limit-requests", b"%d" % requests)
        self.tokens_told = (b"x-ratelimit-limit-tokens", b"%d" % tokens)

    @property
    def told_requests(self) -> Headers:
        """What clients are told; nothing where there is no such limit."""
        left = self.requests_cap - self.requests
        if left > MAX_TOLD:
            return ()
        told = (b"x-ratelimit-remaining-requests", b"%d" % (left if left > 0 else 0))  # noqa: FURB136 - a third of max
        return (self.requests_told, told, _RESET_REQUESTS)

    @property
    def told_tokens(self) -> Headers:
        left = self.tokens_cap - self.tokens
        if left > MAX_TOLD:
            return ()
        told = (b"x-ratelimit-remaining-tokens", b"%d" % (left if left > 0 else 0))  # noqa: FURB136 - as above
        return (self.tokens_told, told, _RESET_TOKENS)

    def fits(self, second: int, tokens: int) -> bool:
        """Whether one more request has room here, now."""
        buckets = self.buckets
        if buckets and buckets[0][0] < second - WINDOW_S:
            self.roll(second)
        return (
            self.requests < self.requests_room
            and self.tokens + tokens <= self.tokens_room
            and self.running < self.running_room
        )

    def take(self, second: int, tokens: int) -> Bucket:
        """Counts a request with its estimate; the bucket is asked for again by `give_back`."""
        self.running += 1
        self.requests += 1
        self.tokens += tokens
        if self.changed_since is None:
            self.changed(second)
        bucket = self.newest
        if bucket[0] < second:
            bucket = self._next_bucket(second)
        bucket[1] += 1
        bucket[2] += tokens
        return bucket

    def give_back(self, bucket: Bucket, second: int, unused: int) -> None:
        """The request is over, and so many of its tokens were not used; below 0: more, which count from `second` on."""
        self.running -= 1
        if unused < 0:
            self._count_more(second, -unused)
            return
        changed = self.newest[0]
        if unused and bucket[0] != _OUT:
            bucket[2] -= unused
            self.tokens -= unused
            changed = bucket[0]
        if self.changed_since is None or changed < self.changed_since:
            self.changed(changed)

    def refused(self, lacking: Amounts, second: int) -> None:
        """A request was too great for the room here by so much."""
        self.wanted = (
            max(self.wanted[0], lacking[0]),
            max(self.wanted[1], lacking[1]),
            max(self.wanted[2], lacking[2]),
        )
        self.changed(second)

    def changed(self, second: int) -> None:
        """There is something to tell, of buckets from this second on."""
        if self.changed_since is None:
            self.changed_since = second
            self._news.append(self)
        elif second < self.changed_since:
            self.changed_since = second

    def told(self) -> None:
        """Everything has been told."""
        self.changed_since, self.wanted = None, ZERO

    def _count_more(self, second: int, tokens: int) -> None:
        self.tokens += tokens
        self.changed(second)
        bucket = self.newest
        if bucket[0] < second:
            bucket = self._next_bucket(second)
        bucket[2] += tokens

    def _next_bucket(self, second: int) -> Bucket:
        """What is counted with a clock that was read a moment earlier goes into the newest, not here."""
        self.newest = [second, 0, 0]
        self.buckets.append(self.newest)
        return self.newest


def frees_at(windows: Iterable[Window], metric: int, excess: int) -> int | None:
    """The second from which on `excess` less of requests or tokens is counted; None when it never was so much."""
    buckets = sorted((bucket for window in windows for bucket in window.buckets), key=lambda bucket: bucket[0])
    for bucket in buckets:
        excess -= bucket[1 + metric]
        if excess <= 0:
            return bucket[0] + WINDOW_S + 1
    return None
