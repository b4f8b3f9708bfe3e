"""Holds every row of the audit log against its payload, its aggregate's chain, the tree's leaves, and the signed seals.

    row ──┬─ columns = payload?   position = the one before + 1?   leaf = the tree's?   chain goes on?
          └─> frontier ──at a seal's size──> root = the seal's?   seal signed by a trusted key, behind the one before?

The surprising rule: the order of belief is signature, payload, column. Somebody who owns the database can make rows,
chain and tree agree; a root that was signed, and kept elsewhere, they cannot.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

import msgspec

from domain.merkle import Frontier, leaf_hash
from domain.message import Recorded
from domain.seal import StoredSeal, leaf_entry, origin_of, seal_hash
from infra.audit.signing_key import is_signed
from infra.events.chain import Chain
from projections.audit_log import AUDIT_LOG, Kept, find_unlike_head, list_kept
from projections.audit_tree import AUDIT_TREE, list_leaves, tree_size
from projections.checkpoint import position_of
from projections.projection import Connection, LogDamagedError

PAGE_ROWS = 500
BEFORE_ANY = -(2**63)
"""A row that somebody put in may have any position."""


class TamperedError(Exception):
    """Something is not as it was written; `position` is the first that is known to be wrong."""

    def __init__(self, position: int, finding: str) -> None:
        super().__init__(f"position {position}: {finding}")
        self.position = position
        self.finding = finding


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found to hold.

    Attributes:
        entries: positions 1 to this were checked.
        sealed_entries: of them, covered by the newest seal; the rest agree with each other, and nobody signed for them.
        newest_at: when that seal was made.
    """

    entries: int
    checkpoints: int
    sealed_entries: int
    newest_at: datetime | None
    root: str | None


class SealChecker:
    """Follows the seals: each behind the one before, each signed by a trusted key (key id -> 32 raw bytes)."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys
        self._last: StoredSeal | None = None
        self.count = 0

    @property
    def last(self) -> StoredSeal | None:
        return self._last

    def take(self, found: StoredSeal, origin: str, root: bytes) -> None:
        """The next seal, whose size has just been reached with this root.

        Raises:
            TamperedError: it is not what it must be.
        """
        seal, last = found.seal, self._last
        first = last.seal.size + 1 if last else 1
        where = f"the seal over {seal.size} entries"
        if last is not None and seal.size <= last.seal.size:
            raise TamperedError(first, f"{where} covers no more than the one before it")
        if seal.previous != (seal_hash(last.stored) if last else ""):
            raise TamperedError(first, f"{where} does not follow the one before it")
        if (key := self._keys.get(seal.key_id)) is None:
            raise TamperedError(first, f"{where} is signed by key {seal.key_id}, which is not trusted")
        if not is_signed(seal, key):
            raise TamperedError(first, f"{where} does not have a valid signature")
        if (seal.origin, seal.root) != (origin, root.hex()):
            raise TamperedError(first, f"entries {first} to {seal.size} are not those that were sealed")
        self._last, self.count = found, self.count + 1


class _Walk:
    """The rows in order, each checked against all that can be known of it when it comes."""

    def __init__(self, head: int) -> None:
        self.frontier = Frontier()
        self.origin = ""
        self._chain = Chain()
        self._head = head

    def step(self, row: Kept, leaf_of_tree: bytes | None) -> None:
        due = self.frontier.size + 1
        if row.position < due or row.position > self._head:
            raise TamperedError(row.position, "the row stands for no event of the log")
        if row.position != due:
            raise TamperedError(due, "the row is missing")
        if row.wrong or row.envelope is None:
            raise TamperedError(due, row.wrong)
        leaf = leaf_hash(leaf_entry(due, row.subject, row.payload))
        if leaf_of_tree not in {None, leaf}:
            raise TamperedError(due, "the row, or its leaf in the tree, is not as it was written")
        try:
            self._chain.check([Recorded(due, row.subject, row.payload, row.envelope)])
        except LogDamagedError as damage:
            raise TamperedError(due, str(damage)) from damage
        self.origin = self.origin or origin_of(leaf)
        self.frontier.append(leaf)


async def check_audit_log(
    connection: Connection,
    seals: AsyncIterator[StoredSeal],
    keys: Mapping[str, bytes],
    *,
    advance: Callable[[int], None] = lambda _rows: None,
) -> Checked:
    """Checks every row and every seal, in one pass; memory does not grow with the log.

    Args:
        connection: sees the tables of audit_log and audit_tree, and one moment of them.
        seals: oldest first; none of them younger than that moment.
        keys: trusted public keys by key id.
        advance: told of each page of rows.

    Raises:
        TamperedError: at the first thing that does not hold.
    """
    head, leaves = await position_of(connection, AUDIT_LOG), await tree_size(connection)
    if leaves != await position_of(connection, AUDIT_TREE):
        raise TamperedError(leaves + 1, "the audit tree ends elsewhere than its checkpoint says")
    walk, checker = _Walk(head), SealChecker(keys)
    pending = await anext(seals, None)
    async for row, leaf in _rows(connection, leaves, advance):
        walk.step(row, leaf)
        while pending is not None and pending.seal.size <= walk.frontier.size:  # bounded: each seal is taken once
            checker.take(pending, walk.origin, walk.frontier.root())
            pending = await anext(seals, None)
    reached = walk.frontier.size
    if reached != head:
        raise TamperedError(reached + 1, f"the row is missing: the rows end here, and their checkpoint is at {head}")
    if pending is not None:
        raise TamperedError(reached + 1, f"a seal covers {pending.seal.size} entries, and the audit log ends before")
    if (subject := await find_unlike_head(connection)) is not None:
        raise TamperedError(reached, f"the kept head of {subject} is not its last event")
    last = checker.last.seal if checker.last else None
    return Checked(
        entries=reached,
        checkpoints=checker.count,
        sealed_entries=last.size if last else 0,
        newest_at=last.at if last else None,
        root=last.root if last else None,
    )


async def _rows(
    connection: Connection, leaves: int, advance: Callable[[int], None]
) -> AsyncIterator[tuple[Kept, bytes | None]]:
    """Each row with the leaf that the tree has at its position; None beyond the tree's end."""
    after = BEFORE_ANY
    while page := await list_kept(connection, after=after, limit=PAGE_ROWS):  # bounded: each page moves on
        start = max(0, page[0].position - 1)
        known = await list_leaves(connection, start, start + PAGE_ROWS)
        for row in page:
            index = row.position - 1 - start
            if 0 <= index < len(known):
                yield row, known[index]
            elif row.position <= leaves:
                raise TamperedError(row.position, "the audit tree has no leaf for this row")
            else:
                yield row, None
        advance(len(page))
        after = page[-1].position
