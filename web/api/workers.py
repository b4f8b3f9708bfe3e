"""Where worker agents report: /internal/worker. What a machine asks before its agent runs is in worker_machines.py.

    register: bootstrap token (derived per instance and attempt) ──> a token of the worker's own, kept as a hash only
    heartbeat: that token ──> telemetry, and news about the instance ──> what is wanted: run, drain or stop
    rotate: that token ──> the next one; both are good until the next one is first used

A host is not trusted: it speaks for its own instance only, its figures are clamped, and where the gateway will reach it
must be the address that the provider gave, or our own relay. The surprising rule: registering again is allowed until
the first heartbeat, because an agent may die between hearing its token and writing it down.
"""

from datetime import timedelta
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Response

from agent.protocol import (
    AUTHORIZE_PATH,
    HEARTBEAT_PATH,
    INSTANCE_GONE,
    INSTANCE_NOT_ADDRESSED,
    REGISTER_PATH,
    ROTATE_PATH,
    Accepted,
    AuthorizeRequest,
    Desired,
    Heartbeat,
    HeartbeatReply,
    RegisterReply,
    RegisterRequest,
    RotateReply,
    RotateRequest,
)
from domain.ids import InstanceId, OrganizationId, WorkerId
from domain.instance import INSTANCE
from domain.instance_commands import ObserveWorker, RegisterWorker, RotateWorkerToken
from domain.instance_state import ENDED, Instance, Status
from domain.key_scope import endpoints_of
from domain.telemetry import WorkerSeen
from web.agent_release import demanded_build
from web.auth import Served, bearer_of, worker
from web.errors import ApiError
from web.intent import Intended
from web.samples import clamped, clamped_percent, clamped_share
from web.services import Services
from web.worker_reports import answer, body_of, bootstrapped_instance, instance_of, unauthorized
from web.worker_tokens import SHOWN_PREFIX_LENGTH, digest_of, is_current, is_known, is_old, new_token

router = APIRouter(tags=["workers"], dependencies=[Depends(worker)], include_in_schema=False)

MAX_CONTEXT_TOKENS = 1_000_000_000
"""More than any model reads."""

_log = structlog.get_logger()


@router.post(REGISTER_PATH)
async def register(request: Request, services: Served, intent: Intended) -> Response:
    """Exchanges the bootstrap token for a token of the worker's own."""
    report = await body_of(request, RegisterRequest)
    organization, instance = await bootstrapped_instance(services, report.instance_id, bearer_of(request))
    engine_url, agent_url = _addresses(services, instance, report)
    token = new_token(intent.draw)
    command = RegisterWorker(
        worker_id=WorkerId(report.worker_id),
        token_sha256=digest_of(token),
        token_prefix=token[:SHOWN_PREFIX_LENGTH],
        engine_url=engine_url,
        agent_url=agent_url,
        agent_version=report.agent_info.version,
        agent_sha256=report.agent_info.checksum,
    )
    actor = f"worker:{report.worker_id}"
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    _log.info("worker_registered", instance=report.instance_id, worker=report.worker_id)
    return answer(
        RegisterReply(
            worker_token=token,
            worker_token_prefix=token[:SHOWN_PREFIX_LENGTH],
            heartbeat_interval_s=services.settings.heartbeat_interval_s,
        )
    )


@router.post(HEARTBEAT_PATH)
async def heartbeat(request: Request, services: Served, intent: Intended) -> Response:
    """Takes a worker's figures and news; says what is wanted of it."""
    report = await body_of(request, Heartbeat)
    token = bearer_of(request)
    organization, instance = await _known_instance(services, report.instance_id, digest_of(token))
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
        expected_agent_sha256=demanded_build(services.settings.agent, instance, report.agent_info),
        token_sha256=digest_of(token),
    )
    actor = f"worker:{report.worker_id}"
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    after = (await services.load(INSTANCE, organization, report.instance_id)).state if intent.position else instance
    ttl = timedelta(seconds=services.settings.worker_token_ttl_s)
    rotate = is_current(after, digest_of(token)) and is_old(token, now=services.clock(), ttl=ttl)
    return answer(HeartbeatReply(desired=desired_of(after.status), rotate_token=rotate))


@router.post(ROTATE_PATH)
async def rotate(request: Request, services: Served, intent: Intended) -> Response:
    """Gives a worker its next token; the present one stays good until the next one is first used."""
    report = await body_of(request, RotateRequest)
    digest = digest_of(bearer_of(request))
    organization, instance = await _known_instance(services, report.instance_id, digest)
    if not (instance.token_confirmed and is_current(instance, digest)):
        # Else an agent that has kept this one, and dies before it keeps the next, would hold none that is good.
        raise ApiError(409, "token_not_confirmed", "Use this token in a heartbeat before asking for the next one.")
    token = new_token(intent.draw)
    prefix = token[:SHOWN_PREFIX_LENGTH]
    command = RotateWorkerToken(token_sha256=digest_of(token), token_prefix=prefix)
    actor = f"worker:{report.worker_id}"
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    return answer(RotateReply(worker_token=token, worker_token_prefix=prefix))


@router.post(AUTHORIZE_PATH)
async def authorize(request: Request, services: Served) -> Response:
    """Says 200 to a good token, and changes nothing: for the relay, which knows neither log nor read models."""
    report = await body_of(request, AuthorizeRequest)
    await _known_instance(services, report.instance_id, digest_of(bearer_of(request)))
    return answer(Accepted())


def desired_of(status: Status) -> Desired:
    """What the worker of an instance in this state should do."""
    match status:
        case "draining":
            return "drain"
        case "terminating" | "terminated" | "archived":
            return "stop"
        case _:
            return "run"


async def _known_instance(services: Services, instance_id: str, digest: str) -> tuple[OrganizationId, Instance]:
    """The instance whose worker holds this token; raises ApiError 404, 401, and 410 when it has ended."""
    organization, instance = await instance_of(services, instance_id)
    if not is_known(instance, digest):
        raise unauthorized()
    if instance.status in ENDED:
        raise ApiError(410, INSTANCE_GONE, "This instance has ended; the agent may stop.")
    return organization, instance


def _addresses(services: Services, instance: Instance, report: RegisterRequest) -> tuple[str, str]:
    """Where engine and agent are reached: at the server that the provider gave us, or through our own relay.

    Raises:
        ApiError: 409 before the provider has named an address, or when there is no relay; 400 for any other place, for
            the gateway will send prompts there.
    """
    if not instance.ip_address:
        raise ApiError(409, INSTANCE_NOT_ADDRESSED, "The provider has not named this address yet; ask again.")
    if report.tunnel:
        if not services.settings.tunnel_url:
            raise ApiError(409, "tunnel_not_offered", "This control plane runs no relay (INVENTIV_TUNNEL_URL).")
        base = f"{services.settings.tunnel_url.rstrip('/')}/t/{report.instance_id}"
        return f"{base}/engine/v1", f"{base}/agent"  # with a path, a URL is what OpenAI's clients call a base_url
    for url in (report.base_url, report.agent_url):
        if not _points_at(url, instance.ip_address):
            raise ApiError(400, "foreign_address", f"The worker's addresses must be at {instance.ip_address}.")
    return report.base_url, report.agent_url


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
