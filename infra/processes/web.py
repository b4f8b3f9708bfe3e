"""The role `web`: the REST API and its live updates, until SIGTERM or SIGINT; running answers are finished first."""

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack

import structlog

from infra.environment import Environment
from infra.events.streams import UnfitServerError
from infra.http_server import serve_http
from infra.secret_files import SecretFileError
from infra.vault_tables import VaultKeyError
from infra.web_services import web_services
from web.app import create_app

DRAIN_S = 8
"""Running answers get this long when the role stops; `inventiv up` kills one after 12 s."""

_log = structlog.get_logger(__name__)


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, the address is taken, or the server, a secret file or a setting is unfit.
        OSError: NATS or Postgres did not answer at the start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not environment.postgres_url:
        raise _unfit("set INVENTIV_POSTGRES_URL, or use `inventiv up`, which brings its own Postgres")
    try:
        async with AsyncExitStack() as stack:
            app = create_app(await web_services(environment, stack))
            await stack.enter_async_context(app.router.lifespan_context(app))
            listener = _listener(environment)
            _log.info("ready", api_url=environment.api_url)
            await serve_http(app, listener, stop, drain_s=DRAIN_S, on_stop=app.state.live.close)
    except (UnfitServerError, SecretFileError, VaultKeyError) as error:
        raise _unfit(str(error)) from error
    _log.info("stopped")


def _listener(environment: Environment) -> socket.socket:
    """Opened last: who connects is answered."""
    try:
        return socket.create_server((environment.host, environment.api_port))
    except OSError as error:
        address = f"{environment.host}:{environment.api_port}"
        raise _unfit(f"cannot listen on {address} ({error.strerror}); correct INVENTIV_API_PORT") from error


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
