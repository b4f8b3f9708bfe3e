"""Connections to NATS: one kind that writes, one kind that reads; each service has one of each.

The surprising rule: a writer's connection buffers nothing while it is disconnected. The client's default buffer sends
publishes after their callers were told that they failed.
"""

import asyncio
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client

from infra.events.port import LogUnavailableError

_log = structlog.get_logger(__name__)

CONNECT_BUDGET_S = 30.0
CONNECT_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.2
PING_INTERVAL_S = 10
PINGS_MISSED = 2
READER_BUFFER_BYTES = 2_000_000
SAY_AGAIN_S = 10.0


async def connect_writer(url: str, name: str) -> Client:
    """For appends: a publish while disconnected fails at once and is never sent later.

    Args:
        url: nats://user:password@host:port, several separated by commas.
        name: shown by the server's monitoring, e.g. "web-writer".

    Raises:
        LogUnavailableError: no server answered within CONNECT_BUDGET_S. Afterwards it reconnects for ever by itself.
    """
    return await _connect(url, name, pending_bytes=0)


async def connect_reader(url: str, name: str) -> Client:
    """For follow and consumers, so that a replay does not delay the appends; otherwise as connect_writer."""
    return await _connect(url, name, pending_bytes=READER_BUFFER_BYTES)


async def disconnect(client: Client) -> None:
    """Closes for good, also while the server is away; safe to repeat.

    There nats-py's own close raises from its last flush and skips the rest: OSError, or TypeError from asyncio's own
    loop since Python 3.12.
    """
    try:
        await client.close()
    except (OSError, TypeError):
        client._pending_data_size = 0  # noqa: SLF001 - nothing to flush any more
        client._status = Client.DISCONNECTED  # noqa: SLF001 - or it would think itself closed
        await client.close()


async def _connect(url: str, name: str, pending_bytes: int) -> Client:
    client = Client()
    servers = [server.strip() for server in url.split(",")]
    first = urlsplit(servers[0])
    log = _log.bind(connection=name)
    said: dict[str, float] = {}

    async def on_error(error: Exception) -> None:
        """A client that looks for its server fails five times a second; one line in SAY_AGAIN_S tells as much."""
        now = asyncio.get_running_loop().time()
        if now - said.get(repr(error), -SAY_AGAIN_S) >= SAY_AGAIN_S:
            said.clear()
            said[repr(error)] = now
            log.warning("nats_error", error=repr(error))

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats_disconnected")

    async def on_reconnect() -> None:
        log.info("nats_reconnected")

    try:
        async with asyncio.timeout(CONNECT_BUDGET_S):
            await client.connect(
                servers,
                user=first.username,  # also for servers that the cluster tells us of, whose addresses name no user
                password=first.password,
                name=name,
                pending_size=pending_bytes,
                connect_timeout=CONNECT_TIMEOUT_S,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # annotated int; it is slept as it is
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=PINGS_MISSED,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
            )
    except (OSError, nats.errors.Error, TimeoutError) as error:
        await disconnect(client)
        raise LogUnavailableError(f"connect {name}: no NATS server answered within {CONNECT_BUDGET_S} s") from error
    return client
