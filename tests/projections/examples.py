"""Examples that only projections need."""

from datetime import datetime
from typing import Any

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OrganizationId
from domain.usage import UsageRecord
from tests.given import NOON


def usage_record(request_id: str = "request-1", *, at: datetime = NOON, **changes: Any) -> UsageRecord:
    """One completed, streamed request of organisation org-1: 10 tokens in, 20 out, 4 of them cached."""
    fields: dict[str, Any] = {
        "organization_id": OrganizationId("org-1"),
        "api_key_id": ApiKeyId("key-1"),
        "deployment_id": DeploymentId("deployment-1"),
        "instance_id": InstanceId("instance-1"),
        "model_code": "mock-echo-model",
        "endpoint": "/v1/chat/completions",
        "streamed": True,
        "outcome": "completed",
        "status_code": 200,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 4,
        "counted_by": "engine",
        "ttft_ms": 20.0,
        "duration_ms": 400.0,
    }
    return UsageRecord(request_id=request_id, at=at, **{**fields, **changes})
