"""Where each gateway process keeps its accounts: a numbered folder of its own, and what becomes of a dead one's.

    <data>/gateway/0/  lock  usage-*.jsonl (spool.py)  running (running_journal.py)      one live process, or none
                   1/  ...                                                    a second one, while the first drains
                   spool/  as the one gateway had it before there were several; adopted like any dead one's

The lock says whether the owner lives. Whoever lives looks at the others' folders every few seconds and takes over what
a dead one owes: requests that were running become records, files of records move. The surprising rule: an adopter that
dies half-way may leave a record in two places. It has one request id, so it counts once.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from domain.usage import UsageRecord
from infra.cancellation import heed_cancellation
from infra.finishing import note_finishing
from infra.running_journal import RunningJournal, left_running
from infra.spool import FileSpool, SpoolInUseError, locked, segments_in

MAX_PROCESSES = 16
"""Gateways of one data folder that may live at the same time: the serving one, and those that still drain."""
ADOPT_INTERVAL_S = 5.0
JOURNAL = "running"
OLD_FOLDER = "spool"

_log = structlog.get_logger(__name__)


class Accounts:
    """One process's folder, and its way to those of the dead; made by `take_accounts`.

    Attributes:
        folder: this process's own; private to the account.
        spool, journal: for gateway.meter.Meter; what this folder's last owner left stands in the spool already.
    """

    def __init__(self, root: Path, folder: Path, spool: FileSpool) -> None:
        self.spool = spool
        self._root = root
        self.folder = folder
        if owed := _owed(folder):
            spool.append(owed)
            spool.sync()
        self.journal = RunningJournal(folder / JOURNAL)
        note_finishing(folder, 0)

    async def adopt(self) -> int:
        """Takes over what dead gateways left; returns how many folders had something.

        Raises:
            OSError: the disk refuses; what was not taken over stays where it is.
        """
        adopted = 0
        for folder in _others(self._root, self.folder):
            with _if_dead(folder) as is_dead:
                if is_dead:
                    await self._take_over(folder)
                    adopted += 1
        return adopted

    async def keep_adopting(self, on_adopted: Callable[[], None]) -> None:
        """At once and then every ADOPT_INTERVAL_S, until cancelled."""
        while True:
            heed_cancellation()
            try:
                if await self.adopt():
                    on_adopted()
            except OSError as error:
                _log.warning("accounts_not_adopted", reason=str(error))
            await asyncio.sleep(ADOPT_INTERVAL_S)

    def close(self) -> None:
        self.journal.close()
        self.spool.close()

    async def _take_over(self, folder: Path) -> None:
        """Its running requests are records on the disk before its journal goes; its files move last."""
        if owed := await asyncio.to_thread(_owed, folder):
            self.spool.append(owed)
            await asyncio.to_thread(self.spool.sync)
        (folder / JOURNAL).unlink(missing_ok=True)
        note_finishing(folder, 0)
        self.spool.adopt(segments_in(folder))
        _log.info("accounts_adopted", folder=folder.name, running=len(owed))


def take_accounts(root: Path) -> Accounts:
    """The first folder that no living process has.

    Raises:
        SpoolInUseError: MAX_PROCESSES gateways live on this data folder.
        OSError: the disk has no room, or the folder cannot be written to.
    """
    for number in range(MAX_PROCESSES):
        folder = root / str(number)
        try:
            spool = FileSpool(folder)
        except SpoolInUseError:
            continue
        return Accounts(root, folder, spool)
    raise SpoolInUseError(f"{MAX_PROCESSES} gateways run on {root} already")


def _others(root: Path, own: Path) -> list[Path]:
    names = (OLD_FOLDER, *(str(number) for number in range(MAX_PROCESSES)))
    return [root / name for name in names if root / name != own and _has_something(root / name)]


def _has_something(folder: Path) -> bool:
    return folder.is_dir() and bool((folder / JOURNAL).exists() or segments_in(folder))


@contextmanager
def _if_dead(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock meanwhile; False when its owner lives."""
    try:
        lock = locked(folder)
    except SpoolInUseError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)


class _Line(msgspec.Struct):
    request_id: str


_line_decoder = msgspec.json.Decoder(_Line)


def _owed(folder: Path) -> Sequence[bytes]:
    """A record for each request that ran when the folder's owner died, but for those that its spool has."""
    left = dict(left_running(folder / JOURNAL))
    if left:
        _log.warning("requests_outlived_their_gateway", folder=folder.name, requests=len(left))
        _forget_spooled(left, segments_in(folder))
    return [msgspec.json.encode(record) for record in left.values()]


def _forget_spooled(left: dict[str, UsageRecord], segments: Sequence[Path]) -> None:
    for segment in segments:
        with segment.open("rb") as lines:
            for line in lines:
                try:
                    left.pop(_line_decoder.decode(line).request_id, None)
                except (msgspec.MsgspecError, UnicodeError):
                    continue  # torn by a power cut; whoever publishes the file says so
