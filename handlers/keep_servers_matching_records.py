"""Compares every account with its records, both ways, every 20 s: the leak that nobody else would notice.

    accounts ──> each by itself, a few at a time ──> reconcile_account.py

One account's failure or silence never stops the others. It remembers nothing: see reconcile_account.py.
"""

import asyncio
from collections.abc import Sequence

import structlog

from handlers.cloud_ports import Account
from handlers.ports import Doors, Waking
from handlers.reconcile_account import reconcile

PERIOD_S = 20.0
"""With the grace of 60 s, a server that nobody wants lives at most two minutes."""
LOOKED_AT_TOGETHER = 8

_log = structlog.get_logger(__name__)


async def keep_servers_matching_records(doors: Doors) -> Sequence[Waking]:
    turns = asyncio.Semaphore(LOOKED_AT_TOGETHER)

    async def look(account: Account) -> None:
        async with turns:
            try:
                await reconcile(account, doors)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the other accounts are looked at
                _log.warning("account_not_looked_at", provider=account.provider, error=repr(fault))

    await asyncio.gather(*(look(account) for account in await doors.clouds.accounts()))
    return ()
