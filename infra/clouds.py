"""Which adapter an organisation's account is reached through; see handlers/cloud_ports.py.

The surprising rule: a provider without accounts (`local`) belongs to the platform, and every organisation may use it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from domain.ids import PLATFORM, OrganizationId
from handlers.cloud_ports import Account, Cloud, CloudUnavailableError, CommandRun


class PlatformClouds:
    """Implements Clouds with the providers that need no account."""

    def __init__(self, clouds: Mapping[str, Cloud]) -> None:
        self._clouds = clouds

    async def of(self, _organization: OrganizationId, provider: str, /) -> Cloud | None:
        return self._clouds.get(provider)

    async def accounts(self) -> Sequence[Account]:
        return [Account(PLATFORM, provider) for provider in self._clouds]


class NoShell:
    """Implements Shell where no host is reached by SSH."""

    async def run(
        self, _organization: OrganizationId, _provider: str, ip_address: str, _script: str, *, timeout_s: float
    ) -> CommandRun:
        raise CloudUnavailableError(f"no key to reach {ip_address} with, within {timeout_s} s")


async def no_probe(_agent_url: str, /) -> bool:
    """Implements WorkerProbe where no agent can be asked."""
    return False


async def never_heard(_organization: OrganizationId, _instance_id: str, /) -> datetime | None:
    """Implements LastHeard where there is no telemetry."""
    return None
