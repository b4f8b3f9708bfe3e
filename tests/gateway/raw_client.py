"""A client that sends any bytes whatever, and reads the replies with a parser of its own kind.

async with raw_client(port) as client:
    await client.send(b"GET / HTTP/1.1\r\n...")      reply = await client.reply()
    replies = await client.replies_until_closed()
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httptools

BOUND_S = 5.0
"""No reply takes longer; a connection on which nothing happens for so long hangs."""
READ_BYTES = 64 * 1024


@dataclass
class Answer:
    """One reply as it was read."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_whole: bool = False

    def header(self, name: bytes) -> bytes | None:
        return next((value for given, value in self.headers if given == name), None)


class RawClient:
    """Attributes: answers holds all that was read, the last of them perhaps not whole; raw, every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.answers: list[Answer] = []
        self.raw = b""
        self._parser = httptools.HttpResponseParser(self)
        self._taken = 0

    async def send(self, *pieces: bytes) -> bool:
        """Each piece in a segment of its own, as far as the kernel plays along.

        Returns:
            Whether all was taken; the server may have closed before the end.
        """
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            return False
        return True

    async def reply(self) -> Answer:
        """The next whole reply."""
        async with asyncio.timeout(BOUND_S):
            while not (len(self.answers) > self._taken and self.answers[self._taken].is_whole):
                if not await self._read():
                    raise ConnectionError("the connection was closed before the reply was whole")
        self._taken += 1
        return self.answers[self._taken - 1]

    async def replies_until_closed(self) -> list[Answer]:
        """All that came until the server closed; raises TimeoutError when it does not."""
        async with asyncio.timeout(BOUND_S):
            while await self._read():
                pass
        return self.answers

    async def _read(self) -> bytes:
        try:
            data = await self.reader.read(READ_BYTES)
        except ConnectionError:
            return b""
        self.raw += data
        self._parser.feed_data(data)
        return data

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        self.writer.transport.abort()

    # the parser calls what follows

    def on_message_begin(self) -> None:
        self.answers.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answers[-1].headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.answers[-1].body += data

    def on_message_complete(self) -> None:
        self.answers[-1].is_whole = True


@asynccontextmanager
async def raw_client(port: int, *, receive_buffer_bytes: int = 0) -> AsyncIterator[RawClient]:
    """Args: receive_buffer_bytes: what the kernel takes for a client that does not read; 0 leaves it to the kernel."""
    connection = socket.socket()
    if receive_buffer_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    limit = receive_buffer_bytes or READ_BYTES
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
    client = RawClient(reader, writer)
    try:
        yield client
    finally:
        client.reset()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
