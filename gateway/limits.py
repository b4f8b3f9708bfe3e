"""Whether a key and its organisation have room for one more request: both limits hold, and each one's own.

    estimate ──admit──> Grant ──(the request runs)──> settle with the real counts
                 └────> 429 with Retry-After and what OpenAI's clients read of x-ratelimit-*

requests and tokens in any minute (tally.py), requests at one moment, money (spend.py); several gateways share each
limit (shared_counts.py). Money is refused with 429 and not 402, since that is what OpenAI says (insufficient_quota) and
what its clients understand; `x-should-retry: false` keeps them from trying again. The surprising rule: a request that
costs nothing passes a spend limit that is used up, for it takes the limit no further.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import structlog

from domain.key_scope import KeyScope
from domain.limits import OrganizationLimits
from domain.offering import Price
from gateway.http import Headers
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook, Spending, month_of
from gateway.tally import NO_LIMIT, REQUESTS, RUNNING, TOKENS, Tally, frees_at
from gateway.wire import Refusal
from projections.routing_table import KnownKey

BYTES_PER_TOKEN = 4
"""Of English text; other languages have more tokens to a byte, and are set right when the request is over."""
MAX_PROMPT_ESTIMATE_TOKENS = 16_384
"""A body beyond 64 kB is mostly an image or a file, whose bytes say nothing about tokens."""
COMPLETION_ESTIMATE_TOKENS = 256
"""Where a client does not say how long an answer may be: the length of most."""
SHARE_RETRY_S = 1
"""There is room, but on other gateways: they give of it within two exchanges, half a second."""

_NO_RETRY = (b"x-should-retry", b"false")

log = structlog.get_logger(__name__)


class Estimate(NamedTuple):
    """What a request is expected to use, before it runs."""

    tokens: int
    spend_eur_micros: int


def estimate(
    body_bytes: int, price: Price, *, generates: bool, max_tokens: int | None, cap: int | None, answers: int = 1
) -> Estimate:
    """What to reserve for a request.

    Args:
        body_bytes: length of the request's body.
        price: of the model for this caller.
        generates: whether there is an answer of tokens at all; an embedding has none.
        max_tokens: of one answer, as the client asked.
        cap: of one answer, as its organisation is allowed.
        answers: side by side.
    """
    prompt = min(body_bytes // BYTES_PER_TOKEN, MAX_PROMPT_ESTIMATE_TOKENS)
    completion = 0
    if generates:
        completion = max_tokens if max_tokens is not None and max_tokens > 0 else COMPLETION_ESTIMATE_TOKENS
        completion = max(1, answers) * (completion if cap is None else min(completion, cap))
    per_million = prompt * price.input_eur_micros_per_million + completion * price.output_eur_micros_per_million
    return Estimate(prompt + completion, -(-per_million // 1_000_000))


class Grant:
    """A request's reservation. `settle` it exactly once, at its end; what is dropped instead is a defect."""

    __slots__ = (
        "_key",
        "_key_bucket",
        "_limits",
        "_open",
        "_organization",
        "_organization_bucket",
        "_request_id",
        "_spending",
        "_tokens",
    )

    def __init__(
        self,
        limits: "Limits",
        key: Tally | None,
        organization: Tally | None,
        second: int,
        tokens: int,
        spending: Spending | None,
        request_id: str,
    ) -> None:
        self._limits = limits
        self._key = key
        self._key_bucket = key.take(second, tokens) if key is not None else None
        self._organization = organization
        self._organization_bucket = organization.take(second, tokens) if organization is not None else None
        self._tokens = tokens
        self._spending = spending
        self._request_id = request_id
        self._open = True

    @property
    def headers(self) -> Headers:
        """For the reply: of the tighter limit, since a client that minds it minds both; none where there is none."""
        key, organization = self._key, self._organization
        if key is None or organization is None:
            tally = key or organization
            return (*tally.told_requests, *tally.told_tokens) if tally is not None else ()
        of_requests = organization
        if key.requests_cap - key.requests < organization.requests_cap - organization.requests:
            of_requests = key
        of_tokens = organization
        if key.tokens_cap - key.tokens < organization.tokens_cap - organization.tokens:
            of_tokens = key
        return (*of_requests.told_requests, *of_tokens.told_tokens)

    def settle(self, *, tokens: int, spend_eur_micros: int = 0) -> None:
        """The request is over, and this is what it used; the first call counts."""
        if not self._open:
            return
        self._open = False
        limits, reserved = self._limits, self._tokens
        limits.open -= 1
        second = int(limits.now_s()) if tokens > reserved else 0  # a clock is read where something counts from now on
        if self._key_bucket is not None and self._key is not None:
            self._key.give_back(self._key_bucket, second, reserved - tokens)
        if self._organization_bucket is not None and self._organization is not None:
            self._organization.give_back(self._organization_bucket, second, reserved - tokens)
        if self._spending is not None:
            limits.spend.settle(self._request_id, self._spending, spend_eur_micros)

    def __del__(self) -> None:
        if self._open:  # a defect of the caller; a customer shall not pay for it with its concurrency for ever
            self._limits.dropped += 1
            log.error("grant_dropped", request_id=self._request_id)
            self.settle(tokens=self._tokens, spend_eur_micros=self._spending.eur_micros if self._spending else 0)


class Limits:
    """Mutable, in memory, one event loop.

    Args:
        shared: the counts, ours and the other gateways'.
        spend: what has been spent.
        now_s: monotonic.

    Attributes:
        open: grants that are not settled. dropped: grants that nobody settled; more than 0 is a defect.
    """

    def __init__(self, shared: SharedCounts, spend: SpendBook, *, now_s: Callable[[], float]) -> None:
        self.shared = shared
        self.spend = spend
        self.now_s = now_s
        self.open = 0
        self.dropped = 0
        self._nothing = Grant(self, None, None, 0, 0, None, "")
        self._nothing._open = False  # noqa: SLF001 - the one grant of all that need none is never settled
        self._tallies = shared.tallies

    def admit(
        self,
        key: KnownKey,
        limits: OrganizationLimits,
        *,
        tokens: int,
        now: datetime,
        now_s: float,
        spend_eur_micros: int = 0,
        request_id: str = "",
    ) -> Grant:
        """Reserves what a request is expected to use.

        Args:
            key: the caller's.
            limits: of the key's organisation.
            tokens: that it may need; see `estimate`.
            now: UTC.
            now_s: monotonic.
            spend_eur_micros: that it may cost.
            request_id: by which its record will be recognised.

        Raises:
            Refusal: 429 rate_limit_exceeded, tokens_limit_exceeded, concurrency_limit_exceeded or spend_limit_reached;
                nothing is reserved then.
        """
        row, second = key.row, int(now_s)
        scope = row.state.scope
        own = theirs = None
        if not (scope.requests_per_minute is scope.tokens_per_minute is scope.concurrency is None):
            own = self._tallies.get(row.id)
            if own is None or own.source is not scope:
                own = self._read(row.id, scope)
            if not own.fits(second, tokens):
                raise self._refusal(own, tokens, second, "this API key")
        if not (limits.requests_per_minute is limits.tokens_per_minute is limits.concurrency is None):
            theirs = self._tallies.get(row.organization_id)
            if theirs is None or theirs.source is not limits:
                theirs = self._read(row.organization_id, limits)
            if not theirs.fits(second, tokens):
                raise self._refusal(theirs, tokens, second, "your organisation")
        spending = self._reserved(key, limits, spend_eur_micros, now) if spend_eur_micros else None
        if own is None and theirs is None and spending is None:
            return self._nothing
        self.open += 1
        return Grant(self, own, theirs, second, tokens, spending, request_id)

    def _read(self, subject: str, limits: KeyScope | OrganizationLimits) -> Tally:
        wanted = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
        requests, tokens, running = (NO_LIMIT if limit is None else limit for limit in wanted)
        tally = self.shared.tally(subject, (requests, tokens, running))
        tally.source = limits
        return tally

    def _reserved(self, key: KnownKey, limits: OrganizationLimits, eur_micros: int, now: datetime) -> Spending | None:
        """The money set aside, if anything limits it.

        Raises:
            Refusal: 429 spend_limit_reached.
        """
        of_key, of_organization = key.row.state.scope.spend_limit_eur_micros, limits.spend_limit_eur_micros_per_month
        if of_key is None and of_organization is None:
            return None
        spending = Spending(key.row.id, key.row.organization_id, month_of(now), eur_micros)
        if of_key is not None and self.spend.by_key(spending.key_id) + eur_micros > of_key:
            raise _spent("This API key's spend limit is reached.")
        in_month = self.spend.by_organization(spending.organization_id, spending.month)
        if of_organization is not None and in_month + eur_micros > of_organization:
            raise _spent("Your organisation's spend limit for this month (UTC) is reached.")
        self.spend.reserve(spending)
        return spending

    def _refusal(self, tally: Tally, tokens: int, second: int, whose: str) -> Refusal:
        """Says which limit, and when there is room again."""
        needs = (1, tokens, 1)
        short = [m for m in (RUNNING, REQUESTS, TOKENS) if _lacks(tally, m, needs[m])]
        metric = short[0]
        excess = tally.total[metric] + needs[metric] - tally.limits[metric]
        if excess <= 0:  # the room is elsewhere: ask for it
            lacking = [max(0, _lacks(tally, m, needs[m])) for m in (REQUESTS, TOKENS, RUNNING)]
            tally.refused((lacking[REQUESTS], lacking[TOKENS], lacking[RUNNING]), second)
        headers = (*tally.told_requests, *tally.told_tokens)
        if needs[metric] > tally.limits[metric]:
            message = f"The request may need {tokens} tokens, and {whose} has {tally.limits[TOKENS]} per minute."
            return Refusal(429, "tokens_limit_exceeded", message, headers=(*headers, _NO_RETRY))
        retry_s = SHARE_RETRY_S
        if metric != RUNNING and excess > 0:
            at = frees_at(self.shared.windows(tally), metric, excess)
            retry_s = max(SHARE_RETRY_S, at - second) if at is not None else SHARE_RETRY_S
        code, limit = _WORDS[metric]
        message = f"The limit of {whose} is reached: {tally.limits[metric]} {limit}. Try again in {retry_s} s."
        return Refusal(429, code, message, headers=(*headers, (b"retry-after", b"%d" % retry_s)))


_WORDS = {
    REQUESTS: ("rate_limit_exceeded", "requests per minute"),
    TOKENS: ("tokens_limit_exceeded", "tokens per minute"),
    RUNNING: ("concurrency_limit_exceeded", "requests at a time"),
}


def _lacks(tally: Tally, metric: int, needed: int) -> int:
    """By how much the room here is too small; 0 when it is not."""
    room = (tally.requests_room, tally.tokens_room, tally.running_room)[metric]
    return max(0, tally.used[metric] + needed - room)


def _spent(message: str) -> Refusal:
    return Refusal(429, "spend_limit_reached", message, headers=(_NO_RETRY,))
