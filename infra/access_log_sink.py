"""Where the access log's lines go: standard output, or a file that others may move away at any time.

    "off" ──> None        "stdout" ──> pieces that a pipe takes whole        a path ──> opened, appended, closed

The surprising rule: a pipe that nobody reads is given up after a second. A thread that waited for it for ever would
keep the process from ending.
"""

import os
import select
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

STDOUT_PATIENCE_S = 1.0
MODE = 0o600


def access_log_sink(setting: str) -> Callable[[bytes], None] | None:
    """What writes whole lines; None: there shall be no access log.

    Args:
        setting: INVENTIV_ACCESS_LOG: "off", "stdout" or a path.

    Raises:
        OSError: the file cannot be written.
    """
    if setting == "off":
        return None
    if setting == "stdout":
        return partial(write_to_pipe, sys.stdout.fileno())
    path = Path(setting).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    append_to_file(path, b"")
    return partial(append_to_file, path)


def append_to_file(path: Path, lines: bytes) -> None:
    """Opened each time, so that a file which was moved away (logrotate) is begun anew."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, MODE)
    try:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def write_to_pipe(fd: int, lines: bytes) -> None:
    """In pieces of whole lines that a pipe takes without waiting and without mixing them with other writers'.

    Raises:
        TimeoutError: nobody has read for STDOUT_PATIENCE_S; the rest is not written.
    """
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    for piece in _pieces(lines):
        if not poller.poll(1000 * STDOUT_PATIENCE_S):
            raise TimeoutError("nobody reads standard output")
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _pieces(lines: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + select.PIPE_BUF) + 1
        end = end or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
