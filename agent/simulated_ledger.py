"""What the simulated engine did for each request, by the id that the request came with: the engine's own count.

It is what the gateway's accounts are held against, so it counts a token when it is handed to the connection, and not
when it was thought of. The surprising rule: a token that nobody took is taken back. It was sent to a gateway that had
just died, whose kernel refused it.
"""

import contextlib
import fcntl
import os
import socket
import struct
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

MAX_REQUESTS = 20_000
"""The newest are kept."""
MAX_ON_THE_WAY = 1_000
"""Tokens of one stream that are remembered with their size; a connection that dies takes a few with it."""
_SIOCOUTQ = 0x5411
"""Bytes that were sent and not acknowledged; see Linux' tcp(7)."""
_TCP_CLOSE = 7
"""First byte of TCP_INFO: reset, or gone for good. See include/net/tcp_states.h."""

Count = Callable[[int, int], None]
"""(size in bytes, tokens in it)"""


class Entry(msgspec.Struct, kw_only=True):
    """One request; `ended` is "" while it runs, "abort" when its client went away."""

    prompt_tokens: int
    completion_tokens: int = 0
    ended: Literal["", "stop", "length", "tool_calls", "abort"] = ""


class Ledger:
    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def open(self, request_id: str, prompt_tokens: int) -> Entry:
        """A new line; one without an id is not kept, and one that comes again begins anew."""
        entry = Entry(prompt_tokens=prompt_tokens)
        if request_id:
            self._entries[request_id] = entry
            self._entries.move_to_end(request_id)
            while len(self._entries) > MAX_REQUESTS:
                self._entries.popitem(last=False)
        return entry

    def find(self, request_id: str) -> Entry | None:
        return self._entries.get(request_id)


@contextmanager
def counting(entry: Entry, connection: Any) -> Iterator[Count]:
    """Counts what is sent within the block, chunk by chunk, each right before it is written.

    Args:
        entry: gets the tokens.
        connection: the stream's socket, or what asyncio gives for it.

    Raises:
        ConnectionResetError: from what is yielded: the connection is dead, which asyncio's own write would not say.
    """
    sent: deque[tuple[int, int]] = deque(maxlen=MAX_ON_THE_WAY)

    def count(size_bytes: int, tokens: int) -> None:
        entry.completion_tokens += tokens
        sent.append((size_bytes + len(f"{size_bytes:x}\r\n\r\n"), tokens))
        if _is_dead(line):
            raise ConnectionResetError("the other end is gone")

    with contextlib.closing(socket.socket(fileno=os.dup(connection.fileno()))) as line:  # outlives the connection's own
        try:
            yield count
        except BaseException as error:
            if isinstance(error, ConnectionError) and sent:  # refused by a connection that is closing: it was not sent
                entry.completion_tokens -= sent.pop()[1]
            refused_bytes = _refused_bytes(line)
            while refused_bytes > 0 and sent:
                size_bytes, tokens = sent.pop()
                entry.completion_tokens -= tokens
                refused_bytes -= size_bytes
            raise


def _is_dead(line: socket.socket) -> bool:
    """False also where the system cannot tell."""
    return sys.platform == "linux" and line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def _refused_bytes(line: socket.socket) -> int:
    """What the other end's kernel never took of a connection that is dead; 0 while it lives."""
    if not _is_dead(line):
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(line, _SIOCOUTQ, bytes(4)))
    return int(count)
