"""Fleets for specifications of choice: workers made directly, and loads that are said rather than counted."""

from collections.abc import Callable, Mapping
from typing import Any

from domain.ids import DeploymentId, InstanceId
from gateway.loads import Load
from projections.routing_workers import Worker
from tests.examples import ACME
from tests.gateway.routing import MODEL
from tests.given import NOON


def worker(name: str = "w0", *, weight: int = 1, **changes: Any) -> Worker:
    told: dict[str, Any] = {"status": "ready", "engine_url": "http://127.8.0.1:8000", **changes}
    return Worker(
        instance_id=InstanceId(name),
        deployment_id=DeploymentId("d1"),
        organization_id=ACME,
        model_code=MODEL,
        weight=weight,
        requested_at=NOON,
        **told,
    )


def fleet(count: int, *, weight: int = 1, prefix: str = "w") -> tuple[Worker, ...]:
    return tuple(worker(f"{prefix}{number}", weight=weight) for number in range(count))


def loads_of(outstanding: Mapping[str, int]) -> Callable[[str], Load]:
    return lambda name: Load(outstanding=outstanding.get(name, 0))


def anyone(_: Worker) -> bool:
    return True
