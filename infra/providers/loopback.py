"""A loopback address of its own for each local server, as if it were a machine: 127.x.y.z with x >= 1.

Linux answers on all of 127.0.0.0/8. Where it does not (macOS), servers share 127.0.0.1 and differ by their ports.
"""

import errno
import socket
from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple

from handlers.cloud_ports import CloudRefusedError

AGENT_PORT = 8080
ENGINE_PORT = 8000
SHARED_ADDRESS = "127.0.0.1"
TRIES = 64
FIRST_SHARED_PORT = 20_000
SHARED_PORTS = 20_000


class Place(NamedTuple):
    """Where one server's agent and engine listen."""

    address: str
    agent_port: int
    engine_port: int


def choose_place(server_id: str, taken: Collection[Place]) -> Place:
    """The first candidate of this server that neither another server nor a stranger uses.

    Raises:
        CloudRefusedError: none of TRIES candidates is free.
    """
    own_addresses = _can_bind(_own_place(server_id, 0)) is not None
    for attempt in range(TRIES):
        place = _own_place(server_id, attempt) if own_addresses else _shared_place(server_id, attempt)
        if place not in taken and _can_bind(place):
            return place
    raise CloudRefusedError("PROVIDER_OUT_OF_STOCK", f"None of {TRIES} loopback addresses is free on this machine.")


def _own_place(server_id: str, attempt: int) -> Place:
    x, y, z = sha256(f"{server_id}/{attempt}".encode()).digest()[:3]
    return Place(f"127.{1 + x % 254}.{y}.{1 + z % 254}", AGENT_PORT, ENGINE_PORT)


def _shared_place(server_id: str, attempt: int) -> Place:
    number = int.from_bytes(sha256(f"{server_id}/{attempt}".encode()).digest()[:4])
    port = FIRST_SHARED_PORT + 2 * (number % (SHARED_PORTS // 2))
    return Place(SHARED_ADDRESS, port, port + 1)


def _can_bind(place: Place) -> bool | None:
    """False when somebody listens there; None when this machine does not have the address."""
    for port in (place.agent_port, place.engine_port):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((place.address, port))
            except OSError as error:
                return None if error.errno == errno.EADDRNOTAVAIL else False
    return True
