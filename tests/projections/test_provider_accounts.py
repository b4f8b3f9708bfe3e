"""The read models `provider_accounts` and `catalogue`: what looks found, what went wrong, what is for rent."""

from typing import Any

from msgspec.structs import replace

from domain.ids import PLATFORM
from domain.provider_account_events import (
    CatalogueSynced,
    CatalogueSyncFailed,
    CatalogueSyncRequested,
    DeletionHalted,
    ReconciliationCompleted,
    ReconciliationFailed,
    ReconciliationRequested,
    StrayDeleteIntended,
)
from projections.catalogue import CATALOGUE, list_offers
from projections.provider_accounts import PROVIDER_ACCOUNTS, ProviderAccountView, list_provider_accounts
from tests.examples import L4, example
from tests.projections.grammar import Story, projected

AT = "scaleway"
ASKED = ReconciliationRequested(provider=AT)
DONE = ReconciliationCompleted(provider=AT, servers=3, volumes=2, strays=1, unrecorded=0, missed=0, answered=True)
FAILED = ReconciliationFailed(provider=AT, call="list_servers", kind="auth", message="denied", answered=True)


async def account_after(postgres_url: str, *events: object) -> ProviderAccountView:
    story = Story().happened("acme", "a-1", *events)
    async with projected(postgres_url, PROVIDER_ACCOUNTS, story.entries) as connection:
        (shown,) = await list_provider_accounts(connection, "acme")
    return shown


async def offers_after(postgres_url: str, story: Story, *asked: Any) -> list[tuple[str, str, str, int | None]]:
    async with projected(postgres_url, CATALOGUE, story.entries) as connection:
        found = await list_offers(connection, *asked)
    return [(one.provider, one.zone, one.instance_type, one.price_eur_micros_per_hour) for one in found]


async def test_a_request_stands_until_it_is_answered(postgres_url: str) -> None:
    assert (await account_after(postgres_url, ASKED)).reconcile_requested_at is not None
    assert (await account_after(postgres_url, ASKED, replace(DONE, answered=False))).reconcile_requested_at is not None
    for answer in (DONE, FAILED):
        assert (await account_after(postgres_url, ASKED, answer)).reconcile_requested_at is None


async def test_the_counts_are_those_of_the_last_look(postgres_url: str) -> None:
    shown = await account_after(postgres_url, DONE, replace(DONE, servers=5, strays=0))
    assert (shown.servers, shown.volumes, shown.strays, shown.missed) == (5, 2, 0, 0)


async def test_a_trouble_stands_until_that_call_works_again(postgres_url: str) -> None:
    shown = await account_after(postgres_url, DONE, FAILED)
    assert (shown.failed_call, shown.failure_kind, shown.failure, shown.servers) == (
        "list_servers",
        "auth",
        "denied",
        3,
    )
    assert (await account_after(postgres_url, FAILED, DONE)).failure == ""
    volumes = replace(FAILED, call="list_volumes")
    assert (await account_after(postgres_url, volumes, replace(DONE, volumes=None))).failure == "denied"
    assert (await account_after(postgres_url, volumes, DONE)).failure == ""


async def test_deletions_are_counted_and_their_halt_is_shown(postgres_url: str) -> None:
    intended, halted = example(StrayDeleteIntended), example(DeletionHalted)
    shown = await account_after(postgres_url, intended, intended, halted)
    assert (shown.strays_deleted, shown.halted_at is not None) == (2, True)


async def test_a_sync_is_shown_from_its_request_to_its_end(postgres_url: str) -> None:
    asked, synced = CatalogueSyncRequested(provider=AT), CatalogueSynced(provider=AT)
    failed = CatalogueSyncFailed(provider=AT, kind="transient", message="HTTP 503")
    assert (await account_after(postgres_url, asked)).sync_requested_at is not None
    broken = await account_after(postgres_url, asked, failed)
    assert (broken.sync_requested_at, broken.sync_failure) == (None, "HTTP 503")
    mended = await account_after(postgres_url, asked, failed, synced)
    assert (mended.sync_failure, mended.synced_at is not None) == ("", True)


async def test_a_neighbour_has_accounts_of_its_own(postgres_url: str) -> None:
    story = Story().happened("acme", "a-1", DONE)
    async with projected(postgres_url, PROVIDER_ACCOUNTS, story.entries) as connection:
        assert await list_provider_accounts(connection, "globex") == []


async def test_offers_are_what_was_said_last_of_each_place(postgres_url: str) -> None:
    dearer, elsewhere = replace(L4, price_eur_micros_per_hour=800_000), replace(L4, zone="fr-par-1")
    story = Story().happened("acme", "a-1", CatalogueSynced(provider=AT, offers=(elsewhere, L4)))
    assert await offers_after(postgres_url, story, "acme") == [
        (AT, "fr-par-1", "L4-1-24G", 750_000),
        (AT, "fr-par-2", "L4-1-24G", 750_000),
    ]
    story.happened("acme", "a-1", CatalogueSynced(provider=AT, offers=(dearer,), withdrawn=(elsewhere.key,)))
    assert await offers_after(postgres_url, story, "acme") == [(AT, "fr-par-2", "L4-1-24G", 800_000)]


async def test_what_is_withdrawn_and_offered_again_within_a_batch_is_there(postgres_url: str) -> None:
    gone = CatalogueSynced(provider=AT, withdrawn=(L4.key,))
    back = CatalogueSynced(provider=AT, offers=(L4,))
    story = Story().happened("acme", "a-1", back, gone, back)
    assert len(await offers_after(postgres_url, story, "acme")) == 1


async def test_an_organisation_rents_from_its_own_accounts_and_the_platforms(postgres_url: str) -> None:
    story = Story().happened("acme", "a-1", CatalogueSynced(provider=AT, offers=(L4,)))
    unpriced = replace(L4, zone="local", price_eur_micros_per_hour=None)
    story.happened(PLATFORM, "a-2", CatalogueSynced(provider="local", offers=(unpriced,)))
    theirs = [("local", "local", "L4-1-24G", None)]
    assert await offers_after(postgres_url, story, "globex") == theirs
    assert await offers_after(postgres_url, story, "acme", "local") == theirs
    assert len(await offers_after(postgres_url, story, "acme")) == 2
