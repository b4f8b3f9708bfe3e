"""What an organisation can rent now: the built-in catalogue, what its providers said since, and its own hosts.

The surprising rule: hosts of one kind in one zone are one line, at the price of the dearest; which of them a server
gets is decided when it is created.
"""

from domain.catalogue import InstanceType
from domain.host import PROVIDER
from domain.market import Market, Offered, merged
from projections.catalogue import OfferView, list_offers
from projections.hosts import HostView, list_hosts
from web.services import Services


async def market_of(services: Services, organization_id: str, position: int) -> Market:
    """`position`: of the newest event that the caller knows of."""
    async with services.read("catalogue", "hosts", position=position) as connection:
        offers = await list_offers(connection, organization_id)
        hosts = await list_hosts(connection, organization_id)
    dearest: dict[tuple[str, str], Offered] = {}
    for one in sorted(map(_of_host, hosts), key=lambda one: one.price_eur_micros_per_hour or 0):
        dearest[one.zone, one.type.code] = one
    return merged([*map(_of_offer, offers), *dearest.values()])


def _of_offer(view: OfferView) -> Offered:
    return Offered(
        provider=view.provider,
        zone=view.zone,
        stock=view.stock,
        is_current=True,
        type=InstanceType(
            code=view.instance_type,
            gpu_count=view.gpu_count,
            vram_per_gpu_gb=view.vram_per_gpu_gb,
            cpu_count=view.cpu_count,
            ram_gb=view.ram_gb,
            price_eur_micros_per_hour=view.price_eur_micros_per_hour,
        ),
    )


def _of_host(view: HostView) -> Offered:
    """Nobody counted a host's processors and memory; whether it is free, it says itself when it is asked for."""
    facts = view.facts
    return Offered(
        provider=PROVIDER,
        zone=facts.zone,
        is_current=True,
        type=InstanceType(
            code=facts.instance_type,
            gpu_count=facts.gpu_count,
            vram_per_gpu_gb=facts.vram_per_gpu_gb,
            cpu_count=0,
            ram_gb=0,
            price_eur_micros_per_hour=facts.price_eur_micros_per_hour,
        ),
    )
