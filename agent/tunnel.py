"""Tunnels for a machine that nobody can reach: the agent keeps connections parked at the relay, for gateways to use.

    agent ── GET TUNNEL_PATH, Upgrade, worker token ──> relay: parked, PARKED of them
    relay ── OPEN engine ──> agent ── connects to its own engine, copies bytes both ways ──> END, END ──> parked again

A connection that is taken is at once replaced by another, so the relay finds one idle. The surprising rule: what comes
through a tunnel can reach two ports of this machine, the engine's and the agent's own, and nothing else, whatever the
relay asks for.
"""

import asyncio
import contextlib
import random
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from agent.event_log import REPEAT_FAILURE_S, REPEAT_SUCCESS_S, EventLog
from agent.frames import MAX_PAYLOAD_BYTES, BrokenTunnelError, Frame, frame, notice_vanished_peer, read_frame
from agent.protocol import TUNNEL_INSTANCE_HEADER, TUNNEL_PATH, TUNNEL_PROTOCOL
from agent.report import retry_delay_s
from agent.settings import Settings
from agent.worker import Worker

PARKED = 4
"""Idle connections that a worker keeps."""
MAX_CONNECTIONS = 512
"""Of one worker, busy ones included; vLLM itself works on 256 requests at once, and queues the others."""
CONNECT_TIMEOUT_S = 10.0
LOCAL_CONNECT_TIMEOUT_S = 4.0
SILENCE_TIMEOUT_S = 50.0
"""The relay pings an idle connection every 15 s."""
MAX_HEAD_BYTES = 16_384


class TunnelError(OSError):
    """The relay did not take the connection; the message says why."""


class Stream(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Tunnels:
    """Keeps the connections of one worker parked, until cancelled.

    Args:
        settings: tunnel_url says where.
        worker: holds the token that is good now.
    """

    def __init__(self, settings: Settings, worker: Worker, log: EventLog) -> None:
        self._settings = settings
        self._worker = worker
        self._log = log
        self._relay = urlsplit(settings.tunnel_url)
        self._tls = ssl.create_default_context() if self._relay.scheme == "https" else None
        self._waiting = 0
        """Connections that are idle, or on their way to be."""
        self._connecting = 0
        self._is_there = False
        """Whether the relay took the last connection; until it does, one attempt at a time is enough."""
        self._failures = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Endless; without a tunnel to keep it returns at once."""
        if not self._settings.tunnel_url:
            return
        await self._worker.registered.wait()
        connections: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                if self._failures:
                    await asyncio.sleep(retry_delay_s(self._failures, random.random()))  # noqa: S311 - jitter
                while self._wants_another and len(connections) < MAX_CONNECTIONS:
                    self._waiting += 1
                    self._connecting += 1
                    task = group.create_task(self._connection())
                    connections.add(task)
                    task.add_done_callback(connections.discard)
                await self._changed.wait()

    @property
    def _wants_another(self) -> bool:
        return self._waiting < PARKED and self._connecting < (PARKED if self._is_there else 1)

    async def _connection(self) -> None:
        """One connection's life. It counts as waiting when this begins, and whenever it is idle."""
        is_waiting = True
        try:
            relay = await self._parked()
            with contextlib.closing(relay.writer):
                while target := await _assigned(relay):
                    self._waiting, is_waiting = self._waiting - 1, False
                    self._changed.set()
                    await self._carry(relay, target)
                    self._waiting, is_waiting = self._waiting + 1, True
        except OSError as error:
            self._is_there = False
            reason = str(error) or "no answer in time"
            self._log.record("tunnel_failed", reason, repeat_after_s=REPEAT_FAILURE_S)
        finally:
            self._waiting -= is_waiting
            self._changed.set()

    async def _parked(self) -> Stream:
        """A connection that the relay has taken. Raises OSError."""
        self._failures += 1  # until it has
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                relay = await self._opened()
        finally:
            self._connecting -= 1
        self._failures, self._is_there = 0, True
        self._changed.set()
        self._log.record("tunnel_parked", "the relay took a connection", repeat_after_s=REPEAT_SUCCESS_S)
        return relay

    async def _opened(self) -> Stream:
        port = self._relay.port or (443 if self._tls else 80)
        relay = Stream(*await asyncio.open_connection(self._relay.hostname, port, ssl=self._tls))
        try:
            notice_vanished_peer(relay.writer)
            relay.writer.write(self._greeting())
            await _require_upgrade(relay.reader)
        except BaseException:
            relay.writer.close()
            raise
        return relay

    def _greeting(self) -> bytes:
        return (
            f"GET {self._relay.path}{TUNNEL_PATH} HTTP/1.1\r\n"
            f"Host: {self._relay.netloc.rpartition('@')[2]}\r\n"
            f"Connection: Upgrade\r\nUpgrade: {TUNNEL_PROTOCOL}\r\n"
            f"Authorization: Bearer {self._worker.token}\r\n"
            f"{TUNNEL_INSTANCE_HEADER}: {self._settings.instance_id}\r\n\r\n"
        ).encode()

    async def _carry(self, relay: Stream, target: bytes) -> None:
        """Between the relay and one of our own ports, until both have ended. Raises OSError: the relay is lost."""
        try:
            local = await self._local(target)
        except OSError as error:
            relay.writer.write(frame("refused", (str(error) or "no answer in time").encode()[:MAX_PAYLOAD_BYTES]))
            await relay.writer.drain()
            return
        broken: Exception | None = None
        try:
            relay.writer.write(frame("opened"))
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy_out(local.reader, relay.writer))
                group.create_task(_copy_in(relay, local.writer))
        except* OSError as errors:
            broken = errors.exceptions[0]
        finally:
            local.writer.transport.abort()
        if broken is not None:
            raise BrokenTunnelError(str(broken)) from broken

    async def _local(self, target: bytes) -> Stream:
        engine = urlsplit(self._settings.engine_url)
        match target:
            case b"engine":
                host, port = engine.hostname or self._settings.local_ip, engine.port or self._settings.vllm_port
            case b"agent":
                host, port = self._settings.local_ip, self._settings.health_port
            case _:
                raise TunnelError("no such target")
        async with asyncio.timeout(LOCAL_CONNECT_TIMEOUT_S):
            return Stream(*await asyncio.open_connection(host, port))


async def _require_upgrade(reader: asyncio.StreamReader) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise TunnelError("the relay closed the connection") from error
    status = head[:MAX_HEAD_BYTES].split(b" ", 2)[1:2]
    if status != [b"101"]:
        raise TunnelError(f"the relay answered {b''.join(status).decode(errors='replace') or 'no HTTP'}")


async def _assigned(relay: Stream) -> bytes:
    """Answers pings until the relay opens a target, and returns its name; b"" when it needs this connection no more.

    Only the relay says so: an agent that closed an idle connection would cut the request that is on its way to it.
    """
    while True:
        async with asyncio.timeout(SILENCE_TIMEOUT_S):
            kind, payload = await read_frame(relay.reader)
        if kind in {"open", "end"}:
            return payload
        if kind != "ping":
            raise BrokenTunnelError(f"{kind} on an idle connection")
        relay.writer.write(frame("pong"))
        await relay.writer.drain()


async def _copy_out(local: asyncio.StreamReader, relay: asyncio.StreamWriter) -> None:
    """What our port says, to the relay. One that breaks off is told by closing the tunnel, not by an end."""
    while chunk := await local.read(MAX_PAYLOAD_BYTES):
        relay.write(frame("data", chunk))
        await relay.drain()
    relay.write(frame("end"))
    await relay.drain()


async def _copy_in(relay: Stream, local: asyncio.StreamWriter) -> None:
    """What the relay says, to our port. One that listens no more is not told, and the rest is passed over."""
    listens = True
    while True:
        said: Frame = await read_frame(relay.reader)
        if said.kind == "end":
            if listens:
                with contextlib.suppress(OSError, RuntimeError):
                    local.write_eof()
            return
        if said.kind != "data":
            raise BrokenTunnelError(f"{said.kind} within a request")
        if listens:
            try:
                local.write(said.payload)
                await local.drain()
            except OSError:
                listens = False
