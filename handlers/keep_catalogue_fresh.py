"""Every hour, and at the start: what each account offers, at what price, and whether there is any."""

from collections.abc import Sequence

import structlog

from handlers.ports import Doors, Waking
from handlers.sync_catalogue import sync_catalogue

PERIOD_S = 3600.0

_log = structlog.get_logger(__name__)


async def keep_catalogue_fresh(doors: Doors) -> Sequence[Waking]:
    """One account after another: nobody waits for this, and its calls are many."""
    for account in await doors.clouds.accounts():
        try:
            cloud = await doors.clouds.of(account.organization, account.provider)
            if cloud is not None and cloud.offers is not None:
                await sync_catalogue(account, doors)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the other accounts are asked
            _log.warning("catalogue_not_synced", provider=account.provider, error=repr(fault))
    return ()
