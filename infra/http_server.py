"""Serves an ASGI application with uvicorn and httptools until SIGTERM or SIGINT, then lets running answers finish.

The surprising rule: uvicorn takes the signals itself and sends them again when it has stopped, so the caller must have
handlers of its own in place, or the process dies of the signal after a perfectly clean stop.
"""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

KEEP_ALIVE_S = 75
"""Longer than the 60 s for which load balancers keep an idle connection; else they write into a closing one."""
BACKLOG = 2048


async def serve_http(
    app: Any, listener: socket.socket, stop: asyncio.Event, *, drain_s: int, on_stop: Callable[[], None] = lambda: None
) -> None:
    """Returns after the stop.

    Args:
        app: ASGI; has no lifespan.
        listener: bound; closed afterwards.
        stop: set by the caller's own signal handlers; nothing is served when it is set already.
        drain_s: running answers are cut after this.
        on_stop: called when the drain begins, to end answers that would never end by themselves.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # it would believe whoever connects from this machine; see domain/network.py
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )
    server = uvicorn.Server(config)
    begin_exit = server.handle_exit

    def handle_exit(number: int, frame: FrameType | None) -> None:
        on_stop()
        begin_exit(number, frame)

    server.handle_exit = handle_exit  # type: ignore[method-assign,assignment]  # uvicorn's only moment between signal and drain
    if not stop.is_set():
        await server.serve(sockets=[listener])
    listener.close()
