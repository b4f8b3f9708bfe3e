"""How a running gateway gives its listening socket to the next one, so that no connection is refused or reset.

    successor                                 predecessor, at <data>/gateway/handover-<port>.sock (mode 0600)
    loads its table, then connects ─────────> checks whose process it is
    "give" ─────────────────────────────────>
       <──────────── the socket (SCM_RIGHTS)  goes on accepting
    accepts too; "serving" ─────────────────> stops accepting, finishes what it has, ends

Both hold the same socket of the kernel, so a connection that waits in its queue is accepted by one or the other. The
surprising rule: until the word "serving" nothing has happened; whoever dies before it changes nothing.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

ANSWER_TIMEOUT_S = 5.0
"""For each word; the other side does nothing else meanwhile."""
TAKE_ATTEMPTS = 5
TAKE_PAUSE_S = 0.2
"""Between attempts: whoever is just handing over to somebody else hangs up, and that one will answer."""
BACKLOG = 8

_GIVE, _SOCKET, _SERVING = b"give\n", b"socket\n", b"serving\n"
_PEER = struct.Struct("3i")
"""Linux' ucred: pid, uid, gid."""

_log = structlog.get_logger(__name__)


class Offer:
    """A gateway's standing offer to whoever comes next; made once it serves.

    Args:
        folder: private to this account.
        listener: the socket that is given; stays open here.

    Raises:
        OSError: the offer cannot be put into the folder.
    """

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self._listener = listener
        self._path = _path(folder, listener.getsockname()[1])
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.setblocking(False)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        with _short(draft) as name:
            self._door.bind(name)
        draft.chmod(0o600)
        self._given = False
        self._door.listen(BACKLOG)
        draft.replace(self._path)  # a predecessor's offer goes in the same moment

    async def taken(self) -> None:
        """Returns when a successor serves; then this process shall stop accepting."""
        loop = asyncio.get_running_loop()
        while not self._given:
            try:
                successor, _ = await loop.sock_accept(self._door)
            except OSError as error:  # no descriptor left, say: serving is what matters
                _log.warning("handover_not_possible", reason=str(error))
                await asyncio.sleep(ANSWER_TIMEOUT_S)
                continue
            with successor:
                successor.setblocking(False)
                self._given = await self._hand_over(successor)

    def close(self) -> None:
        """No more offers. Once the socket was given, the file belongs to the successor."""
        self._door.close()
        if not self._given:
            self._path.unlink(missing_ok=True)

    async def _hand_over(self, successor: socket.socket) -> bool:
        loop = asyncio.get_running_loop()
        try:
            _require_ours(successor)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if await loop.sock_recv(successor, len(_GIVE)) != _GIVE:
                    return False  # it only looked whether somebody is here
                socket.send_fds(successor, [_SOCKET], [self._listener.fileno()])
                return await loop.sock_recv(successor, len(_SERVING)) == _SERVING
        except (OSError, TimeoutError) as error:
            _log.warning("handover_broke_off", reason=str(error) or "no answer")
            return False


class Inheritance:
    """What a successor got; ends with one of `serving` and `decline`."""

    def __init__(self, predecessor: socket.socket, listener: socket.socket) -> None:
        self.listener = listener
        self._predecessor = predecessor

    def serving(self) -> None:
        """To be said once this process accepts: the predecessor stops."""
        with self._predecessor, contextlib.suppress(OSError):  # it died: then there is nobody to tell
            self._predecessor.send(_SERVING)

    def decline(self) -> None:
        """Leaves all as it was; what the death of this process does, too."""
        self.listener.close()
        self._predecessor.close()


def is_offered(folder: Path, port: int) -> bool:
    """Whether a gateway lives that would give its socket. Blocking, for microseconds."""
    with contextlib.suppress(OSError), _connected(folder, port):
        return True
    return False


async def take(folder: Path, host: str, port: int) -> Inheritance | None:
    """The listening socket of the gateway that serves this address; None when nobody gives one."""
    for _ in range(TAKE_ATTEMPTS):
        try:
            return await asyncio.to_thread(_take, folder, host, port)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (OSError, TimeoutError) as error:
            _log.info("handover_tried_again", reason=str(error) or "no answer")
            await asyncio.sleep(TAKE_PAUSE_S)
    return None


def _take(folder: Path, host: str, port: int) -> Inheritance | None:
    predecessor = _connected(folder, port)
    try:
        _require_ours(predecessor)
        predecessor.sendall(_GIVE)
        listener = _received(predecessor)
    except BaseException:
        predecessor.close()
        raise
    inheritance = Inheritance(predecessor, listener)
    if listener.getsockname()[:2] == (socket.gethostbyname(host), port):
        return inheritance
    _log.warning("handover_declined", reason=f"the running gateway listens at {listener.getsockname()[:2]}")
    inheritance.decline()
    return None


def _received(predecessor: socket.socket) -> socket.socket:
    word, fds, _flags, _address = socket.recv_fds(predecessor, len(_SOCKET), 1)
    if word != _SOCKET or not fds:
        raise ConnectionAbortedError("the running gateway hung up")
    listener = socket.socket(fileno=fds[0])
    listener.setblocking(False)
    return listener


def _connected(folder: Path, port: int) -> socket.socket:
    predecessor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    predecessor.settimeout(ANSWER_TIMEOUT_S)
    try:
        with _short(_path(folder, port)) as name:
            predecessor.connect(name)
    except BaseException:
        predecessor.close()
        raise
    return predecessor


def _require_ours(peer: socket.socket) -> None:
    """The same account at the other end. Where the system cannot tell, the folder's mode has to do.

    Raises:
        PermissionError: it is another's.
    """
    if sys.platform != "linux":
        return
    pid, uid, _gid = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid != os.geteuid():
        raise PermissionError(f"process {pid} of account {uid} wants to pass a listening socket")


def _path(folder: Path, port: int) -> Path:
    return folder / f"handover-{port}.sock"


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits into an address of at most 107 bytes, however deep the data folder lies."""
    if sys.platform != "linux":
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
