"""What Scaleway rents out: the types of each zone with their prices, and whether there is any left.

The surprising rule: a zone that cannot be read makes the whole list unavailable; half a catalogue would withdraw what
is for rent in the other half.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from handlers.cloud_ports import Offer, Stock
from infra.providers.scaleway_api import PAGE_SIZE, ScalewayApi, Sdk

BYTES_PER_GB = 10**9
BYTES_PER_GIB = 2**30
EUR_MICROS = 1_000_000
STOCKS: dict[str, Stock] = {"available": "available", "scarce": "scarce", "shortage": "out"}


class ScalewayOffers:
    """Implements handlers.cloud_ports.Offers for one account."""

    def __init__(self, api: ScalewayApi, zones: Sequence[str]) -> None:
        self._api = api
        self._zones = zones

    async def list_offers(self) -> Sequence[Offer]:
        """GPU types alone: nothing else is rented here."""
        return [offer for offers in await asyncio.gather(*map(self._of_zone, self._zones)) for offer in offers]

    async def _of_zone(self, zone: str) -> list[Offer]:
        def types(sdk: Sdk, page: int) -> Any:
            return sdk.instance.list_servers_types(zone=zone, page=page, per_page=PAGE_SIZE)

        def stocks(sdk: Sdk, page: int) -> Any:
            return sdk.instance.get_server_types_availability(zone=zone, page=page, per_page=PAGE_SIZE)

        listed = await self._api.pages("look", "servers", types)
        stock = {code: str(found.availability) for code, found in await self._api.pages("look", "servers", stocks)}
        return [_offer(zone, code, kind, stock.get(code, "")) for code, kind in listed if kind.gpu]


def _offer(zone: str, code: str, kind: Any, stock: str) -> Offer:
    memory = kind.gpu_info.gpu_memory if kind.gpu_info is not None else 0
    price = kind.hourly_price
    return Offer(
        zone=zone,
        instance_type=code,
        gpu_count=kind.gpu,
        vram_per_gpu_gb=_gb(memory),
        cpu_count=kind.ncpus,
        ram_gb=_gb(kind.ram),
        price_eur_micros_per_hour=round(price * EUR_MICROS) if price is not None else None,
        stock=STOCKS.get(stock, "unknown"),
    )


def _gb(size_bytes: int) -> int:
    """As it is called in the trade: memory of 24 GiB and of 24 GB are both "24 GB"."""
    return size_bytes // BYTES_PER_GIB if size_bytes % BYTES_PER_GIB == 0 else round(size_bytes / BYTES_PER_GB)
