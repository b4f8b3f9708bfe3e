"""Connections to NATS: one kind that writes, one kind that reads; each service has one of each.

The surprising rule: a writer's connection buffers nothing while it is disconnected. The client's default buffer sends
publishes after their callers were told that they failed. And a second one: who lacks a permission is not told so in a
reply, but by a timeout; the server's word arrives on the connection, where `refusal_since` keeps it for the caller.
"""

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import nats.errors
import structlog
from nats.aio.client import Client

from infra.environment import NatsLogin
from infra.events.port import LogUnavailableError
from infra.events.wire import WireParser

_log = structlog.get_logger(__name__)

CONNECT_BUDGET_S = 30.0
CONNECT_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.2
PING_INTERVAL_S = 10
PINGS_MISSED = 2
READER_BUFFER_BYTES = 2_000_000
SAY_AGAIN_S = 10.0
CLOSE_BUDGET_S = 5.0
CANCEL_ATTEMPTS = 3
CANCEL_WAIT_S = 0.5
_VIOLATION = "permissions violation"
_refusals: WeakKeyDictionary[Client, tuple[float, str]] = WeakKeyDictionary()


async def connect_writer(url: str, name: str, login: NatsLogin | None = None) -> Client:
    """For appends: a publish while disconnected fails at once and is never sent later.

    Args:
        url: nats://user:password@host:port (tls://host:port with a login), several separated by commas.
        name: the identity (permissions.py): shown by the server's monitoring, and names the inboxes it may hear.
        login: its key, and whose certificates to trust.

    Raises:
        LogUnavailableError: no server let us in within CONNECT_BUDGET_S, or the login's files are unfit. Afterwards it
            reconnects for ever by itself.
    """
    return await _connect(url, name, login or NatsLogin(), pending_bytes=0)


async def connect_reader(
    url: str, name: str, login: NatsLogin | None = None, *, budget_s: float | None = None
) -> Client:
    """For follow and consumers, so that a replay does not delay the appends; otherwise as connect_writer.

    Args:
        url: as connect_writer.
        name: as connect_writer.
        login: as connect_writer.
        budget_s: for somebody who waits at a terminal; CONNECT_BUDGET_S otherwise.
    """
    return await _connect(url, name, login or NatsLogin(), pending_bytes=READER_BUFFER_BYTES, budget_s=budget_s)


def refusal_since(client: Client, since_s: float) -> str:
    """What the server last refused this connection for lack of permission, at or after a time by the loop's clock.

    Returns:
        Its words, with the subject in lower case; "" for nothing.
    """
    refused_s, words = _refusals.get(client, (0.0, ""))
    return words if words and refused_s >= since_s else ""


async def disconnect(client: Client) -> None:
    """Closes for good, also while the server is away; safe to repeat.

    There nats-py's own close raises from its last flush and skips the rest: OSError, TypeError from asyncio's own loop
    since Python 3.12, RuntimeError from uvloop. And it waits for ever for the end of a TLS connection that failed in
    its handshake.
    """
    if not await _ended(asyncio.create_task(_close(client)), CLOSE_BUDGET_S):
        _log.info("nats_close_abandoned")


async def _close(client: Client) -> None:
    try:
        await client.close()
    except (OSError, TypeError, RuntimeError):
        client._pending_data_size = 0  # noqa: SLF001 - nothing to flush any more
        client._status = Client.DISCONNECTED  # noqa: SLF001 - or it would think itself closed
        await client.close()


async def _ended(task: asyncio.Task[None], budget_s: float) -> bool:
    """Waits for a task of nats-py's; its failures are raised. One that is late is cancelled until it heeds that.

    Not asyncio.timeout, which cancels once: nats-py swallows some cancellations (infra/cancellation.py).
    """
    try:
        await asyncio.wait({task}, timeout=budget_s)
        if task.done():
            task.result()
            return True
    finally:
        for _ in range(CANCEL_ATTEMPTS):
            if task.cancel():
                await asyncio.wait({task}, timeout=CANCEL_WAIT_S)
    return False


async def _connect(
    url: str, name: str, login: NatsLogin, *, pending_bytes: int, budget_s: float | None = None
) -> Client:
    budget_s = CONNECT_BUDGET_S if budget_s is None else budget_s
    client = Client()
    client._ps = WireParser(client)  # noqa: SLF001 - no other door: followers receive at a fifth of the cost
    servers = [server.strip() for server in url.split(",")]
    first = urlsplit(servers[0])
    try:
        proof = _proof(client, login)
    except (ValueError, OSError) as error:  # an NkeyError is a ValueError, an ssl.SSLError an OSError
        raise LogUnavailableError(f"connect {name}: {error}") from error
    connecting = client.connect(
        servers,
        **proof,
        inbox_prefix=f"_INBOX_{name}",  # permissions.inbox_of, whose module is not needed to connect
        user=first.username,  # also for servers that the cluster tells us of, whose addresses name no user
        password=first.password,
        name=name,
        pending_size=pending_bytes,
        connect_timeout=CONNECT_TIMEOUT_S,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # annotated int; it is slept as it is
        ping_interval=PING_INTERVAL_S,
        max_outstanding_pings=PINGS_MISSED,
        **_callbacks(client, name),
    )
    try:
        if await _ended(asyncio.create_task(connecting), budget_s):
            return client
        cause = None
    except (OSError, nats.errors.Error) as error:
        cause = error
    await disconnect(client)
    raise LogUnavailableError(f"connect {name}: no NATS server let us in within {budget_s} s") from cause


def _callbacks(client: Client, name: str) -> dict[str, Any]:
    """Arguments of `connect`: who hears of errors, and of the connection's going and coming."""
    log = _log.bind(connection=name)
    said: dict[str, float] = {}

    async def on_error(error: Exception) -> None:
        """A client that looks for its server fails five times a second; one line in SAY_AGAIN_S tells as much."""
        now = asyncio.get_running_loop().time()
        refused = _VIOLATION in str(error)
        if refused:
            _refusals[client] = (now, str(error).removeprefix("nats: "))
        if now - said.get(repr(error), -SAY_AGAIN_S) >= SAY_AGAIN_S:
            said.clear()
            said[repr(error)] = now
            if refused:
                log.critical("nats_permission_refused", reason=str(error).removeprefix("nats: "))
            else:
                log.warning("nats_error", error=repr(error))

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats_disconnected")

    async def on_reconnect() -> None:
        log.info("nats_reconnected")

    return {"error_cb": on_error, "disconnected_cb": on_disconnect, "reconnected_cb": on_reconnect}


def _proof(client: Client, login: NatsLogin) -> dict[str, Any]:
    """Arguments of `connect`. The key stays in memory: a reconnect needs it again."""
    proof: dict[str, Any] = {}
    if login.ca_file is not None:
        proof["tls"] = ssl.create_default_context(cafile=str(login.ca_file))
    if login.nkey_file is not None:
        from infra.events.nkeys import read_user_key  # noqa: PLC0415 - 7 MB of cryptography, for those who have a key

        key = read_user_key(login.nkey_file)
        proof["signature_cb"] = key.sign
        client._public_nkey = key.public  # noqa: SLF001 - nats-py sets it itself only with a package that we do without
        client._auth_configured = True  # noqa: SLF001 - likewise
    return proof
