"""What one request is booked with: a draft while it runs, the final record when it is over.

    facts of the request + worker ──opening──> journal of running requests      (a draft of it, if this process dies)
                         + counts ──final────> spool ──> USAGE

Both have the same request id, so that whichever is published first is the one that counts.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from domain.ids import InstanceId, OrganizationId
from domain.usage import SCHEMA, Outcome, UsageRecord
from gateway.counts import Counts
from gateway.limits import Grant
from gateway.resolution import Target
from gateway.trace import Trace
from gateway.wire import Ask, Route
from projections.routing_table import KnownKey
from projections.routing_workers import Worker


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """One admitted request's facts, which stay as they were when it came.

    Attributes:
        at: UTC. started_s: monotonic.
        given: the client's headers, the last of each name.
        place: whose workers, of which model: what a queue is for.
        max_tokens: the most that policy allows one answer; None: as many as the client wants.
        grant: what its limits reserved for it.
        openings: what the accounts of such requests begin with; shared by all with the same key and target.
    """

    request_id: str
    key: KnownKey
    target: Target
    route: Route
    ask: Ask
    given: Mapping[bytes, bytes]
    at: datetime
    started_s: float
    max_tokens: int | None
    grant: Grant
    trace: Trace
    place: tuple[OrganizationId, str]
    openings: "Openings"


Openings = dict[tuple[InstanceId, str, bool], tuple[bytes, bytes, bytes]]
"""(worker, endpoint, streamed) -> the JSON around a request's id and its time."""


class Progress(msgspec.Struct, kw_only=True):
    """What became of a request so far; times on the gateway's monotonic clock.

    Attributes:
        status: of the answer that the client has got, or is about to get.
        attempts: workers asked.
        queue_s: waited for a free one.
    """

    status: int
    attempts: int = 0
    queue_s: float = 0.0
    first_content_s: float | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a request ended; fields as in domain.usage.UsageRecord."""

    outcome: Outcome
    status_code: int
    ttft_ms: float | None
    duration_ms: float
    queue_ms: float
    inter_token_ms: float | None
    attempts: int


class Account(msgspec.Struct, frozen=True):
    """A finished request: how its record begins (see `opening_of`), and how it ended."""

    asked: Inference
    model_code: str
    opening: bytes
    counts: Counts
    ending: Ending

    def line(self) -> bytes:
        """Its UsageRecord as JSON."""
        return b"%b,%b,%b" % (self.opening, _encode(self.counts)[1:-1], _encode(self.ending)[1:])

    def tail_of(self, line: bytes) -> bytes:
        """What it says beyond its opening, without the last brace."""
        return line[len(self.opening) + 1 : -1]

    def record(self) -> UsageRecord:
        return _decode(self.line())


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UsageRecord).decode
_DIED = b",%b,%b" % (
    _encode(Counts())[1:-1],
    _encode(Ending("gateway_died", 499, None, 0.0, 0.0, None, 1))[1:],
)
_ID, _AT = "the-request-id", "the-time"


def opening_of(asked: Inference, worker: Worker) -> bytes:
    """A record's JSON as far as it is known when the request is sent; its closing brace is missing."""
    kind = worker.instance_id, asked.route.path, asked.ask.stream
    parts = asked.openings.get(kind)
    if parts is None:
        parts = asked.openings[kind] = _parts(asked, worker)
    return b"%b%b%b%b%b" % (parts[0], asked.request_id.encode(), parts[1], _encode(asked.at), parts[2])


def draft_of(opening: bytes) -> bytes:
    """The record of a request of which nothing more will be known, since its process died; made by who finds that."""
    return opening + _DIED


def _parts(asked: Inference, worker: Worker) -> tuple[bytes, bytes, bytes]:
    target = asked.target
    facts = {
        "schema": SCHEMA,
        "request_id": _ID,
        "at": _AT,
        "organization_id": asked.key.row.organization_id,
        "api_key_id": asked.key.row.id,
        "deployment_id": worker.deployment_id,
        "instance_id": "" if worker.foreign else worker.instance_id,
        "model_code": worker.model_code,
        "endpoint": asked.route.path,
        "streamed": asked.ask.stream,
        "provider_organization_id": target.provider,
        "offering_id": target.offering_id,
        "share_id": target.share_id,
        "input_eur_micros_per_million": target.price.input_eur_micros_per_million,
        "output_eur_micros_per_million": target.price.output_eur_micros_per_million,
    }
    before, _, rest = _encode(facts)[:-1].partition(_ID.encode())
    between, _, after = rest.partition(_encode(_AT))
    return before, between, after


def ending_of(asked: Inference, counts: Counts, progress: Progress, *, outcome: Outcome, now_s: float) -> Ending:
    """At this moment."""
    first_s, started_s = progress.first_content_s, asked.started_s
    return Ending(
        outcome,
        progress.status,
        None if first_s is None else round(1000 * (first_s - started_s), 3),
        round(1000 * (now_s - started_s), 3),
        round(1000 * progress.queue_s, 3),
        _inter_token_ms(first_s, counts, now_s) if asked.ask.stream else None,
        progress.attempts,
    )


def _inter_token_ms(first_content_s: float | None, counts: Counts, now_s: float) -> float | None:
    """Mean over the tokens after the first; the end of the answer stands for its last token."""
    if first_content_s is None or counts.completion_tokens < 2:
        return None
    return round(1000 * (now_s - first_content_s) / (counts.completion_tokens - 1), 3)
