"""What a client may send, and how long it may take: every bound of its connection, with its reason."""

import msgspec


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a request is read.

    Attributes:
        head_bytes: of one head; as much as four pages of nginx.
        headers: lines in one head.
        pipelined: whole requests in one piece; after so many the connection is closed.
    """

    head_bytes: int = 32 * 1024
    headers: int = 100
    pipelined: int = 16


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may do, and how long.

    Attributes:
        early_bytes: read but not yet parsed while a request is answered; then no more is read.
        unsent_bytes: waiting to be taken by a client, before its engine is paused.
        idle_s: between requests; longer than the 60 s for which load balancers keep an idle connection.
        head_s: from a request's first byte until its head is whole.
        body_s: for a body, and one second more for each `body_bytes_per_s` of it that came.
        stall_s: without the client taking a byte of what waits for it; as long as nginx gives.
        linger_s, linger_bytes: dropped after a refusal, before the connection goes; a reset would overtake the refusal.
        connections: open at once; one more is answered 503.
        farewell_s: idle connections live so long when listening stops, since a request may be on its way.
        sweep_s: how often timers are looked at, and so their resolution.
    """

    read: ReadLimits = ReadLimits()
    early_bytes: int = 64 * 1024
    unsent_bytes: int = 64 * 1024
    idle_s: float = 75.0
    head_s: float = 20.0
    body_s: float = 60.0
    body_bytes_per_s: int = 32 * 1024
    stall_s: float = 60.0
    linger_s: float = 5.0
    linger_bytes: int = 16 * 1024 * 1024
    connections: int = 10_000
    farewell_s: float = 1.0
    sweep_s: float = 1.0
