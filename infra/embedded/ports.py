"""Finds a free loopback port near the one that people expect."""

import socket

from infra.embedded.child import EmbeddedServerError

PORTS_TRIED = 100
"""A machine with this many neighbours taken has a different problem."""


def free_port(preferred: int) -> int:
    """The first port from `preferred` upward that nobody listens on, on 127.0.0.1.

    The port is free now, not reserved: bind soon, and be ready to ask again.

    Raises:
        EmbeddedServerError: none among the next PORTS_TRIED.
    """
    end = min(preferred + PORTS_TRIED, 65536)
    for port in range(preferred, end):
        if _is_free(port):
            return port
    raise EmbeddedServerError(f"no free port on 127.0.0.1 from {preferred} to {end - 1}; choose another start")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections in TIME_WAIT do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
