"""Which adapter an organisation's account is reached through; see handlers/cloud_ports.py.

    of(organization, provider) ─┬─ local ──────────────────────────────> the platform's own
                                └─ scaleway, aws ... ──> vault: when were its credentials set?
                                       as before ──> the adapter kept        replaced ──> a new one        none ──> None

Each account's adapter stands behind a circuit of its own. The surprising rule: nothing is kept without a look into the
vault, so replaced credentials count from the next call on, in every process, and removed ones are forgotten at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.build import own_checksum
from domain.ids import PLATFORM, OrganizationId
from domain.provider_credentials import missing_credentials, provider_of, purpose_of
from handlers.cloud_ports import Account, Cloud, ServerRequest
from infra.environment import Environment
from infra.providers.bootstrap.cloud_init import cloud_init
from infra.providers.bootstrap.script import bootstrap_script
from infra.providers.circuit import Breaker, CircuitCloud
from infra.shell import HostsOf

Factory = Callable[[OrganizationId, Mapping[str, str]], Cloud]
"""Makes an adapter of an organisation's credentials. It asks nobody and imports no SDK: it runs in the event loop."""


class CredentialVault(Protocol):
    """What AccountClouds needs of infra.credentials.CredentialStore; raises OSError when the vault is away."""

    async def list_bundles(self) -> Sequence[tuple[str, str]]: ...

    async def set_at(self, organization_id: str, purpose: str) -> datetime | None: ...

    async def open(self, organization_id: str, purpose: str) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class _Kept:
    set_at: datetime
    cloud: Cloud


class AccountClouds:
    """Implements Clouds.

    Args:
        platform: providers without accounts, which every organisation may use.
        vault: where the organisations' credentials lie.
        factories: by provider code.
    """

    def __init__(self, platform: Mapping[str, Cloud], vault: CredentialVault, factories: Mapping[str, Factory]) -> None:
        self._platform = platform
        self._vault = vault
        self._factories = factories
        self._kept: dict[Account, _Kept] = {}

    async def of(self, organization: OrganizationId, provider: str, /) -> Cloud | None:
        if provider in self._platform:
            return self._platform[provider]
        factory = self._factories.get(provider)
        if factory is None:
            return None
        account = Account(organization, provider)
        set_at = await self._vault.set_at(organization, purpose_of(provider))
        if set_at is None:
            self._kept.pop(account, None)
            return None
        kept = self._kept.get(account)
        if kept is not None and kept.set_at == set_at:
            return kept.cloud
        credentials = await self._vault.open(organization, purpose_of(provider))
        if missing_credentials(provider, tuple(credentials)):
            return None
        # The credentials may be newer than `set_at` by now: the next look then makes one adapter more, and no harm.
        cloud = factory(organization, credentials)
        if not cloud.traits.keeps_servers:  # of an owner's hosts each fails by itself, and the others go on
            cloud = CircuitCloud(cloud, Breaker(f"{provider} of {organization}"))
        self._kept[account] = _Kept(set_at, cloud)
        return self._kept[account].cloud

    async def accounts(self) -> Sequence[Account]:
        bundles = await self._vault.list_bundles()
        theirs = [
            Account(OrganizationId(whose), provider)
            for whose, purpose in bundles
            if (provider := provider_of(purpose)) in self._factories
        ]
        return [*(Account(PLATFORM, provider) for provider in self._platform), *theirs]


def factories_of(environment: Environment, hosts_of: HostsOf, clock: Callable[[], datetime]) -> dict[str, Factory]:
    """Of the clouds that need credentials; `hosts_of` says which hosts an organisation enrolled."""
    bootstrap = bootstrap_of(environment)

    def scaleway(_organization: OrganizationId, credentials: Mapping[str, str]) -> Cloud:
        from infra.providers.scaleway import scaleway_cloud  # noqa: PLC0415 - wanted only where there is an account

        return scaleway_cloud(credentials, bootstrap=bootstrap, url=environment.scaleway_url)

    def aws(_organization: OrganizationId, credentials: Mapping[str, str]) -> Cloud:
        from infra.providers.aws import aws_cloud  # noqa: PLC0415 - as above

        return aws_cloud(credentials, bootstrap=bootstrap, endpoint_url=environment.aws_endpoint_url)

    def bare_metal(organization: OrganizationId, credentials: Mapping[str, str]) -> Cloud:
        from infra.providers.bare_metal import BareMetalCloud  # noqa: PLC0415 - as above

        return BareMetalCloud(
            lambda: hosts_of(organization),
            private_key=credentials["ssh_private_key"],
            agent_sha256=own_checksum(),
            clock=clock,
        )

    return {"scaleway": scaleway, "aws": aws, "bare_metal": bare_metal}


def bootstrap_of(environment: Environment) -> Callable[[ServerRequest], str]:
    """User data with which a new server installs itself with the agent of today, from our own API."""
    checksum = own_checksum()
    agent_url = f"{environment.api_url.rstrip('/')}/internal/worker/agent.pyz"
    return lambda request: cloud_init(request.agent_environment, agent_url=agent_url, agent_sha256=checksum)


def script_of(environment: Environment) -> Callable[[Mapping[str, str]], str]:
    """The same installation by SSH, for a server on which cloud-init came to nothing."""
    checksum = own_checksum()
    agent_url = f"{environment.api_url.rstrip('/')}/internal/worker/agent.pyz"

    def script(worker_environment: Mapping[str, str], /) -> str:
        return bootstrap_script(
            worker_environment, agent_url=agent_url, agent_sha256=checksum, data_volume_tries=1, powers_off=True
        )

    return script


async def no_probe(_agent_url: str, /) -> bool:
    """Implements WorkerProbe where no agent can be asked."""
    return False


async def never_heard(_organization: OrganizationId, _instance_id: str, /) -> datetime | None:
    """Implements LastHeard where there is no telemetry."""
    return None
