"""Somebody wants the catalogue fresh now, rather than at the next full hour."""

from domain.provider_account import PROVIDER_ACCOUNT
from handlers.cloud_ports import Account
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger
from handlers.sync_catalogue import sync_catalogue

NAME = "sync_catalogue_on_catalogue_sync_requested"


async def sync_catalogue_on_catalogue_sync_requested(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(PROVIDER_ACCOUNT, trigger.organization, trigger.id)
    if loaded.state.sync_requested_at is not None:
        await sync_catalogue(Account(trigger.organization, loaded.state.provider), doors)
        loaded = await doors.load(PROVIDER_ACCOUNT, trigger.organization, trigger.id)
    return Done(version=loaded.version)
