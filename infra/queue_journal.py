"""The tickets of waiting requests on disk, for the next process: one small file in each gateway's own folder.

    tickets.py ──a line as it happens──> <data>/gateway/<n>/tickets ──the gateway died──> read by another, and removed

Handed to the operating system at once and never synced: it outlives the process, which is what it is for, and a power
cut costs clients their place in a queue, which has gone with the machine anyway. The surprising rule: whatever the
disk does, nothing is raised; a ticket is a courtesy.
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import structlog

from gateway.tickets import Tickets
from infra.account_folders import ADOPT_INTERVAL_S, MAX_PROCESSES
from infra.cancellation import heed_cancellation
from infra.spool import locked

FILE = "tickets"
LONG_BYTES = 4 * 1024 * 1024
"""From here on it is written anew. All tickets that may be remembered are less than half of it."""

_log = structlog.get_logger(__name__)


class QueueJournal:
    """Implements gateway.tickets.Journal.

    Args:
        folder: this process's own; it holds the folder's lock.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._fd = -1
        self._length = 0
        self._is_failing = False

    def append(self, line: bytes) -> None:
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._length = os.fstat(self._fd).st_size
            self._length += os.write(self._fd, line + b"\n")
            self._is_failing = False
        except OSError as error:
            self._fail(error)

    @property
    def is_long(self) -> bool:
        return self._length > LONG_BYTES

    def replace(self, lines: Iterable[bytes]) -> None:
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(b"".join(line + b"\n" for line in lines))
            new.chmod(0o600)
            new.replace(self._path)
        except OSError as error:
            self._fail(error)
        self.close()
        self._length = 0  # told again by the next append

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fail(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning("tickets_not_noted", reason=str(error))


def restore_tickets(tickets: Tickets, root: Path, own: Path) -> int:
    """Takes in what this folder's last owner noted, and other dead ones; returns how many files had something.

    Args:
        tickets: what they become.
        root: of all the data folder's gateways.
        own: this process's folder, whose lock it holds.
    """
    return _restore(tickets, own / FILE) + adopt_tickets(tickets, root, own)


def adopt_tickets(tickets: Tickets, root: Path, own: Path) -> int:
    """Takes in what other gateways noted that have died since.

    Each ticket is noted anew in the journal of `tickets` before the dead one's file goes: dying on the way loses none.
    """
    found = 0
    for number in range(MAX_PROCESSES):
        folder = root / str(number)
        if folder == own or not (folder / FILE).exists():
            continue
        try:
            lock = locked(folder)
        except OSError:  # its gateway lives, and so do its requests
            continue
        try:
            found += _restore(tickets, folder / FILE)
            (folder / FILE).unlink()
        except OSError as error:
            _log.warning("tickets_not_removed", folder=folder.name, reason=str(error))
        finally:
            os.close(lock)
    return found


async def keep_tickets_adopted(tickets: Tickets, root: Path, own: Path) -> None:
    """Every ADOPT_INTERVAL_S, until cancelled."""
    while True:
        heed_cancellation()
        await asyncio.sleep(ADOPT_INTERVAL_S)
        adopt_tickets(tickets, root, own)


def _restore(tickets: Tickets, path: Path) -> int:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    except OSError as error:
        _log.warning("tickets_not_read", path=str(path), reason=str(error))
        return 0
    tickets.restore(lines)
    return 1 if lines else 0
