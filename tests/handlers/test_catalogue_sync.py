"""What accounts offer is asked hourly and on demand; one that cannot be asked says why, and stops nobody else."""

from collections.abc import Sequence
from dataclasses import replace as replaced

import msgspec
from msgspec.structs import replace

from domain.ids import PLATFORM
from domain.provider_account import PROVIDER_ACCOUNT, ProviderAccount, provider_account_id_of
from domain.provider_account_commands import RequestCatalogueSync
from handlers.cloud_ports import Cloud, CloudRefusedError, Offer
from handlers.keep_catalogue_fresh import keep_catalogue_fresh
from handlers.sync_catalogue_on_catalogue_sync_requested import sync_catalogue_on_catalogue_sync_requested
from tests.examples import L4
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import ACME, World

OFFER = Offer(**msgspec.structs.asdict(L4))


class Shop:
    """Implements Offers."""

    def __init__(self, *offers: Offer, fault: Exception | None = None) -> None:
        self.offers: Sequence[Offer] = offers
        self.fault = fault

    async def list_offers(self) -> Sequence[Offer]:
        if self.fault:
            raise self.fault
        return self.offers


async def account(world: World, provider: str = "local") -> ProviderAccount:
    account_id = provider_account_id_of(PLATFORM, provider)
    return (await world.dispatcher.load(PROVIDER_ACCOUNT, PLATFORM, account_id)).state


async def test_what_is_offered_is_recorded_and_what_changed_is_said() -> None:
    world = World()
    world.cloud.offers = shop = Shop(OFFER)
    await keep_catalogue_fresh(world.doors)
    assert (await account(world)).offers == (L4,)
    shop.offers = (replace(OFFER, stock="out"),)
    await keep_catalogue_fresh(world.doors)
    assert (await account(world)).offers == (replace(L4, stock="out"),)


async def test_a_provider_without_offers_is_not_asked_each_hour() -> None:
    world = World()
    await keep_catalogue_fresh(world.doors)
    assert (await account(world)).synced_at is None


async def test_one_account_that_cannot_be_asked_does_not_stop_the_others() -> None:
    world, away = World(), World()
    away.cloud.offers = Shop(fault=CloudRefusedError("AUTH", "denied", "auth"))
    world.cloud.offers = Shop(OFFER)
    clouds: dict[str, Cloud] = {"away": away.cloud, "local": world.cloud}
    await keep_catalogue_fresh(replaced(world.doors, clouds=FixedClouds(clouds)))
    trouble = (await account(world, "away")).sync_trouble
    assert trouble is not None
    assert (trouble.kind, (await account(world)).offers) == ("auth", (L4,))


async def test_a_bug_of_one_adapter_does_not_stop_the_others() -> None:
    world, broken = World(), World()
    broken.cloud.offers = Shop(fault=KeyError("price"))
    world.cloud.offers = Shop(OFFER)
    clouds: dict[str, Cloud] = {"broken": broken.cloud, "local": world.cloud}
    await keep_catalogue_fresh(replaced(world.doors, clouds=FixedClouds(clouds)))
    assert (await account(world)).offers == (L4,)


async def test_who_asks_is_answered_even_where_nothing_is_offered() -> None:
    world = World()
    account_id = provider_account_id_of(ACME, "local")
    await world.command(PROVIDER_ACCOUNT, account_id, RequestCatalogueSync(provider="local"))
    await world.settle(sync_catalogue_on_catalogue_sync_requested, "provider_account", account_id)
    assert await world.types("provider_account", account_id) == ["CatalogueSyncRequested", "CatalogueSynced"]


async def test_who_asks_for_an_account_without_credentials_is_told() -> None:
    world = World()
    account_id = provider_account_id_of(ACME, "scaleway")
    await world.command(PROVIDER_ACCOUNT, account_id, RequestCatalogueSync(provider="scaleway"))
    await world.settle(sync_catalogue_on_catalogue_sync_requested, "provider_account", account_id)
    assert await world.types("provider_account", account_id) == ["CatalogueSyncRequested", "CatalogueSyncFailed"]
