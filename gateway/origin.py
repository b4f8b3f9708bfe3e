"""Where an engine listens, and how long one waits for it."""

from functools import lru_cache
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

CONNECT_TIMEOUT_S: Final = 5.0
"""An engine that runs answers a SYN at once; waiting longer only delays the next worker."""
SILENCE_TIMEOUT_S: Final = 300.0
"""Longest silence of a stream, before its first byte and between two."""
PLAIN_TIMEOUT_S: Final = 600.0
"""An answer in one piece is silent until it is complete. OpenAI's own clients give up after as long."""
TOTAL_TIMEOUT_S: Final = 3600.0
"""Longest stream."""
KEEPALIVE_S: Final = 4.0
"""For foreign upstreams: below uvicorn's 5 s, the shortest time that is usual."""
OWN_KEEPALIVE_S: Final = 60.0
"""For engines that our agent started: it tells vLLM to keep connections for longer (agent/vllm_engine.py)."""
MAX_ORIGINS_CACHED: Final = 4096


class Origin(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Where an engine listens.

    Attributes:
        path: what stands before each request's path: "" or "/prefix".
        host_header: the value of `host`.
        foreign: a customer named it, so each of its addresses is judged before it is connected to. Part of equality: a
            connection that was opened for an engine of ours is never lent to an upstream of the same name.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    host_header: bytes
    foreign: bool = False


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds.

    Attributes:
        first_byte_s: from the request to the first byte of its answer.
        idle_s: between two reads of an answer; a paused call is not counted.
        total_s: from `begin` to the end, a second attempt included.
    """

    connect_s: float = CONNECT_TIMEOUT_S
    first_byte_s: float = SILENCE_TIMEOUT_S
    idle_s: float = SILENCE_TIMEOUT_S
    total_s: float = TOTAL_TIMEOUT_S


STREAMED: Final = Timeouts()
PLAIN: Final = Timeouts(first_byte_s=PLAIN_TIMEOUT_S, idle_s=PLAIN_TIMEOUT_S, total_s=PLAIN_TIMEOUT_S)


@lru_cache(MAX_ORIGINS_CACHED)
def origin_of(url: str, *, foreign: bool = False) -> Origin:
    """`http://10.0.0.7:8000/prefix` as an Origin; the same object for the same address.

    Raises:
        ValueError: neither http nor https, no host, or a port that is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not the address of an engine: {url!r}")
    usual = 443 if parts.scheme == "https" else 80
    port = parts.port or usual
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = name if port == usual else f"{name}:{port}"
    return Origin(
        scheme="https" if parts.scheme == "https" else "http",
        host=parts.hostname,
        port=port,
        path=parts.path.rstrip("/"),
        host_header=authority.encode("idna"),
        foreign=foreign,
    )
