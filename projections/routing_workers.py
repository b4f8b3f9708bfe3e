"""Who answers for a model, as the gateway's choice needs it; a part of routing_table.py.

    InstanceRow, its engine registered ──> Worker        DeploymentRow with an upstream ──> Worker, foreign

The surprising rule: who takes no requests is a worker too, for a draining one still has answers to finish.
"""

from datetime import datetime

import msgspec

from domain.activation import Flag
from domain.ids import DeploymentId, InstanceId, OrganizationId
from domain.instance_state import Status
from domain.upstream import Upstream, credential_id_of
from projections.routing_rows import DeploymentRow, InstanceRow


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A registered engine, ready or not, as choice needs it.

    Attributes:
        weight: how much of the load it can take beside its peers: its number of GPUs, at least 1.
        missing: activation flags without which its instance may not work; it gets no request while there are any.
        endpoints: what its engine answers (words of a key's scope); None when it has not said.
        context_tokens: the longest prompt and answer together that its engine takes; 0 when it has not said.
        engine_model: what its engine calls the model; "" means by its code.
        foreign: somebody else's server (domain/upstream.py): its id is the deployment's, its URL ends where OpenAI's
            clients expect a base_url to end, and it sends no heartbeats.
        credential_id: under which the vault keeps the key that a foreign one wants; "" when it wants none.
    """

    instance_id: InstanceId
    deployment_id: DeploymentId
    organization_id: OrganizationId
    model_code: str
    engine_url: str
    status: Status
    weight: int
    requested_at: datetime
    missing: tuple[Flag, ...] = ()
    endpoints: frozenset[str] | None = None
    context_tokens: int = 0
    engine_model: str = ""
    foreign: bool = False
    credential_id: str = ""

    @property
    def takes_requests(self) -> bool:
        return self.status == "ready" and not self.missing


def worker_of(row: InstanceRow) -> Worker | None:
    request, state = row.state.request, row.state
    if request is None or state.worker_id is None or not state.engine_url:
        return None
    return Worker(
        instance_id=row.id,
        deployment_id=request.deployment_id,
        organization_id=row.organization_id,
        model_code=request.model_code,
        engine_url=state.engine_url,
        status=state.status,
        weight=max(1, state.place.gpu_count if state.place else 0),
        requested_at=row.requested_at,
        missing=state.activation.missing,
        endpoints=frozenset(state.endpoints) or None,
        context_tokens=state.context_tokens,
    )


def foreign_worker(row: DeploymentRow, upstream: Upstream) -> Worker:
    return Worker(
        instance_id=InstanceId(row.id),
        deployment_id=row.id,
        organization_id=row.organization_id,
        model_code=row.model_code,
        engine_url=upstream.url,
        status="ready",
        weight=1,
        requested_at=row.requested_at,
        missing=upstream.activation.missing,
        engine_model=upstream.upstream_model,
        foreign=True,
        credential_id=credential_id_of(row.id, upstream.key_digest),
    )
