"""Signs the head of the audit log's tree: implements handlers.ports.AuditSealer.

    SEALS: last seal ──┐
                       ├── does the tree still begin as it was sealed? ── yes ──> sign, append behind the last seal
    Postgres: tree ────┘                                               └── no ───> refuse: history was rewritten

The surprising rule: a fork is never repaired here. Whoever finds `audit_tree_forked` in the log of the handlers runs
`inventiv audit verify`, and asks who had access.
"""

from datetime import datetime

import structlog

from domain.merkle import is_consistent
from domain.seal import Seal, SealKey, StoredSeal, origin_of, seal_hash
from handlers.ports import AuditStanding
from infra.audit.seals import SealStore
from infra.audit.signing_key import SigningKey
from projections.audit_tree import consistency_proof, list_leaves, tree_root, tree_size
from projections.projection import Connection, Read

_log = structlog.get_logger(__name__)


class AuditTreeForkedError(RuntimeError):
    """The tree is no continuation of what the last seal says: entries that were sealed have changed."""


class Sealer:
    """See handlers/ports.py.

    Args:
        store: over a writer's connection.
        read: the read side's door.
        key: signs.
    """

    def __init__(self, store: SealStore, read: Read, key: SigningKey) -> None:
        self._store = store
        self._read = read
        self._key = key
        self._announced = False
        self._said_forked = False

    async def standing(self) -> AuditStanding:
        last = await self._store.latest()
        async with self._read("audit_tree") as connection:
            size = await tree_size(connection)
        return AuditStanding(
            entries=size, sealed=last.seal.size if last else 0, sealed_at=last.seal.at if last else None
        )

    async def seal(self, entries: int, at: datetime) -> None:
        last = await self._store.latest()
        if last is not None and last.seal.size >= entries:
            return  # another process sealed meanwhile
        try:
            async with self._read("audit_tree") as connection:
                seal = self._key.signed(await next_seal(connection, last, entries, at))
        except AuditTreeForkedError as fork:
            if not self._said_forked:
                _log.critical("audit_tree_forked", finding=str(fork), cure="inventiv audit verify")
                self._said_forked = True
            raise
        if not self._announced:
            await self._store.announce(SealKey(key_id=seal.key_id, public_key=self._key.public_key.hex(), at=seal.at))
            self._announced = True
        if await self._store.append(seal, after=last):
            _log.info("audit_log_sealed", entries=entries, root=seal.root)


async def next_seal(connection: Connection, last: StoredSeal | None, entries: int, at: datetime) -> Seal:
    """What is to be signed next, over the first `entries`; unsigned.

    Args:
        connection: sees the audit tree.
        last: the newest seal; None when there is none.
        entries: more than it covers.
        at: cut to whole seconds.

    Raises:
        AuditTreeForkedError: see the class.
        TreeTooSmallError: the tree has fewer entries.
    """
    root = await tree_root(connection, entries)
    origin = origin_of((await list_leaves(connection, 0, 1))[0])
    if last is not None:
        proof = await consistency_proof(connection, last.seal.size, entries)
        sealed_root = bytes.fromhex(last.seal.root)
        if origin != last.seal.origin or not is_consistent(last.seal.size, entries, sealed_root, root, proof):
            raise AuditTreeForkedError(
                f"the tree of {entries} entries does not go on from the seal over {last.seal.size}"
            )
    return Seal(
        origin=origin,
        size=entries,
        root=root.hex(),
        at=at.replace(microsecond=0),
        key_id="",
        previous=seal_hash(last.stored) if last else "",
    )
