"""Seals and the keys that sign them, on the stream SEALS: kept for ever, no service can delete or replace one.

    seal.audit          the seals, each expecting the one before it: two signers cannot both append
    seal.key.<key_id>   the public key, announced before its first seal

The surprising rule: a seal is never decoded and encoded again on its way to a reader. Its exact bytes are what the next
one names, and what an auditor keeps.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client

from domain.seal import Seal, SealKey, StoredSeal, seal_hash
from infra.events.jetstream import JetStreamLog
from infra.events.port import Append, Conflict, LogUnavailableError
from infra.events.reads import ApiError, PageReader, Stored, leader_last
from infra.events.streams import SEALS

T = TypeVar("T")

SEAL_SUBJECT = "seal.audit"
KEY_SUBJECT_PREFIX = "seal.key."
REPLY_TIMEOUT_S = 5.0
MAX_PAGE_SEALS = 500
MAX_NUMBER = 2**63 - 1
MAX_KEYS = 100
"""Keys are replaced by hand, a few times in a life."""

_seals = msgspec.json.Decoder(Seal)
_keys = msgspec.json.Decoder(SealKey)


class SealStore:
    """Reads and appends seals, over one connection. Every method raises LogUnavailableError (an OSError)."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._log = JetStreamLog(nc, SEALS)
        self._pages = PageReader(nc, SEALS)

    async def latest(self) -> StoredSeal | None:
        """The newest seal, through the leader."""
        last = leader_last(self._nc, SEALS, SEAL_SUBJECT, timeout_s=REPLY_TIMEOUT_S)
        found = await _answered("newest seal", last)
        return _seal(found) if found else None

    async def page(self, *, after: int = 0, limit: int = MAX_PAGE_SEALS) -> Sequence[StoredSeal]:
        """The next seals after a number, oldest first; a lagging replica may not have the newest yet."""
        reading = self._pages.page(SEAL_SUBJECT, after + 1, timeout_s=REPLY_TIMEOUT_S)
        found, _more = await _answered("page of seals", reading)
        return [_seal(message) for message in found[: max(1, min(limit, MAX_PAGE_SEALS))]]

    async def every(self, *, until: int = MAX_NUMBER) -> AsyncIterator[StoredSeal]:
        """All of them up to a number, oldest first."""
        page = await self.page()
        while page:  # bounded: each page moves on by at least one seal
            for seal in page:
                if seal.number > until:
                    return
                yield seal
            page = await self.page(after=page[-1].number)

    async def append(self, seal: Seal, *, after: StoredSeal | None) -> bool:
        """Stores a signed seal behind the one given; False when another signer was first."""
        stored = msgspec.json.encode(seal)
        message = (seal_hash(stored), stored)
        try:
            await self._log.append([Append(SEAL_SUBJECT, after.number if after else 0, (message,))])
        except Conflict:
            return False
        return True

    async def keys(self) -> Sequence[SealKey]:
        """Every key that was ever announced, oldest first."""
        reading = self._pages.page(f"{KEY_SUBJECT_PREFIX}*", 1, timeout_s=REPLY_TIMEOUT_S)
        found, _more = await _answered("keys of seals", reading)
        return [_keys.decode(message.payload) for message in found[:MAX_KEYS]]

    async def announce(self, key: SealKey) -> None:
        """Makes a public key known; once is enough, and more does no harm."""
        message = (f"key-{key.key_id}", msgspec.json.encode(key))
        try:
            await self._log.append([Append(f"{KEY_SUBJECT_PREFIX}{key.key_id}", 0, (message,))])
        except Conflict:
            return  # it is known already


def _seal(message: Stored) -> StoredSeal:
    return StoredSeal(message.position, _seals.decode(message.payload), message.payload)


async def _answered(operation: str, request: Awaitable[T]) -> T:
    try:
        return await request
    except (nats.errors.Error, OSError, ApiError) as error:
        raise LogUnavailableError(f"{operation}: {error!r}") from error
