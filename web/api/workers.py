"""Where worker agents report: /internal/worker. The only file that knows the agent, and of it only the protocol.

    register: bootstrap token (derived per instance and attempt) ──> a token of the worker's own, kept as a hash only
    heartbeat: that token ──> telemetry, and news about the instance ──> what is wanted: run, drain or stop

A host is not trusted: it speaks for its own instance only, its figures are clamped, and where the gateway will reach it
must be the address that the provider gave. The surprising rule: registering again is allowed until the first heartbeat,
because an agent may die between hearing its token and writing it down.
"""

import hmac
import re
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Response

from agent.protocol import (
    HEARTBEAT_PATH,
    INSTANCE_GONE,
    REGISTER_PATH,
    Desired,
    Heartbeat,
    HeartbeatReply,
    RegisterReply,
    RegisterRequest,
)
from domain.ids import InstanceId, OrganizationId, WorkerId
from domain.instance import INSTANCE
from domain.instance_commands import ObserveWorker, RegisterWorker
from domain.instance_state import ENDED, Instance, Status
from domain.key_scope import endpoints_of
from domain.telemetry import WorkerSeen
from projections.instances import find_home
from projections.projection import EVERYTHING
from web.auth import Served, bearer_of, worker
from web.errors import ApiError, not_found
from web.intent import Intended
from web.samples import clamped, clamped_percent, clamped_share
from web.services import Services

router = APIRouter(tags=["workers"], dependencies=[Depends(worker)], include_in_schema=False)

TOKEN_PREFIX = "wk_"  # noqa: S105 - how tokens begin, not one of them
SHOWN_PREFIX_LENGTH = 12
MAX_CONTEXT_TOKENS = 1_000_000_000
"""More than any model reads."""
_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}|")
_VERSION = re.compile(r"[A-Za-z0-9.+_-]{1,32}|")

M = TypeVar("M", RegisterRequest, Heartbeat)

_log = structlog.get_logger()


@router.post(REGISTER_PATH)
async def register(request: Request, services: Served, intent: Intended) -> Response:
    """Exchanges the bootstrap token for a token of the worker's own."""
    report = await _body(request, RegisterRequest)
    attempt = services.worker_tokens.bootstrap_attempt(report.instance_id, bearer_of(request))
    if attempt is None:
        raise _unauthorized()
    organization, instance = await _instance(services, report.instance_id)
    if attempt != instance.attempt:
        raise _unauthorized()
    _require_own_address(instance, report)
    token = f"{TOKEN_PREFIX}{_uuid(intent.draw.secret('worker/1', 16))}_{_uuid(intent.draw.secret('worker/2', 16))}"
    command = RegisterWorker(
        worker_id=WorkerId(report.worker_id),
        token_sha256=sha256(token.encode()).hexdigest(),
        token_prefix=token[:SHOWN_PREFIX_LENGTH],
        engine_url=report.base_url,
        agent_url=report.agent_url,
        agent_version=report.agent_info.version,
        agent_sha256=report.agent_info.checksum,
    )
    actor = f"worker:{report.worker_id}"
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    _log.info("worker_registered", instance=report.instance_id, worker=report.worker_id)
    return _reply(
        RegisterReply(
            worker_token=token,
            worker_token_prefix=token[:SHOWN_PREFIX_LENGTH],
            heartbeat_interval_s=services.settings.heartbeat_interval_s,
        )
    )


@router.post(HEARTBEAT_PATH)
async def heartbeat(request: Request, services: Served, intent: Intended) -> Response:
    """Takes a worker's figures and news; says what is wanted of it."""
    report = await _body(request, Heartbeat)
    organization, instance = await _instance(services, report.instance_id)
    shown = sha256(bearer_of(request).encode()).hexdigest()
    if not instance.token_sha256 or not hmac.compare_digest(shown, instance.token_sha256):
        raise _unauthorized()
    if instance.status in ENDED:
        raise ApiError(410, INSTANCE_GONE, "This instance has ended; the agent may stop.")
    await _publish(services, organization, report)
    command = ObserveWorker(
        status=report.status,
        engine_up=report.engine_up,
        model_loaded=report.model_loaded,
        warmed_up=report.warmed_up,
        queue_depth=max(0, report.queue_depth),
        agent_sha256=report.agent_info.checksum,
        endpoints=endpoints_of(report.engine_paths),
        context_tokens=min(max(0, report.context_tokens), MAX_CONTEXT_TOKENS),
        expected_agent_sha256=services.settings.expected_agent_sha256,
    )
    actor = f"worker:{report.worker_id}"
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    after = (await services.load(INSTANCE, organization, report.instance_id)).state if intent.position else instance
    return _reply(HeartbeatReply(desired=desired_of(after.status)))


def desired_of(status: Status) -> Desired:
    """What the worker of an instance in this state should do."""
    match status:
        case "draining":
            return "drain"
        case "terminating" | "terminated" | "archived":
            return "stop"
        case _:
            return "run"


async def _body(request: Request, shape: type[M]) -> M:
    """Raises ApiError 400 for what is no report, or names what cannot be an instance, a worker or an agent."""
    try:
        report = msgspec.json.decode(await request.body(), type=shape)
    except msgspec.DecodeError as error:
        raise ApiError(400, "invalid_request", f"This is no {shape.__name__}: {error}.") from error
    fields = {
        "worker_id": _WORKER_ID.fullmatch(report.worker_id),
        "instance_id": _is_uuid(report.instance_id),
        "agent_info.checksum": _SHA256.fullmatch(report.agent_info.checksum),
        "agent_info.version": _VERSION.fullmatch(report.agent_info.version),
    }
    if wrong := [name for name, fits in fields.items() if not fits]:
        raise ApiError(400, "invalid_request", f"Not in the expected form: {', '.join(wrong)}.")
    return report


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _instance(services: Services, instance_id: str) -> tuple[OrganizationId, Instance]:
    """Where the read model says that it lives, and what the log says that it is."""
    async with services.read("instances", scope=EVERYTHING) as connection:  # a worker belongs to no organisation
        home = await find_home(connection, instance_id)
    if home is None:
        raise not_found("instance")
    loaded = await services.load(INSTANCE, home.organization_id, instance_id)
    return home.organization_id, loaded.state


def _require_own_address(instance: Instance, report: RegisterRequest) -> None:
    """The gateway will send prompts to base_url: it must be the server that the provider gave us, and no other."""
    if not instance.ip_address:
        raise ApiError(409, "instance_not_addressed", "The provider has not named this address yet; ask again.")
    for url in (report.base_url, report.agent_url):
        if not _points_at(url, instance.ip_address):
            raise ApiError(400, "foreign_address", f"The worker's addresses must be at {instance.ip_address}.")


def _points_at(url: str, ip_address: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.scheme in {"http", "https"} and not (parts.username or parts.query or parts.fragment)
    return plain and port is not None and parts.path in {"", "/"} and parts.hostname == ip_address


async def _publish(services: Services, organization: OrganizationId, report: Heartbeat) -> None:
    """A sample that cannot be stored is a sample less; the heartbeat counts all the same."""
    metadata = {**msgspec.to_builtins(report.metadata), "gpu_mem_used_mb": report.gpu_mem_used_mb}
    seen = WorkerSeen(
        organization_id=organization,
        instance_id=InstanceId(report.instance_id),
        worker_id=WorkerId(report.worker_id),
        at=services.clock(),
        status=report.status,
        queue_depth=max(0, report.queue_depth),
        gpu_utilization=clamped_percent(report.gpu_utilization),
        samples=clamped(metadata),
        kv_cache_usage=clamped_share(report.metadata.vllm.kv_cache_usage),
    )
    try:
        await services.telemetry.publish(seen)
    except OSError as error:
        _log.warning("telemetry_not_published", instance=report.instance_id, error=str(error))


def _unauthorized() -> ApiError:
    return ApiError(401, "unauthorized", "This token does not belong to this instance.")


def _uuid(chance: bytes) -> UUID:
    return UUID(bytes=chance, version=4)


def _reply(reply: RegisterReply | HeartbeatReply) -> Response:
    return Response(msgspec.json.encode(reply), media_type="application/json")
