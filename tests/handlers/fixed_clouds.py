"""Clouds that every organisation reaches without an account."""

from collections.abc import Mapping, Sequence

from domain.ids import PLATFORM, OrganizationId
from handlers.cloud_ports import Account, Cloud


class FixedClouds:
    """Implements handlers.cloud_ports.Clouds, by provider code."""

    def __init__(self, clouds: Mapping[str, Cloud]) -> None:
        self._clouds = clouds

    async def of(self, _organization: OrganizationId, provider: str, /) -> Cloud | None:
        return self._clouds.get(provider)

    async def accounts(self) -> Sequence[Account]:
        return [Account(PLATFORM, provider) for provider in self._clouds]
