"""Files that are there as a whole or not at all, private to their owner."""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path


def replace_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Old or new, never half: also after a power cut, and when two processes of the folder write it.

    Raises:
        BlockingIOError: another process writes it at this moment.
        OSError: the disk; the old file stands.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_and_rename(path, pieces)


def _write_and_rename(path: Path, pieces: Iterable[bytes]) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")  # two gateways share a folder while one takes over from the other
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
