"""Instances: the servers that run models. Stopping one lets its running answers finish first."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Response
from pydantic import Field

from domain.catalogue import model_id_of
from domain.ids import InstanceId
from domain.instance import INSTANCE
from domain.instance_commands import (
    ActivateInstance,
    ArchiveInstance,
    DeactivateInstance,
    InstanceCommand,
    RequestReinstall,
    RequestTermination,
    StopInstance,
)
from domain.instance_state import ENDED, Instance, Status
from projections.instance_milestones import list_milestones
from projections.instances import (
    InstanceView,
    SortColumn,
    find_instance,
    list_instances,
    search_instances,
)
from projections.usage import find_instance_usage
from web.activation import ActivationShown, FlagChange, activation_shown, require_flag
from web.api.catalogue import instance_type_id, provider_id, zone_id
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.intent import Intended, Intent
from web.shapes import Offset, PathId, Reply, euros, uuid_or_404

router = APIRouter(prefix="/instances", tags=["instances"])

Viewer = Annotated[Member, Depends(member("instances.view"))]
Runner = Annotated[Member, Depends(member("instances.change"))]
Activator = Annotated[Member, Depends(member("activation.change"))]

STOPPED_BY_USER = "user_request"


class InstanceShown(Reply):
    """One instance (SPEC 1.6). Times in UTC, costs in EUR, memory in GB; what is not known yet is empty or null."""

    id: str
    organization_id: str
    deployment_id: str
    ordinal: int
    provider: str
    provider_id: str
    zone: str
    zone_id: str
    instance_type: str
    instance_type_id: str
    model_code: str
    model_id: str
    engine: str
    status: Status
    progress_percent: int
    ip_address: str
    engine_url: str
    agent_url: str
    provider_instance_id: str
    worker_id: str | None
    agent_version: str
    agent_sha256: str
    error_code: str
    error_message: str
    deletion_reason: str
    deleted_by_provider: bool
    created_at: datetime
    ready_at: datetime | None
    terminated_at: datetime | None
    gpu_count: int
    gpu_vram: int
    cost_per_hour: float
    total_cost: float
    is_archived: bool
    activation: ActivationShown
    position: int


class ActivationChanged(Reply):
    instance_id: str
    activation: ActivationShown


class Milestone(Reply):
    """One event of an instance, told in words."""

    position: int
    at: datetime
    type: str
    action: str
    category: str
    failed: bool
    words: str
    actor: str
    status_before: str
    status_after: str
    progress_percent: int


class InstanceDetail(InstanceShown):
    storages: list[dict[str, Any]]
    history: list[Milestone]


class InstancePage(Reply):
    offset: int
    limit: int
    total_count: int
    filtered_count: int
    rows: list[InstanceShown]


class InstanceMetrics(Reply):
    total_requests: int
    successful_requests: int
    failed_requests: int
    total_input_tokens: int
    total_output_tokens: int
    total_tokens: int
    first_request_at: datetime | None
    last_request_at: datetime | None


class Accepted(Reply):
    """The wish is on record; handlers carry it out, and the instance's status tells how far they are."""

    status: Literal["accepted", "unchanged"]
    instance_id: str
    instance_status: Status


def shown(view: InstanceView) -> dict[str, Any]:
    """An instance as the API words it."""
    fields = msgspec.structs.asdict(view)
    del fields["volumes"]
    return {
        **fields,
        "activation": activation_shown(view.activation),
        "provider_id": provider_id(view.provider),
        "zone_id": zone_id(view.provider, view.zone),
        "instance_type_id": instance_type_id(view.provider, view.instance_type),
        "model_id": model_id_of(view.model_code),
        "gpu_vram": view.gpu_vram_gb,
        "cost_per_hour": euros(view.price_eur_micros_per_hour),
        "total_cost": euros(view.total_cost_eur_micros),
    }


@router.get("")
async def instances(
    viewer: Viewer, services: Served, position: Position, archived: bool = False
) -> list[InstanceShown]:
    """The organisation's instances, newest first; archived ones only when asked for."""
    async with services.read("instances", position=position) as connection:
        found = await list_instances(connection, viewer.organization_id, now=services.clock(), archived=archived)
    return [InstanceShown.model_validate(shown(one)) for one in found]


@router.get("/search")
async def search(
    viewer: Viewer,
    services: Served,
    position: Position,
    archived: bool = False,
    offset: Offset = 0,
    limit: Annotated[int, Field(ge=1, le=500)] = 200,
    sort_by: SortColumn = "created_at",
    sort_dir: Literal["asc", "desc"] = "desc",
) -> InstancePage:
    async with services.read("instances", position=position) as connection:
        page = await search_instances(
            connection,
            viewer.organization_id,
            now=services.clock(),
            archived=archived,
            offset=offset,
            limit=limit,
            sort_by=sort_by,
            sort_dir=sort_dir,
        )
    rows = [InstanceShown.model_validate(shown(one)) for one in page.rows]
    return InstancePage(
        offset=page.offset,
        limit=page.limit,
        total_count=page.total_count,
        filtered_count=page.filtered_count,
        rows=rows,
    )


@router.get("/{instance_id}")
async def instance(instance_id: PathId, viewer: Viewer, services: Served, position: Position) -> InstanceDetail:
    """One instance with its history."""
    wanted = uuid_or_404("instance", instance_id)
    async with services.read("instances", position=position) as connection:
        found = await find_instance(connection, viewer.organization_id, wanted, now=services.clock())
        history = await list_milestones(connection, viewer.organization_id, wanted)
    if found is None:
        raise not_found("instance")
    told = [Milestone.model_validate(one) for one in history]
    return InstanceDetail.model_validate({**shown(found), "storages": _storages(found), "history": told})


def _storages(view: InstanceView) -> list[dict[str, Any]]:
    """Its volumes, sizes in GB."""
    return [msgspec.structs.asdict(volume) for volume in view.volumes.values()]


@router.get("/{instance_id}/metrics")
async def metrics(instance_id: PathId, viewer: Viewer, services: Served, position: Position) -> InstanceMetrics:
    """Requests and tokens that the instance has served."""
    wanted = uuid_or_404("instance", instance_id)
    async with services.read("instances", position=position) as connection:
        found = await find_instance(connection, viewer.organization_id, wanted, now=services.clock())
        usage = await find_instance_usage(connection, viewer.organization_id, wanted)
    if found is None:
        raise not_found("instance")
    return InstanceMetrics(
        total_requests=usage.total_requests,
        successful_requests=usage.successful_requests,
        failed_requests=usage.failed_requests,
        total_input_tokens=usage.prompt_tokens,
        total_output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        first_request_at=usage.first_request_at,
        last_request_at=usage.last_request_at,
    )


@router.delete("/{instance_id}", status_code=202, responses={200: {"model": Accepted}})
async def stop_instance(
    instance_id: PathId, runner: Runner, services: Served, intent: Intended, response: Response, force: bool = False
) -> Accepted:
    """Drains it, then ends its server; `force` does not wait for running answers. 200 when it has ended already."""
    command: InstanceCommand
    if force:
        command = RequestTermination(reason=STOPPED_BY_USER)
    else:
        command = StopInstance(reason=STOPPED_BY_USER, drain_deadline_s=services.settings.drain_deadline_s)
    after = await _change(intent, runner, instance_id, command)
    ended = after.status in ENDED
    response.status_code = 200 if ended else 202
    return _accepted(instance_id, after, "unchanged" if ended else "accepted")


@router.put("/{instance_id}/archive")
async def archive_instance(instance_id: PathId, runner: Runner, intent: Intended) -> Accepted:
    """Puts a terminated instance away: lists show it only when asked."""
    return _accepted(instance_id, await _change(intent, runner, instance_id, ArchiveInstance()), "accepted")


@router.post("/{instance_id}/reinstall", status_code=202)
async def reinstall_instance(instance_id: PathId, runner: Runner, intent: Intended) -> Accepted:
    """Begins anew on the same server."""
    return _accepted(instance_id, await _change(intent, runner, instance_id, RequestReinstall()), "accepted")


@router.put("/{instance_id}/activation")
async def change_activation(
    instance_id: PathId, body: FlagChange, activator: Activator, intent: Intended
) -> ActivationChanged:
    """Sets or clears one flag. Nothing is rented, and nothing routed to, before both are set; the timeline tells who
    set each, and when.
    """
    require_flag(activator, body.flag)
    command: InstanceCommand = (ActivateInstance if body.value else DeactivateInstance)(flag=body.flag)
    after = await _change(intent, activator, instance_id, command)
    return ActivationChanged(instance_id=instance_id, activation=activation_shown(after.activation))


async def _change(intent: Intent, runner: Member, instance_id: str, command: InstanceCommand) -> Instance:
    """Sends the command; returns the state afterwards. A neighbour's instance has no events in our subject: 404."""
    wanted = InstanceId(uuid_or_404("instance", instance_id))
    await intent.send(INSTANCE, runner.organization_id, wanted, command, actor=runner.caller.actor)
    loaded = await intent.services.load(INSTANCE, runner.organization_id, wanted)
    return loaded.state


def _accepted(instance_id: str, after: Instance, status: Literal["accepted", "unchanged"]) -> Accepted:
    return Accepted(status=status, instance_id=instance_id, instance_status=after.status)
