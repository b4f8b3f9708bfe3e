"""A TCP proxy that misbehaves on command, for tests of what a lost reply does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

CHUNK_BYTES = 65_536


class FaultProxy:
    """Stands between a client and a server on loopback.

    Attributes:
        port: where clients connect.
        swallowing: while true, what the server sends is thrown away; what clients send still arrives.
        lost: the bytes thrown away.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.swallowing = False
        self.lost = bytearray()
        self._server_port = server_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    def cut(self) -> None:
        """Breaks every open connection at once, as a crashed router would."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def handle(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(to_client)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            to_client.transport.abort()
            return
        self._writers.add(to_server)
        await asyncio.gather(self._forward(from_client, to_server), self._return(from_server, to_client))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        writers = set(self._writers)
        self.cut()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
        writer.close()

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.swallowing:
                    self.lost += data
                else:
                    writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def fault_proxy(server_port: int) -> AsyncIterator[FaultProxy]:
    """A proxy in front of 127.0.0.1:server_port, until the end of the block."""
    proxy = FaultProxy(server_port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
