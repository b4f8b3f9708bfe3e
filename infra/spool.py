"""Usage records on disk until the stream has them: JSON lines in numbered segment files, oldest first.

    <folder>/usage-00000003.jsonl   read and removed from the front
             usage-00000004.jsonl   appended to; emptied whenever all of it has been removed

Each start opens a new segment and leaves the older ones to be read, so a torn last line is never written on to. The
surprising rule: removal is remembered only in memory. A crash shows some records again, and their ids make that
harmless; in return, removing costs no disk access.
"""

import fcntl
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment is closed at this size, so that a long outage's files are freed piece by piece."""
MAX_SPOOL_BYTES = 1024 * 1024 * 1024
"""About two million records: what a gateway may owe the stream."""
READ_BYTES = 2 * 1024 * 1024
"""Read at once; about as long as a batch of records needs."""
LOCK = "lock"
"""Never deleted: who locks a file that another has just unlinked shares the folder with whoever makes it anew."""


class SpoolInUseError(OSError):
    """Another process writes to this folder."""


class FileSpool:
    """Implements gateway.meter.Spool.

    Args:
        folder: made when absent; held exclusively until `close`.
        max_bytes: size from which `is_full` says so; what is written nevertheless is kept.

    Raises:
        SpoolInUseError: another gateway runs on the same folder.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_SPOOL_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._lock_fd = locked(folder)
        self._segments = deque(segments_in(folder))
        self._older_bytes = sum(path.stat().st_size for path in self._segments)
        self._next_number = 1 + max((int(path.stem.removeprefix("usage-")) for path in self._segments), default=0)
        self._offset = 0
        self._shown: list[int] = []
        self._sync_lock = Lock()
        self._to_sync: list[int] = []
        self._active_bytes = 0
        self._fd = self._open_segment()

    @property
    def size_bytes(self) -> int:
        """What is still owed to the stream."""
        return self._older_bytes + self._active_bytes - self._offset

    @property
    def is_full(self) -> bool:
        return self.size_bytes >= self._max_bytes

    def append(self, records: Sequence[bytes]) -> None:
        if self._active_bytes >= self._segment_bytes:
            self._rotate()
        lines = b"\n".join((*records, b""))
        written = os.write(self._fd, lines)
        if written != len(lines):
            os.ftruncate(self._fd, self._active_bytes)
            raise OSError(f"the disk took {written} of {len(lines)} bytes")
        self._active_bytes += written

    def sync(self) -> None:
        with self._sync_lock:
            fds = [os.dup(self._fd), *self._to_sync]
            self._to_sync = []
        failure: OSError | None = None
        for fd in fds:
            try:
                os.fsync(fd)
            except OSError as error:
                failure = error
            os.close(fd)
        if failure is not None:
            raise failure

    def oldest(self, limit: int) -> Sequence[bytes]:
        while True:
            path = self._segments[0]
            lines = _lines_at(path, self._offset, limit)
            if lines or len(self._segments) == 1:
                self._shown = [len(line) + 1 for line in lines]
                return lines
            self._drop_first()

    def remove(self, count: int) -> None:
        self._offset += sum(self._shown[:count])
        self._shown = self._shown[count:]
        if len(self._segments) == 1 and self._offset and self._offset == self._active_bytes:
            os.ftruncate(self._fd, 0)
            self._active_bytes = self._offset = 0

    def adopt(self, segments: Sequence[Path]) -> None:
        """Takes over what a dead gateway owes the stream; its folder must be locked, on the same disk.

        Each file moves in one step, so whoever dies here leaves each record in one folder or the other.
        """
        if segments and len(self._segments) == 1:
            self._rotate()  # the first segment is the one that `remove` counts in; it must stay the first
        for segment in segments:
            path = self._folder / f"usage-{self._next_number:08}.jsonl"
            self._next_number += 1
            self._older_bytes += segment.stat().st_size
            segment.rename(path)
            self._segments.insert(len(self._segments) - 1, path)

    def close(self) -> None:
        """Lets the folder go; an empty spool leaves no segment behind."""
        self.sync()
        os.close(self._fd)
        if self._active_bytes == 0:
            self._segments[-1].unlink(missing_ok=True)
        os.close(self._lock_fd)

    def _open_segment(self) -> int:
        path = self._folder / f"usage-{self._next_number:08}.jsonl"
        self._next_number += 1
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._segments.append(path)
        self._to_sync.append(os.open(self._folder, os.O_RDONLY))
        return fd

    def _rotate(self) -> None:
        fd = self._open_segment()
        with self._sync_lock:
            self._to_sync.append(self._fd)
            self._fd = fd
        self._older_bytes += self._active_bytes
        self._active_bytes = 0

    def _drop_first(self) -> None:
        """All of the oldest segment has been removed, except perhaps a line that was torn by a power cut."""
        path = self._segments.popleft()
        self._older_bytes -= path.stat().st_size
        path.unlink()
        self._offset = 0


def segments_in(folder: Path) -> list[Path]:
    """A spool's files, oldest first."""
    return sorted(folder.glob("usage-*.jsonl"))


def locked(folder: Path) -> int:
    """The folder's lock, held until the descriptor is closed or the process ends.

    Raises:
        SpoolInUseError: another process holds it.
    """
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise SpoolInUseError(f"another gateway writes to {folder}") from error
    return fd


def _lines_at(path: Path, offset: int, limit: int) -> list[bytes]:
    """Complete lines from `offset` on, without their newlines."""
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(fd, READ_BYTES, offset)
    finally:
        os.close(fd)
    whole, newline, _torn = data.rpartition(b"\n")
    return whole.split(b"\n")[:limit] if newline else []
