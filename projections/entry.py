"""What is folded: one message of a stream, decoded, as every projection and the gateway's routing table take it.

It stands apart from projection.py for the gateway's sake, which folds EVENTS into memory: no Postgres client belongs to
that.
"""

from typing import Any

import msgspec

from domain.message import Envelope
from domain.usage import UsageRecord


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message of EVENTS, decoded: `event` is the domain's struct, `payload` the exact stored bytes."""

    position: int
    subject: str
    payload: bytes
    envelope: Envelope
    event: Any


class UsageEntry(msgspec.Struct, frozen=True):
    """One message of USAGE, decoded."""

    position: int
    record: UsageRecord


class LogDamagedError(Exception):
    """The stream has a hole or an altered message; a projection halts rather than fold what may be wrong."""

    def __init__(self, position: int, finding: str) -> None:
        super().__init__(f"log damaged at position {position}: {finding}")
        self.position = position
