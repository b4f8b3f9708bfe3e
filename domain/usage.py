"""One inference request's account, written once per request id to the stream USAGE by the gateway.

It is a measurement, not a decision, so it has no aggregate and no envelope; what it says never changes afterwards.
"""

from datetime import datetime
from typing import Literal

import msgspec

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OfferingId, OrganizationId, ShareId

USAGE_SUBJECTS = "use.>"
SCHEMA = 3
"""Of the records that are written now; older ones have fewer fields."""

Outcome = Literal["completed", "client_left", "upstream_failed", "refused_by_engine", "gateway_died"]
"""`gateway_died`: the gateway ended before the answer did. It says so itself when it stops and waits no longer; of one
that was killed the next gateway on the same disk says so, from what the dead one had noted down."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and times of one request. It is the caller's; whose workers answered stands beside that.

    Attributes:
        request_id: UUIDv7; the stream's message id and the read model's key, so that a replay counts once.
        organization_id: of the key that called.
        at: UTC, when the gateway had read the request.
        counted_by: "engine" when the engine reported the tokens; "gateway" when it could not any more and the gateway's
            own count of streamed chunks stands as the lower bound.
        ttft_ms: from request to first byte of content; None when none came.
        queue_ms: waited in the gateway for a worker to be free.
        inter_token_ms: mean time between streamed tokens after the first; None when there were fewer than two.
        attempts: workers that were asked, one after the other; the record names the last.
        input_audio_seconds, output_images: what audio and image models are counted by, beside tokens.
        provider_organization_id, offering_id: whose offering was called, and which; "" for an own model by its code.
        share_id: the share that let the caller in; "" when the offering's policy did.
        input_eur_micros_per_million, output_eur_micros_per_million: the offering's price for this caller at the time,
            per million tokens; 0 for what is its own.
    """

    schema: int = SCHEMA
    request_id: str
    organization_id: OrganizationId
    api_key_id: ApiKeyId
    deployment_id: DeploymentId
    instance_id: InstanceId
    model_code: str
    endpoint: str
    at: datetime
    streamed: bool
    outcome: Outcome
    status_code: int
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    counted_by: Literal["engine", "gateway"]
    ttft_ms: float | None
    duration_ms: float
    queue_ms: float = 0.0
    inter_token_ms: float | None = None
    attempts: int = 1
    input_audio_seconds: float = 0.0
    output_images: int = 0
    provider_organization_id: OrganizationId = OrganizationId("")
    offering_id: OfferingId = OfferingId("")
    share_id: ShareId = ShareId("")
    input_eur_micros_per_million: int = 0
    output_eur_micros_per_million: int = 0


def usage_subject(organization: str, deployment: str) -> str:
    return f"use.{organization}.{deployment}"


def cost_eur_micros(record: UsageRecord) -> int:
    """What the request costs its caller, in EUR millionths."""
    return cost_of(
        record.prompt_tokens,
        record.completion_tokens,
        record.input_eur_micros_per_million,
        record.output_eur_micros_per_million,
    )


def cost_of(prompt_tokens: int, completion_tokens: int, input_per_million: int, output_per_million: int) -> int:
    """EUR millionths, from prices in EUR millionths; each request is rounded to the nearest, half up."""
    per_million = prompt_tokens * input_per_million + completion_tokens * output_per_million
    return (per_million + 500_000) // 1_000_000
