"""What every endpoint for workers' machines begins with: a body of the protocol, and the instance that it speaks of."""

import re
from typing import TypeVar
from uuid import UUID

import msgspec
from fastapi import Request, Response

from agent.protocol import AuthorizeRequest, BootstrapReport, Heartbeat, RegisterRequest, RotateRequest
from domain.ids import OrganizationId
from domain.instance import INSTANCE
from domain.instance_state import Instance
from projections.instances import find_home
from projections.projection import EVERYTHING
from web.errors import ApiError, not_found
from web.services import Services

M = TypeVar("M", AuthorizeRequest, BootstrapReport, Heartbeat, RegisterRequest, RotateRequest)

_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}|")
_VERSION = re.compile(r"[A-Za-z0-9.+_-]{1,32}|")
_PHASE = re.compile(r"[a-z][a-z0-9_]{0,39}")


async def body_of(request: Request, shape: type[M]) -> M:
    """Raises ApiError 400 for what is no report, or names what cannot be an instance, a worker or an agent."""
    try:
        report = msgspec.json.decode(await request.body(), type=shape)
    except msgspec.DecodeError as error:
        raise ApiError(400, "invalid_request", f"This is no {shape.__name__}: {error}.") from error
    if wrong := [name for name, fits in _names_in(report).items() if not fits]:
        raise ApiError(400, "invalid_request", f"Not in the expected form: {', '.join(wrong)}.")
    return report


def _names_in(
    report: AuthorizeRequest | BootstrapReport | Heartbeat | RegisterRequest | RotateRequest,
) -> dict[str, object]:
    """Field -> whether it has the form that it must have."""
    fits: dict[str, object] = {"instance_id": _is_uuid(report.instance_id)}
    if isinstance(report, BootstrapReport):
        fits["phase"] = _PHASE.fullmatch(report.phase)
    if isinstance(report, RegisterRequest | Heartbeat | RotateRequest):
        fits["worker_id"] = _WORKER_ID.fullmatch(report.worker_id)
    if isinstance(report, RegisterRequest | Heartbeat):
        fits["agent_info.checksum"] = _SHA256.fullmatch(report.agent_info.checksum)
        fits["agent_info.version"] = _VERSION.fullmatch(report.agent_info.version)
    return fits


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def instance_of(services: Services, instance_id: str) -> tuple[OrganizationId, Instance]:
    """Where the read model says that it lives, and what the log says that it is. Raises ApiError 404."""
    async with services.read("instances", scope=EVERYTHING) as connection:  # a worker belongs to no organisation
        home = await find_home(connection, instance_id)
    if home is None:
        raise not_found("instance")
    loaded = await services.load(INSTANCE, home.organization_id, instance_id)
    return home.organization_id, loaded.state


async def bootstrapped_instance(services: Services, instance_id: str, token: str) -> tuple[OrganizationId, Instance]:
    """The instance whose present attempt this bootstrap token was made for; raises ApiError 401 and 404.

    A forged token is refused before a look-up could tell which instances exist.
    """
    attempt = services.worker_tokens.bootstrap_attempt(instance_id, token)
    if attempt is None:
        raise unauthorized()
    organization, instance = await instance_of(services, instance_id)
    if attempt != instance.attempt:
        raise unauthorized()
    return organization, instance


def unauthorized() -> ApiError:
    return ApiError(401, "unauthorized", "This token does not belong to this instance.")


def answer(reply: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(reply), media_type="application/json")
