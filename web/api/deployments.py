"""Deployments: a model wanted N times, or answered by an upstream (upstreams.py).

    POST ?dry_run=true ──> a plan (plan.py), and nothing else        POST ──> recorded first, then accepted or refused

Every wish for machines is on record, so every refusal can be traced. The surprising rule: the plan is made of the same
command as the wish, so both refuse the same, in the same words.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from domain.activation import Flag
from domain.deployment import DEPLOYMENT, Engine, RequestDeployment, StopDeployment, instance_ids
from domain.ids import DeploymentId
from domain.market import Market
from domain.model import MAX_CONTEXT_LENGTH, MODEL, ModelListed
from domain.permissions import granted_flags
from domain.provider_credentials import missing_credentials
from domain.setting import resolved
from projections.deployments import DeploymentView, Status, find_deployment, list_deployments
from projections.models import find_model, find_model_by_code
from projections.settings import find_settings, list_credentials
from web.api.catalogue import provider_id
from web.api.upstreams import NewUpstream, UpstreamShown, connect_upstream, upstream_shown
from web.auth import Member, Position, Served, member
from web.errors import ApiError, not_found
from web.intent import Intended, Intent
from web.market import market_of
from web.plan import DeploymentPlan, plan_of
from web.services import Services
from web.shapes import Body, PathId, Refused, Reply, euros, uuid_or_404
from web.wish import Place, engine_of, place_of, request_of

router = APIRouter(prefix="/deployments", tags=["deployments"])

Viewer = Annotated[Member, Depends(member("deployments.view"))]
Runner = Annotated[Member, Depends(member("deployments.change"))]

REFUSED_STATUS = 400
STARTUP_SETTING = "WORKER_INSTANCE_STARTUP_TIMEOUT_S"
DISK_SETTING = "WORKER_DATA_VOLUME_GB_DEFAULT"
MAX_ASKED_PLACES = 100
_OF_UPSTREAMS = frozenset({"model", "model_code", "activate", "upstream"})
MAX_EUR_PER_HOUR = 100_000
Price = Annotated[
    float | None,
    Field(ge=0, le=MAX_EUR_PER_HOUR, description="What an hour costs there; needed where the catalogue has no price."),
]
MAX_ASKED = 1_000_000
"""Beyond this a number is no wish but noise; what is sane is the domain's to say, and its refusal an event."""


class NewAlternative(Body):
    """A further place of the same provider; asked when those before it have none left."""

    zone: str
    instance_type: str
    price_eur_per_hour: Price = None


class NewDeployment(Body):
    """Name the model by `model` (its code) or `model_id` (uuid). Codes are preferred; older clients send ids."""

    model: str = ""
    model_code: str = ""
    model_id: str = ""
    instances: int = Field(default=1, ge=-MAX_ASKED, le=MAX_ASKED)
    engine: Engine | None = None
    provider_code: str = ""
    provider: str = ""
    provider_id: str = ""
    zone: str = ""
    zone_id: str = ""
    instance_type: str = ""
    instance_type_id: str = ""
    price_eur_per_hour: Price = None
    alternatives: list[NewAlternative] = Field(
        default=[], max_length=MAX_ASKED_PLACES, description="Where else it may be rented, in this order."
    )
    context_tokens: int | None = Field(
        default=None, ge=1, le=MAX_CONTEXT_LENGTH, description="To be served; as much as was listed, if not said."
    )
    startup_timeout_s: int | None = Field(default=None, ge=1, le=86_400)
    activate: list[Flag] | None = Field(
        default=None, description="Flags that the instances begin with; every one that the caller may set, if not said."
    )
    upstream: NewUpstream | None = Field(
        default=None, description="Answers in place of machines; `model` is then a code of your own choice."
    )


class DeploymentAccepted(Reply):
    """`instance_id` is the first of `instances`; their ids are known before they are. An upstream has none."""

    status: Literal["accepted"] = "accepted"
    deployment_id: str
    model: str
    instance_id: str
    instances: list[str]
    message: str


class DeploymentFailed(Reply):
    status: Literal["failed"] = "failed"
    deployment_id: str
    error: str
    message: str


class DeploymentShown(Reply):
    """`instances` are wanted, `ready_instances` answer; `cost_per_hour` in EUR for each.

    `engine` is "upstream", and places and numbers are empty, where `upstream` is given.
    """

    id: str
    organization_id: str
    model_code: str
    instances: int
    ready_instances: int
    instance_ids: list[str]
    status: Status
    engine: str
    provider: str
    provider_id: str
    zone: str
    instance_type: str
    cost_per_hour: float
    error_code: str
    error_message: str
    created_at: datetime
    stopped_at: datetime | None
    upstream: UpstreamShown | None


@router.post(
    "",
    status_code=202,
    response_model=DeploymentAccepted,
    responses={200: {"model": DeploymentPlan}, 400: {"model": DeploymentFailed | Refused}},
)
async def deploy(
    body: NewDeployment, runner: Runner, services: Served, intent: Intended, position: Position, dry_run: bool = False
) -> DeploymentAccepted | Response:
    """Accepted, or refused with one of SPEC 1.6's codes; either way the wish is on record.

    `dry_run`: 200 and the plan, refusal included; nothing is recorded.
    """
    deployment_id = DeploymentId(intent.draw.id("deployment"))
    if body.upstream is not None:
        if dry_run:
            raise ApiError(400, "upstream_takes_no_machines", "An upstream runs on nobody's machines: nothing to plan.")
        return await _connected(services, runner, intent, deployment_id, body, body.upstream)
    market = await market_of(services, runner.organization_id, position)
    command = await _request(services, runner, body, market, position)
    if dry_run:
        return Response(plan_of(command, market).model_dump_json(), 200, media_type="application/json")
    await intent.send(DEPLOYMENT, runner.organization_id, deployment_id, command, actor=runner.caller.actor)
    state = (await services.load(DEPLOYMENT, runner.organization_id, deployment_id)).state
    if state.refusal:
        failed = DeploymentFailed(deployment_id=deployment_id, error=state.refusal.code, message=state.refusal.message)
        return Response(failed.model_dump_json(), REFUSED_STATUS, media_type="application/json")
    ids = instance_ids(deployment_id, body.instances)
    return DeploymentAccepted(
        deployment_id=deployment_id,
        model=command.model_code,
        instance_id=ids[0],
        instances=list(ids),
        message=f"{len(ids)} instance{'s' if len(ids) > 1 else ''} of {command.model_code} requested.",
    )


async def _request(
    services: Services, runner: Member, body: NewDeployment, market: Market, position: int
) -> RequestDeployment:
    """The wish as a command, with everything that it depends on; reads only."""
    model_code, model = await _model(services, runner, body, position)
    first = place_of(
        market,
        provider=body.provider_code or body.provider,
        zone=body.zone,
        instance_type=body.instance_type,
        provider_id=body.provider_id,
        zone_id=body.zone_id,
        instance_type_id=body.instance_type_id,
        price_eur_per_hour=body.price_eur_per_hour,
    )
    others = [Place(provider=first.provider, **one.model_dump()) for one in body.alternatives]
    async with services.read("settings", position=position) as connection:
        own = await find_settings(connection, runner.organization_id, first.provider)
        accounts = await list_credentials(connection, runner.organization_id)
    given = next((account.names for account in accounts if account.provider == first.provider), ())
    startup_timeout_s = int(resolved(STARTUP_SETTING, own, environment=services.settings.defaults))
    return request_of(
        market,
        model_code=model_code,
        model=model,
        places=[first, *others],
        instances=body.instances,
        engine=engine_of(body.engine, model_code=model_code, provider=first.provider),
        startup_timeout_s=body.startup_timeout_s or startup_timeout_s,
        activate=granted_flags(runner.role, body.activate),
        context_tokens=body.context_tokens or 0,
        provider_disk_gb=int(own[DISK_SETTING]) if DISK_SETTING in own else None,
        forced_disk_gb=services.settings.data_volume_gb,
        credentials_missing=missing_credentials(first.provider, given),
    )


async def _connected(
    services: Services,
    runner: Member,
    intent: Intent,
    deployment_id: DeploymentId,
    body: NewDeployment,
    upstream: NewUpstream,
) -> DeploymentAccepted:
    """Raises ApiError: 400 upstream_takes_no_machines."""
    if extra := body.model_fields_set - _OF_UPSTREAMS:
        message = f"An upstream runs on nobody's machines: leave out {', '.join(sorted(extra))}."
        raise ApiError(400, "upstream_takes_no_machines", message)
    code = body.model or body.model_code
    await connect_upstream(
        services, runner, intent, deployment_id, model_code=code, wanted=upstream, activate=body.activate
    )
    return DeploymentAccepted(
        deployment_id=deployment_id, model=code, instance_id="", instances=[], message=f"{code} has an upstream."
    )


async def _model(
    services: Services, runner: Member, body: NewDeployment, position: int
) -> tuple[str, ModelListed | None]:
    """The code that was named, and the catalogue's entry as of now; None when it lists no such model for us."""
    code = body.model or body.model_code
    async with services.read("models", position=position) as connection:
        if code:
            found = await find_model_by_code(connection, runner.organization_id, code)
        else:
            found = await find_model(connection, runner.organization_id, body.model_id) if body.model_id else None
    if found is None:
        return code or body.model_id, None
    loaded = await services.load(MODEL, found.organization_id, found.id)
    return found.code, loaded.state.listing


@router.get("")
async def deployments(viewer: Viewer, services: Served, position: Position) -> list[DeploymentShown]:
    """The organisation's deployments, newest first."""
    async with services.read("deployments", position=position) as connection:
        found = await list_deployments(connection, viewer.organization_id)
    return [_shown(one) for one in found]


@router.get("/{deployment_id}")
async def deployment(deployment_id: PathId, viewer: Viewer, services: Served, position: Position) -> DeploymentShown:
    wanted = uuid_or_404("deployment", deployment_id)
    async with services.read("deployments", position=position) as connection:
        found = await find_deployment(connection, viewer.organization_id, wanted)
    if found is None:
        raise not_found("deployment")
    return _shown(found)


@router.delete("/{deployment_id}", status_code=202)
async def stop_deployment(deployment_id: PathId, runner: Runner, intent: Intended) -> None:
    """Stops all its instances; running answers finish first."""
    wanted = DeploymentId(uuid_or_404("deployment", deployment_id))
    await intent.send(DEPLOYMENT, runner.organization_id, wanted, StopDeployment(), actor=runner.caller.actor)


def _shown(view: DeploymentView) -> DeploymentShown:
    fields = {name: getattr(view, name) for name in DeploymentView.__struct_fields__}
    return DeploymentShown.model_validate(
        {
            **fields,
            "provider_id": provider_id(view.provider) if view.provider else "",
            "upstream": upstream_shown(view.upstream) if view.upstream else None,
            "cost_per_hour": euros(view.price_eur_micros_per_hour),
        }
    )
