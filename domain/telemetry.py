"""What passes by without being a fact of the trade: heartbeats and samples, kept a day on the stream TELEMETRY."""

from datetime import datetime
from typing import Any

import msgspec

from domain.ids import InstanceId, OrganizationId, WorkerId

TELEMETRY_SUBJECTS = "tel.>"


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's heartbeat as the gateway and the console need it; `samples` holds its GPU and system figures.

    Attributes:
        kv_cache_usage: share (0..1) of the engine's KV cache in use; None when it does not say.
    """

    schema: int = 1
    organization_id: OrganizationId
    instance_id: InstanceId
    worker_id: WorkerId
    at: datetime
    status: str
    queue_depth: int
    gpu_utilization: float | None = None
    samples: dict[str, Any] = {}
    kv_cache_usage: float | None = None


def heartbeat_subject(organization: str, instance: str) -> str:
    return f"tel.{organization}.{instance}.heartbeat"
