"""Receives messages of a subscription as bytes, at a fifth of what the client's own path costs.

    socket ──> nats-py's read loop ──> WireParser ──┬─ a subscription with a sink ──> sink(subject, reply, headers, ...)
                                                    └─ everything else ──> nats-py, as ever

nats-py parses each message by regular expressions, its headers as an e-mail, and hands it on through a queue and a
task; followers need none of it. Connecting, authentication, TLS, pings and reconnects stay nats-py's. The surprising
rule: a sink runs within the parser, so it must neither wait nor raise; it puts the message aside.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

Sink: TypeAlias = Callable[[bytes, bytes, bytes, bytes], None]
"""(subject, reply, headers, payload) as they came; headers and reply are b"" when there are none."""

CONTROL_LINE_BYTES_MAX = 1_000_000
"""The longest line is INFO; a server of a thousand cluster members would send some 40 kB."""
_EOL = b"\r\n"
_MESSAGE = (b"HMSG", b"MSG")
_VERSION = "NATS/1.0"


class WireParser(Parser):  # nats-py's read loop calls parse and reset of whatever stands in the client's `_ps`
    """Takes the place of a client's parser; give it to the client before it connects.

    Attributes:
        sinks: by subscription id, as it stands in the protocol.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client = client
        self._rest = b""
        self.sinks: dict[bytes, Sink] = {}

    def reset(self) -> None:
        """The connection is a new one: half a message of the old one means nothing."""
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        """Hands on every complete message and control line; keeps the rest for next time.

        Raises:
            ProtocolError: that was not NATS.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        sinks, at = self.sinks, 0
        while (eol := data.find(_EOL, at)) >= 0:
            words = data[at:eol].split()
            kind = words[0] if words else b""
            if kind not in _MESSAGE:
                at, line = eol + 2, data[at:eol]
                await self._control(kind, line)
                continue
            begin = eol + 2
            end = begin + int(words[-1])
            if end + 2 > len(data):
                break
            at = end + 2
            body = begin + int(words[-2]) if kind == b"HMSG" else begin
            reply = words[3] if len(words) == (6 if kind == b"HMSG" else 5) else b""
            sink = sinks.get(words[2])
            if sink is not None:
                sink(words[1], reply, data[begin:body], data[body:end])
            else:
                await self._client._process_msg(int(words[2]), words[1], reply, data[body:end], data[begin:body])  # noqa: SLF001 - as its own parser does
        if eol < 0 and len(data) - at > CONTROL_LINE_BYTES_MAX:
            raise ProtocolError("nats: a control line without end")
        self._rest = data[at:]

    async def _control(self, kind: bytes, line: bytes) -> None:
        """As nats-py's own parser does it."""
        client = self._client
        match kind:
            case b"PING":
                await client._process_ping()  # noqa: SLF001
            case b"PONG":
                await client._process_pong()  # noqa: SLF001
            case b"-ERR":
                await client._process_err(line[len(b"-ERR") :].strip().decode().lower())  # noqa: SLF001
            case b"INFO":
                await client._process_info(msgspec.json.decode(line[len(b"INFO") :]))  # noqa: SLF001
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")


async def subscribe(client: Client, subject: str, sink: Sink) -> Subscription:
    """Subscribes; from now on the sink gets every message. Works with a foreign client too, only slower there.

    Raises:
        nats.errors.Error: as the client's own subscribe.
    """
    parser = client._ps  # noqa: SLF001
    if isinstance(parser, WireParser):
        subscription = await client.subscribe(subject)
        parser.sinks[str(subscription._id).encode()] = sink  # noqa: SLF001
        return subscription

    async def translated(message: Msg) -> None:
        headers = message.headers or {}
        status = " ".join([_VERSION, headers.pop("Status", ""), headers.pop("Description", "")]).strip()
        lines = [status, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        raw = "\r\n".join(lines).encode() if message.headers else b""
        sink(message.subject.encode(), message.reply.encode(), raw, message.data)

    return await client.subscribe(subject, cb=translated, pending_msgs_limit=-1, pending_bytes_limit=-1)


async def unsubscribe(client: Client, subscription: Subscription) -> None:
    """Safe while the client is away, and after its end.

    Raises:
        nats.errors.Error: as the client's own unsubscribe; the sink gets nothing more all the same.
    """
    parser = client._ps  # noqa: SLF001
    if isinstance(parser, WireParser):
        parser.sinks.pop(str(subscription._id).encode(), None)  # noqa: SLF001
    await subscription.unsubscribe()


def read_headers(raw: bytes) -> dict[str, str]:
    """Header lines; the server's own status stands under "Status" and "Description", as nats-py has it."""
    first, *lines = raw.decode(errors="surrogateescape").split("\r\n")
    headers = {}
    _, _, status = first.partition(" ")
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers
