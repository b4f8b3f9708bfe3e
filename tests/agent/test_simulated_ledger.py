"""What the simulated engine counts of a stream that ends early."""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from agent.simulated_ledger import Entry, counting

PIECE = b"data: x\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)


class LeftError(Exception):
    """Whatever ends a stream."""


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The engine's end of a connection, and the gateway's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gateways = socket.create_connection(listener.getsockname())
        engines, _ = listener.accept()
    with contextlib.closing(engines), contextlib.closing(gateways):
        yield engines, gateways


def sends(engines: socket.socket, entry: Entry, *, before: int, after: int, gateways: socket.socket) -> None:
    """A stream whose gateway goes away after the first tokens."""
    with contextlib.suppress(LeftError, ConnectionError), counting(entry, engines) as count:
        for _ in range(before):
            count(len(PIECE), 1)
            engines.sendall(CHUNK)
        gateways.recv(4096)
        gateways.close()
        for _ in range(after):
            count(len(PIECE), 1)
            engines.sendall(CHUNK)
        raise LeftError


def test_what_was_taken_counts(line: tuple[socket.socket, socket.socket]) -> None:
    entry = Entry(prompt_tokens=1)
    sends(line[0], entry, before=3, after=0, gateways=line[1])
    assert entry.completion_tokens == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was never taken")
@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_a_dead_gateway_refused_is_taken_back(line: tuple[socket.socket, socket.socket], after: int) -> None:
    entry = Entry(prompt_tokens=1)
    sends(line[0], entry, before=3, after=after, gateways=line[1])
    assert entry.completion_tokens == 3


def test_what_a_connection_refuses_was_not_sent(line: tuple[socket.socket, socket.socket]) -> None:
    engines, gateways = line
    gateways.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
    entry = Entry(prompt_tokens=1)
    with contextlib.suppress(ConnectionError), counting(entry, engines) as count:
        count(len(PIECE), 1)
        engines.sendall(CHUNK)
        gateways.recv(4096)
        gateways.close()
        count(len(PIECE), 1)
        engines.sendall(CHUNK)
    assert entry.completion_tokens == 1


def test_a_whole_stream_keeps_its_count(line: tuple[socket.socket, socket.socket]) -> None:
    entry = Entry(prompt_tokens=1)
    with counting(entry, line[0]) as count:
        count(len(PIECE), 2)
        line[0].sendall(CHUNK)
    assert entry.completion_tokens == 2
