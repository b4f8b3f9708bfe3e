"""The relay: agents that nobody can reach connect to it from outside, gateways reach their engines through it.

    agent ── outer listener: GET TUNNEL_PATH, Upgrade ── token good? ──> 101, parked in the lot
    gateway ── inner listener: /t/<instance>/engine/... ──> a parked connection, opened ──> bytes both ways, END, END
                                                        └──> none: 503 at once

The inner listener trusts whoever reaches it, as engines do: it belongs on a private address. The surprising rule: a
request whose tunnel breaks is cut off, never ended, so that half an answer cannot look like a whole one.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from agent.frames import MAX_PAYLOAD_BYTES, BrokenTunnelError, notice_vanished_peer
from agent.protocol import TUNNEL_PROTOCOL
from infra.tunnel.authority import Authority
from infra.tunnel.connection import Call, TunnelConnection
from infra.tunnel.heads import MAX_HEAD_BYTES, BadHeadError, Greeting, greeting, routed
from infra.tunnel.lot import Lot, NoTunnelError

HEAD_TIMEOUT_S = 10.0
MAX_STRANGERS = 1024
"""Connections that have not proved themselves yet; more are closed at once."""
CALL_TIMEOUT_S = 3700.0
"""Above the gateway's own bound for a stream."""
ABANDONED_TIMEOUT_S = 10.0
"""For an engine to end what its client has left; then the tunnel is closed."""
_WORDS = {101: "Switching Protocols", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"} | {
    426: "Upgrade Required",
    503: "Service Unavailable",
}


class Relay:
    """Both listeners' work."""

    def __init__(self, authority: Authority, lot: Lot) -> None:
        self._authority = authority
        self._lot = lot
        self._strangers = 0

    async def agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection at the outer listener, until it closes."""
        with contextlib.closing(writer):
            connection = await self._parked(reader, writer)
            if connection is not None:
                try:
                    await connection.serve()
                finally:
                    self._lot.remove(connection)

    async def gateway(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection at the inner listener: one request."""
        with contextlib.closing(writer):
            call = Call(writer)
            try:
                asked = routed(await _head(reader))
                tunnel = await self._lot.open(asked.instance_id, asked.target, call)
            except BadHeadError as bad:
                await _refuse(writer, bad.status, str(bad))
            except NoTunnelError as none:
                await _refuse(writer, 503, str(none))
            else:
                await self._carry(tunnel, call, asked.head, reader)
            if call.broken:
                writer.transport.abort()

    async def _carry(self, tunnel: TunnelConnection, call: Call, head: bytes, reader: asyncio.StreamReader) -> None:
        """One request, there and back; the tunnel is parked again, or closed when it did not end well."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await _carried(tunnel, call, head, reader)
        except OSError:
            tunnel.close()
        except BaseException:
            tunnel.close()
            raise
        else:
            tunnel.release()
            self._lot.put(tunnel)

    async def _parked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> TunnelConnection | None:
        """None, with a refusal on its way, when it may not be parked here."""
        if self._strangers >= MAX_STRANGERS:
            return None
        self._strangers += 1
        try:
            notice_vanished_peer(writer)
            asked = greeting(await _head(reader))
            await self._require_allowed(asked)
        except BadHeadError as bad:
            await _refuse(writer, bad.status, str(bad))
            return None
        finally:
            self._strangers -= 1
        writer.write(_status(101) + f"connection: upgrade\r\nupgrade: {TUNNEL_PROTOCOL}\r\n\r\n".encode())
        connection = TunnelConnection(asked.instance_id, reader, writer)
        self._lot.park(connection)
        return connection

    async def _require_allowed(self, asked: Greeting) -> None:
        match await self._authority.verdict(asked.instance_id, asked.token):
            case "no":
                raise BadHeadError(401, "this token does not belong to this instance")
            case "unknown":
                raise BadHeadError(503, "the API does not answer")
            case "yes":
                if not self._lot.has_room(asked.instance_id):
                    raise BadHeadError(503, "too many tunnels")


async def _carried(tunnel: TunnelConnection, call: Call, head: bytes, reader: asyncio.StreamReader) -> None:
    """Returns when the engine has ended, and the agent knows that the client has. Raises OSError."""
    asking = asyncio.create_task(_send_request(tunnel, head, reader))
    ended = asyncio.create_task(call.ended.wait())
    try:
        await asyncio.wait({asking, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():  # the client has left, or wants no more than what is on its way
            asking.result()
            async with asyncio.timeout(ABANDONED_TIMEOUT_S):
                await ended
    finally:
        for task in (asking, ended):
            task.cancel()
        await asyncio.gather(asking, ended, return_exceptions=True)
    if call.broken:
        raise BrokenTunnelError("the tunnel closed")
    await tunnel.end()


async def _send_request(tunnel: TunnelConnection, head: bytes, reader: asyncio.StreamReader) -> None:
    """The rewritten head, then whatever the client says, then its end."""
    for start in range(0, len(head), MAX_PAYLOAD_BYTES):
        await tunnel.send(head[start : start + MAX_PAYLOAD_BYTES])
    with contextlib.suppress(ConnectionError):  # a client that broke off has ended too
        while chunk := await reader.read(MAX_PAYLOAD_BYTES):
            await tunnel.send(chunk)
    await tunnel.end()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Up to and with the empty line; b"" when nobody says one in time."""
    try:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            return await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""


async def _refuse(writer: asyncio.StreamWriter, status: int, reason: str) -> None:
    body = b'{"error": "tunnel_refused", "message": "%b"}' % reason.replace('"', "'").encode()
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.write(_status(status) + fields.encode() + body)
        await writer.drain()


def _status(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_WORDS[status]}\r\n".encode()


@contextlib.asynccontextmanager
async def relaying(relay: Relay, lot: Lot, *, outer: socket.socket, inner: socket.socket) -> AsyncIterator[None]:
    """Serves both listeners within; both are closed, and every connection with them, at the end."""
    agents = await asyncio.start_server(relay.agent, sock=outer, limit=MAX_HEAD_BYTES)
    gateways = await asyncio.start_server(relay.gateway, sock=inner, limit=MAX_HEAD_BYTES)
    awake = asyncio.create_task(lot.keep_awake())
    try:
        yield
    finally:
        awake.cancel()
        agents.close()
        gateways.close()
        lot.close()
        await asyncio.gather(awake, return_exceptions=True)
