"""What a tunnel's connection carries once it is upgraded: frames of a kind, a length and that many bytes.

    idle:  relay ── PING ──> agent ── PONG ──> relay          relay ── END ──> agent: closed, not needed any more
    busy:  relay ── OPEN engine|agent ──> agent ── OPENED | REFUSED ──> DATA both ways ──> END both ways ──> idle again

END is a half-close. It is a frame of its own because TLS has none and proxies do not pass it on. The surprising rule: a
connection that carried a request to its END on both sides is as good as new; any other end closes it.
"""

import asyncio
import socket
import struct
from typing import Literal, NamedTuple

Kind = Literal["ping", "pong", "open", "opened", "refused", "data", "end"]
Target = Literal["engine", "agent"]

MAX_PAYLOAD_BYTES = 64 * 1024
_PROBE_AFTER_S, _PROBE_EVERY_S, _PROBES = 15, 5, 3
_HEAD = struct.Struct("!cI")
_LETTERS: dict[Kind, bytes] = {
    "ping": b"P",
    "pong": b"Q",
    "open": b"O",
    "opened": b"A",
    "refused": b"R",
    "data": b"D",
    "end": b"E",
}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


class BrokenTunnelError(OSError):
    """The other side closed the connection in mid-frame, or speaks another language."""


class Frame(NamedTuple):
    kind: Kind
    payload: bytes


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """At most MAX_PAYLOAD_BYTES of payload."""
    return _HEAD.pack(_LETTERS[kind], len(payload)) + payload


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame. Raises BrokenTunnelError, and OSError when the connection fails."""
    try:
        letter, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        kind = _KINDS.get(letter)
        if kind is None or length > MAX_PAYLOAD_BYTES:
            raise BrokenTunnelError(f"a frame of kind {letter!r} with {length} bytes")
        return Frame(kind, await reader.readexactly(length) if length else b"")
    except asyncio.IncompleteReadError as error:
        raise BrokenTunnelError("the other side closed the connection") from error


def notice_vanished_peer(writer: asyncio.StreamWriter) -> None:
    """A peer that lost its power, or a router that forgot us, sends no farewell: the kernel asks."""
    peer: socket.socket = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", 1000 * (_PROBE_AFTER_S + _PROBES * _PROBE_EVERY_S)),
    ):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
