"""The HTTP client side: one POST to a worker's engine, its answer as it comes. Thin, so that it can be replaced.

    open_answer(url, body, headers) ──> Answer(status, content_type).read() ──> bytes as the network delivers them

Leaving the block before the end closes the connection, which is how an engine learns that nobody wants the rest.
Reading only when asked is the backpressure: a slow client stops the reads, and TCP stops the engine. The surprising
rule: connections are reused for less time than engines keep them open (uvicorn: 5 s), since a request on a connection
that the other side is closing dies before anybody has seen it.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from typing import Literal

import aiohttp
import msgspec

CONNECT_TIMEOUT_S = 5.0
"""An engine that runs answers a SYN at once; waiting longer only delays the next worker."""
SILENCE_TIMEOUT_S = 300.0
"""Longest silence of a stream, before its first byte and between two."""
PLAIN_TIMEOUT_S = 600.0
"""An answer in one piece is silent until it is complete. OpenAI's own clients give up after as long."""
TOTAL_TIMEOUT_S = 3600.0
"""Longest stream."""
KEEPALIVE_S = 4.0
"""Below uvicorn's 5 s, which is what vLLM serves with."""
LARGE_BODY_BYTES = 1024 * 1024
"""A longer body is written piece by piece, so that other requests get their turn meanwhile."""
READ_BYTES = 64 * 1024
"""aiohttp stops reading from an engine once twice this much waits for a client."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; the constants above."""

    connect_s: float = CONNECT_TIMEOUT_S
    silence_s: float = SILENCE_TIMEOUT_S
    plain_s: float = PLAIN_TIMEOUT_S
    total_s: float = TOTAL_TIMEOUT_S


class UpstreamFailure(OSError):  # noqa: N818 - the engine's failure, translated at this one door
    """The engine gave no whole answer. Its text names no bytes of the answer, since it goes to the log.

    Attributes:
        kind: "unreachable", nothing was sent; "dropped", the connection died; "silent", a timeout ran out.
    """

    def __init__(self, kind: Literal["unreachable", "dropped", "silent"], operation: str, cause: BaseException) -> None:
        reason = cause.strerror if isinstance(cause, OSError) else None
        super().__init__(f"{operation}: {type(cause).__name__} {reason or ''}".rstrip())
        self.kind = kind


class Answer:
    """A started answer; valid within the block of `open_answer`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json").encode(errors="surrogateescape")

    async def read(self) -> bytes:
        """The next bytes as they arrive, chunked framing removed; empty at the end.

        Raises:
            UpstreamFailure: the answer broke off.
        """
        with _translated("read"):
            return await self._response.content.readany()


def client_session() -> aiohttp.ClientSession:
    """The pool of connections to all engines; one for the life of the process."""
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=KEEPALIVE_S)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
    )


@asynccontextmanager
async def open_answer(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], *, stream: bool, limits: Timeouts
) -> AsyncIterator[Answer]:
    """Sends the request and lends its answer once the head is there.

    Raises:
        UpstreamFailure: no head came.
    """
    timeout = aiohttp.ClientTimeout(
        total=limits.total_s if stream else limits.plain_s,
        sock_connect=limits.connect_s,
        sock_read=limits.silence_s if stream else limits.plain_s,
    )
    with _translated("request"):
        data = body if len(body) <= LARGE_BODY_BYTES else BytesIO(body)
        response = await session.post(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
    try:
        yield Answer(response)
    finally:
        response.close()


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise UpstreamFailure("unreachable", operation, error) from error
    except TimeoutError as error:
        raise UpstreamFailure("silent", operation, error) from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamFailure("dropped", operation, error) from error
