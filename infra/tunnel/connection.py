"""One connection that an agent parked at the relay, and the request that it carries at the moment.

Its frames are read by one task from beginning to end: pongs, whether a target was opened, data, ends. So nothing has to
be handed over in mid-frame. The surprising rule: a client that reads slowly stops that task, and with it the agent and
the engine; this is how back-pressure comes through a tunnel.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from agent.frames import BrokenTunnelError, Target, frame, read_frame

DISMISSED_S = 10.0
"""For an agent to close what is not needed."""


class Call:
    """One request's way back: what the engine says goes to the client, until both are done.

    Attributes:
        ended: the engine has said everything, or the tunnel broke.
        broken: the latter: what the client has is not whole.
    """

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._client = client
        self._listens = True
        self.ended = asyncio.Event()
        self.broken = False

    async def receive(self, data: bytes) -> None:
        """A client that listens no more is not told, and the rest is passed over."""
        if self._listens:
            try:
                self._client.write(data)
                await self._client.drain()
            except OSError:
                self._listens = False

    def end(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.ended.set()


class _Opening(NamedTuple):
    """A call whose target is asked for; `answered` with why it cannot be had, or ""."""

    call: Call
    answered: "asyncio.Future[str]"

    def answer(self, why_not: str) -> None:
        if not self.answered.done():
            self.answered.set_result(why_not)


class TunnelConnection:
    """Idle, or carrying one call.

    Args:
        instance_id: whose agent is at the other end.
        reader, writer: after the upgrade.
    """

    def __init__(
        self,
        instance_id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance_id = instance_id
        self.parked_at_s = self.heard_at_s = now_s()
        self._now_s = now_s
        self._reader = reader
        self._writer = writer
        self._opening: _Opening | None = None
        self._call: Call | None = None
        self._has_ended = False

    async def serve(self) -> None:
        """Reads its frames until it closes; returns then, whatever happened."""
        try:
            while True:
                kind, payload = await read_frame(self._reader)
                self.heard_at_s = self._now_s()
                match kind:
                    case "data" if self._call is not None:
                        await self._call.receive(payload)
                    case "end" if self._call is not None:
                        self._call.end()
                    case "opened" if self._opening is not None and self._call is None:
                        self._call = self._opening.call
                        self._opening.answer("")
                    case "refused" if self._opening is not None:
                        self._opening.answer(payload.decode(errors="replace") or "refused")
                    case "pong":
                        pass
                    case _:
                        raise BrokenTunnelError(f"{kind} at the wrong moment")
        except OSError:
            pass  # it is over, for whatever reason
        finally:
            self.close()

    async def open(self, target: Target, call: Call) -> str:
        """Has the agent connect to `target` for `call`; why it could not, or "".

        Raises:
            OSError: this connection is dead.
        """
        opening = self._opening = _Opening(call, asyncio.get_running_loop().create_future())
        self._has_ended = False
        try:
            await self._send(frame("open", target.encode()))
            return await opening.answered
        finally:
            self._opening = None

    async def send(self, data: bytes) -> None:
        """At most MAX_PAYLOAD_BYTES. Raises OSError."""
        await self._send(frame("data", data))

    async def end(self) -> None:
        """The client says nothing more; asked twice, it is said once. Raises OSError."""
        if not self._has_ended:
            self._has_ended = True
            await self._send(frame("end"))

    def release(self) -> None:
        """The call is done on both sides."""
        self._call = None

    def ping(self) -> None:
        self._writer.write(frame("ping"))

    def dismiss(self) -> None:
        """It is idle, and not needed any more: the agent closes it, or else we do."""
        self._writer.write(frame("end"))
        asyncio.get_running_loop().call_later(DISMISSED_S, self.close)

    def close(self) -> None:
        self._writer.transport.abort()
        if self._opening is not None and not self._opening.answered.done():
            self._opening.answered.set_exception(BrokenTunnelError("the tunnel closed"))
        if self._call is not None and not self._call.ended.is_set():
            self._call.end(broken=True)

    async def _send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise BrokenTunnelError("the tunnel closed")
        self._writer.write(data)
        await self._writer.drain()
