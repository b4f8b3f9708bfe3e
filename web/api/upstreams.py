"""Foreign upstreams of deployments: any OpenAI-compatible URL that answers in place of rented machines.

    POST /deployments {"model", "upstream": {...}}  (deployments.py) ──> connect      PUT .../upstream/key   replaced
    PUT  /deployments/{id}/activation               each flag by itself              DELETE /deployments/{id}   stopped

The key is write-only: it goes into the vault, sealed so that gateways alone open it, and no reply ever holds it. The
surprising rule: whoever connects an upstream decides where an organisation's prompts go, so it takes the right to
deploy, which owners and admins have, and both flags, as everything that works and costs.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from domain.activation import Flag
from domain.deployment import DEPLOYMENT
from domain.ids import DeploymentId, OrganizationId
from domain.permissions import granted_flags
from domain.upstream import (
    MAX_MODEL_LENGTH,
    MAX_URL_LENGTH,
    ActivateUpstream,
    ConnectUpstream,
    DeactivateUpstream,
    ReplaceUpstreamKey,
    Upstream,
    credential_id_of,
    place_of_url,
)
from domain.values import Digest
from web.activation import ActivationShown, FlagChange, activation_shown, require_flag
from web.auth import Member, Served, member
from web.intent import Intended, Intent
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/deployments", tags=["deployments"])

Runner = Annotated[Member, Depends(member("deployments.change"))]
Activator = Annotated[Member, Depends(member("activation.change"))]

MAX_KEY_LENGTH = 4096
FINGERPRINT_LETTERS = 12
"""48 bits of a keyed hash: enough to tell two keys apart, of no use to whoever lacks the master key."""
UpstreamKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[\x21-\x7e]+$")]
"""What fits into one header: printable ASCII without blanks."""


class NewUpstream(Body):
    """`url`: as OpenAI's clients take it for base_url. `model`: what it calls the model; as we do, if not said."""

    url: str = Field(max_length=MAX_URL_LENGTH)
    model: str = Field(default="", max_length=MAX_MODEL_LENGTH)
    api_key: UpstreamKey | None = Field(default=None, description="Write-only. Left out: the upstream needs none.")


class NewUpstreamKey(Body):
    api_key: UpstreamKey


class UpstreamShown(Reply):
    """`key_fingerprint`: the same for the same key in the same organisation; empty for an upstream without one."""

    url: str
    model: str
    key_fingerprint: str
    activation: ActivationShown


async def connect_upstream(
    services: Services,
    runner: Member,
    intent: Intent,
    deployment_id: DeploymentId,
    *,
    model_code: str,
    wanted: NewUpstream,
    activate: list[Flag] | None,
) -> None:
    """Rehearsed first, so that a refused wish leaves no key; then the vault, then the event that names it.

    Raises:
        Rejected: see domain/upstream.py.
        OSError: the host could not be looked up, or the vault or the log is away.
    """
    place = place_of_url(wanted.url)
    addresses = await services.resolve(place.host, place.port)
    rules, encrypted = services.settings.outbound, place.scheme == "https"
    digest = _digest(services, runner.organization_id, wanted.api_key)
    command = ConnectUpstream(
        model_code=model_code,
        url=wanted.url,
        upstream_model=wanted.model or model_code,
        key_digest=digest,
        found=bool(addresses),
        allowed=all(rules.allows(place.host, place.port, one, encrypted=encrypted) for one in addresses),
        activate=granted_flags(runner.role, activate),
    )
    await _keep_and_send(services, runner, intent, deployment_id, command, wanted.api_key)


@router.put("/{deployment_id}/upstream/key")
async def replace_upstream_key(
    deployment_id: PathId, body: NewUpstreamKey, runner: Runner, services: Served, intent: Intended
) -> UpstreamShown:
    """The old key serves until gateways have heard of the new one, and is destroyed then."""
    wanted = DeploymentId(uuid_or_404("deployment", deployment_id))
    command = ReplaceUpstreamKey(key_digest=_digest(services, runner.organization_id, body.api_key))
    await _keep_and_send(services, runner, intent, wanted, command, body.api_key)
    return await _now(services, runner, wanted)


@router.put("/{deployment_id}/activation")
async def change_upstream_activation(
    deployment_id: PathId, body: FlagChange, activator: Activator, services: Served, intent: Intended
) -> UpstreamShown:
    """Sets or clears one flag; an upstream gets no request unless both are set. Instances have flags of their own."""
    require_flag(activator, body.flag)
    wanted = DeploymentId(uuid_or_404("deployment", deployment_id))
    command = ActivateUpstream(flag=body.flag) if body.value else DeactivateUpstream(flag=body.flag)
    await intent.send(DEPLOYMENT, activator.organization_id, wanted, command, actor=activator.caller.actor)
    return await _now(services, activator, wanted)


def upstream_shown(upstream: Upstream) -> UpstreamShown:
    return UpstreamShown(
        url=upstream.url,
        model=upstream.upstream_model,
        key_fingerprint=upstream.key_digest[:FINGERPRINT_LETTERS],
        activation=activation_shown(upstream.activation),
    )


async def _keep_and_send(
    services: Services,
    runner: Member,
    intent: Intent,
    deployment_id: DeploymentId,
    command: ConnectUpstream | ReplaceUpstreamKey,
    key: str | None,
) -> None:
    organization_id = runner.organization_id
    await intent.rehearse(DEPLOYMENT, organization_id, deployment_id, command)
    if key is not None:
        credential_id = credential_id_of(deployment_id, command.key_digest)
        await services.upstream_keys.keep(organization_id, deployment_id, credential_id, key)
    await intent.send(DEPLOYMENT, organization_id, deployment_id, command, actor=runner.caller.actor)


def _digest(services: Services, organization_id: OrganizationId, key: str | None) -> Digest:
    """In hex first: the vault's digests do not tell capitals from small letters, and a key's do count."""
    if key is None:
        return Digest("")
    return services.vault.digest("upstream_key", f"{organization_id}/{key.encode().hex()}")


async def _now(services: Services, who: Member, deployment_id: DeploymentId) -> UpstreamShown:
    upstream = (await services.load(DEPLOYMENT, who.organization_id, deployment_id)).state.upstream
    assert upstream is not None, "it has just been changed"  # noqa: S101 - the impossible
    return upstream_shown(upstream)
