"""Asks an account what can be rented there now, at what price and stock, and records what changed."""

import asyncio

import msgspec

from domain.message import Context
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import ProviderAccountCommand, RecordCatalogueSyncFailed, RecordOffers
from domain.provider_account_events import Offer
from handlers.cloud_ports import Account, Cloud, CloudRefusedError
from handlers.cloud_ports import Offer as ListedOffer
from handlers.ports import Doors
from handlers.provider_words import trouble_of

SYNC_LIMIT_S = 120.0
ACTOR = "system:handlers"


async def sync_catalogue(account: Account, doors: Doors) -> None:
    """What goes wrong at the provider is recorded and not raised. A provider without offers has a fixed catalogue.

    Raises:
        OSError: the log cannot be reached.
    """
    account_id = provider_account_id_of(account.organization, account.provider)
    command = await _asked(account, doors)
    context = Context(actor=ACTOR, correlation="")
    await doors.dispatch(PROVIDER_ACCOUNT, account.organization, account_id, command, context)


async def _asked(account: Account, doors: Doors) -> ProviderAccountCommand:
    try:
        async with asyncio.timeout(SYNC_LIMIT_S):
            cloud = await doors.clouds.of(account.organization, account.provider)
            if cloud is None:
                words = "There are no credentials for this provider."
                return RecordCatalogueSyncFailed(provider=account.provider, kind="auth", message=words)
            return RecordOffers(provider=account.provider, offers=await _offers(cloud))
    except (CloudRefusedError, OSError) as fault:
        trouble = trouble_of(fault)
        return RecordCatalogueSyncFailed(provider=account.provider, kind=trouble.kind, message=trouble.message)


async def _offers(cloud: Cloud) -> tuple[Offer, ...]:
    listed = await cloud.offers.list_offers() if cloud.offers else ()
    return tuple(_recorded(offer) for offer in listed)


def _recorded(offer: ListedOffer) -> Offer:
    return Offer(**msgspec.structs.asdict(offer))
