"""The role `tunnel`: the relay for agents that nobody can reach, until SIGTERM or SIGINT.

It needs the API and nothing else: neither NATS nor Postgres nor a secret.
"""

import asyncio
import os
import signal
import socket

import structlog

from infra.environment import Environment
from infra.processes.roles import say_ready
from infra.tunnel.authority import Authority, ask_api
from infra.tunnel.lot import Lot
from infra.tunnel.relay import Relay, relaying

ROLE = "tunnel"
BACKLOG = 2048

_log = structlog.get_logger(__name__)


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, an address is taken, or the API's is none.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        authority = Authority(ask_api(environment.api_url))
    except ValueError as error:
        raise _unfit(f"{error}; correct INVENTIV_API_URL") from error
    lot = Lot()
    outer = _listener(environment.tunnel_host, environment.tunnel_port, "INVENTIV_TUNNEL_PORT")
    inner = _listener(environment.tunnel_inner_host, environment.tunnel_inner_port, "INVENTIV_TUNNEL_INNER_PORT")
    async with relaying(Relay(authority, lot), lot, outer=outer, inner=inner):
        say_ready(environment, ROLE)
        _log.info("ready", agents=environment.tunnel_port, gateways=environment.tunnel_inner_port)
        await stop.wait()
    _log.info("stopped")


def _listener(host: str, port: int, variable: str) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise _unfit(f"cannot listen on {host}:{port} ({error.strerror}); correct {variable}") from error


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
