"""What providers said that they rent out, at what price, and whether there is any: offers, per account.

    CatalogueSynced (what changed) ──> offers (organisation, provider, zone, type)

An organisation sees its own accounts' offers and those of the platform's (provider `local`). No row at all means that
nobody has asked the provider yet; then the built-in list of domain/catalogue.py is all there is.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.ids import PLATFORM, OrganizationId
from domain.provider_account_events import CatalogueSynced, Offer, ProviderAccountEvent, Stock
from projections.projection import THEIR_ORGANIZATION, Connection, Entry, Projection
from projections.query import find_all
from projections.table import Table

MAX_OFFER_ROWS = 5000
"""Of one answer: a few accounts with a thousand offers each (domain/provider_account.py)."""

_TABLES = """
CREATE TABLE offers (
    organization_id text NOT NULL,
    provider text NOT NULL,
    zone text NOT NULL,
    instance_type text NOT NULL,
    gpu_count bigint NOT NULL,
    vram_per_gpu_gb bigint NOT NULL,
    cpu_count bigint NOT NULL,
    ram_gb bigint NOT NULL,
    price_eur_micros_per_hour bigint,
    stock text NOT NULL,
    synced_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, provider, zone, instance_type)
)
"""


class OfferView(msgspec.Struct, frozen=True, kw_only=True):
    """One type in one zone. Memory in GB; price in millionths of a euro, None where the provider says none in EUR.

    Attributes:
        organization_id: whose account's; PLATFORM for a provider without accounts.
        synced_at: when it was last different from before.
    """

    organization_id: OrganizationId
    provider: str
    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_micros_per_hour: int | None
    stock: Stock
    synced_at: datetime


_Key = tuple[str, str, str, str]
_offers = Table("offers", OfferView, key=("organization_id", "provider", "zone", "instance_type"))


async def list_offers(connection: Connection, organization_id: str, provider: str = "") -> list[OfferView]:
    """What an organisation can rent, by provider, zone and type, of one provider or ("") of all."""
    query = """
        SELECT * FROM offers WHERE organization_id IN (%s, %s) AND (%s::text = '' OR provider = %s)
        ORDER BY provider, zone, instance_type LIMIT %s
    """
    return await find_all(connection, OfferView, query, (organization_id, PLATFORM, provider, provider, MAX_OFFER_ROWS))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    rows: dict[_Key, OfferView | None] = {}
    for entry in entries:
        event: ProviderAccountEvent = entry.event
        if isinstance(event, CatalogueSynced):
            of = (str(entry.envelope.organization), event.provider)
            rows |= {(*of, gone.zone, gone.instance_type): None for gone in event.withdrawn}
            rows |= {(*of, one.zone, one.instance_type): _row(one, event, entry) for one in event.offers}
    await _offers.remove(connection, [key for key, row in rows.items() if row is None])
    await _offers.put(connection, [row for row in rows.values() if row is not None])


def _row(offer: Offer, event: CatalogueSynced, entry: Entry) -> OfferView:
    return OfferView(
        organization_id=entry.envelope.organization,
        provider=event.provider,
        synced_at=entry.envelope.at,
        **msgspec.structs.asdict(offer),
    )


CATALOGUE = Projection(
    "catalogue",
    1,
    _TABLES,
    apply,
    aggregates=frozenset({"provider_account"}),
    visible={"offers": f"organization_id IN ({THEIR_ORGANIZATION}, '{PLATFORM}')"},
)
