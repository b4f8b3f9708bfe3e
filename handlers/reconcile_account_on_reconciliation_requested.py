"""Somebody wants to know now: an account is looked at at once, rather than at the next round."""

from domain.provider_account import PROVIDER_ACCOUNT
from handlers.cloud_ports import Account
from handlers.outcome import Done, Outcome, RetryAfter, pause_s
from handlers.ports import Doors, Trigger
from handlers.reconcile_account import reconcile

NAME = "reconcile_account_on_reconciliation_requested"


async def reconcile_account_on_reconciliation_requested(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(PROVIDER_ACCOUNT, trigger.organization, trigger.id)
    if loaded.state.reconciliation_requested_at is None:
        return Done(version=loaded.version)
    await reconcile(Account(trigger.organization, loaded.state.provider), doors)
    after = await doors.load(PROVIDER_ACCOUNT, trigger.organization, trigger.id)
    if after.state.reconciliation_requested_at is not None:  # asked again meanwhile
        return RetryAfter(pause_s(trigger.attempt), "asked again", after.version)
    return Done(version=after.version)
