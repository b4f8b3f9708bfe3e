"""The chance of one request: ids and secrets drawn from its seed, so that a repeated request draws the same ones.

    seed ──HMAC(label)──> id("deployment") · secret("api_key", 28)

Labels name what is drawn, so the order of drawing does not matter. The seed is random per request, or the one stored
under its Idempotency-Key.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

MAX_SECRET_BYTES = 8160
"""What HKDF-expand can give: 255 blocks of 32 bytes."""


@dataclass(frozen=True)
class Draw:
    """Attributes:
    seed: 32 random bytes.
    at: when the request was first made; the time inside its ids.
    resumed: an earlier attempt may have done a part already.
    """

    seed: bytes
    at: datetime
    resumed: bool = False

    def secret(self, label: str, length: int) -> bytes:
        """`length` bytes that only the seed's holder can tell (HKDF-expand)."""
        if not 0 < length <= MAX_SECRET_BYTES:
            raise ValueError(f"between 1 and {MAX_SECRET_BYTES} bytes can be drawn")
        drawn, block, counter = b"", b"", 1
        while len(drawn) < length:
            block = hmac.digest(self.seed, block + label.encode() + bytes([counter]), sha256)
            drawn += block
            counter += 1
        return drawn[:length]

    def id(self, label: str) -> str:
        """A UUIDv7: milliseconds of `at`, then 74 drawn bits."""
        chance = int.from_bytes(self.secret(f"id/{label}", 10), "big")
        milliseconds = int(self.at.timestamp() * 1000) & (1 << 48) - 1
        bits = milliseconds << 80 | 0x7 << 76 | (chance >> 62 & 0xFFF) << 64 | 0b10 << 62 | chance & (1 << 62) - 1
        return str(UUID(int=bits))
