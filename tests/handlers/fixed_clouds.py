"""Clouds that every organisation reaches without an account, and a shell that reaches nobody."""

from collections.abc import Mapping, Sequence

from domain.ids import PLATFORM, OrganizationId
from handlers.cloud_ports import Account, Cloud, CloudUnavailableError, CommandRun


class FixedClouds:
    """Implements handlers.cloud_ports.Clouds, by provider code."""

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
