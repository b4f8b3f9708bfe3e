"""The simulated Scaleway as a program: one line that says how to reach it, then it serves until SIGINT or SIGTERM.

Its folder keeps the account, so that stored credentials stay good. The surprising rule: it keeps nothing else; what was
rented before a restart is gone, as if everything had been deleted at the provider.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from infra.providers.local_files import PRIVATE_FOLDER, write_private
from infra.simulated_clouds.scaleway.resources import Account
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, new_account, simulated_scaleway


class Card(msgspec.Struct, frozen=True):
    """All that a client needs; the names are those of the credentials in the settings."""

    api_url: str
    access_key: str
    secret_key: str
    project_id: str
    organization_id: str


async def serve(*, port: int, speed: float, folder: Path, show: Callable[[Card], None]) -> None:
    """Returns after SIGINT or SIGTERM, when every agent has ended.

    Args:
        port: 0 takes a free one.
        speed: simulated seconds in a real one.
        folder: the account's and the machines'; private.
        show: told once it listens.

    Raises:
        OSError: the port is taken, or the folder cannot be used.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    account = _kept_account(folder)
    async with simulated_scaleway(speed=speed, agents=folder / "machines", port=port, account=account) as running:
        show(_card(running))
        await stop.wait()


def _kept_account(folder: Path) -> Account:
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    kept = folder / "account.json"
    try:
        return msgspec.json.decode(kept.read_bytes(), type=Account)
    except (FileNotFoundError, msgspec.MsgspecError):
        account = new_account()
        write_private(kept, msgspec.json.encode(account))
        return account


def _card(running: SimulatedScaleway) -> Card:
    owner = running.account
    return Card(running.url, owner.access_key, owner.secret_key, owner.project_id, owner.organization_id)
