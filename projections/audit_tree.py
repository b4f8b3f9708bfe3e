"""The Merkle tree over every entry of the log: what seals sign, and what proofs are made of.

    envelope ──> leaf hash ──> row (0, n)       every 256 of them ──> row (8, n)       of those ──> row (16, n) ...

Kept are the leaves and the complete subtrees of 256, 65,536 ... leaves; a hash between them is folded from at most 128
rows when it is asked for. So a tree of n costs n / 255 rows more than its leaves, and none is ever written again.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from domain.merkle import Span, Subtree, complete_root, consistency_spans, fold, inclusion_spans, leaf_hash, subtrees
from domain.seal import leaf_entry
from projections.projection import EVERYONE, Connection, Entry, LogDamagedError, Projection
from projections.query import find_all, find_one
from projections.table import Table

STEP = 8
"""Levels between those that are kept: a subtree is folded from up to 2**(STEP - 1) rows, and 2**STEP make the next."""
MAX_LEVEL = 56
"""No log holds 2**64 entries."""
LEAVES_PER_ROW = 1 << STEP

_TABLES = """
CREATE TABLE audit_tree_nodes (
    level bigint NOT NULL,
    index bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (level, index)
)
"""


class _Node(msgspec.Struct, frozen=True):
    level: int
    index: int
    hash: bytes


class _Size(msgspec.Struct, frozen=True):
    size: int


_nodes = Table("audit_tree_nodes", _Node, key=("level", "index"))
_Hashes = Mapping[tuple[int, int], bytes]


class TreeTooSmallError(LookupError):
    """The tree does not reach as far as was asked, or lacks a row that it must have."""


async def tree_size(connection: Connection) -> int:
    """Leaves in the tree, which are the log's positions from 1 on."""
    found = await find_one(
        connection, _Size, "SELECT coalesce(max(index), -1) + 1 AS size FROM audit_tree_nodes WHERE level = 0"
    )
    return found.size if found else 0


async def tree_root(connection: Connection, size: int) -> bytes:
    """The root over the first `size` leaves.

    Raises:
        TreeTooSmallError: it has fewer.
    """
    return (await _hashes_of(connection, [Span(0, size)]))[0]


async def inclusion_proof(connection: Connection, position: int, size: int) -> list[bytes]:
    """That the entry at a position (from 1) is in the tree over the first `size`; lowest hash first.

    Raises:
        ValueError: no such position in a tree of that size.
        TreeTooSmallError: the tree has fewer leaves.
    """
    return await _hashes_of(connection, inclusion_spans(position - 1, size))


async def consistency_proof(connection: Connection, old: int, new: int) -> list[bytes]:
    """That the tree over the first `old` leaves begins the one over the first `new`.

    Raises:
        ValueError: `new` is smaller.
        TreeTooSmallError: the tree has fewer leaves.
    """
    return await _hashes_of(connection, consistency_spans(old, new))


async def list_leaves(connection: Connection, start: int, end: int) -> list[bytes]:
    """The leaf hashes of the indexes from `start` up to, not including, `end`; they stop before one that is missing."""
    query = """
        SELECT level, index, hash FROM audit_tree_nodes WHERE level = 0 AND index >= %s AND index < %s ORDER BY index
    """
    rows = await find_all(connection, _Node, query, (start, end))
    return [row.hash for expected, row in enumerate(rows, start=start) if row.index == expected]


async def _hashes_of(connection: Connection, spans: Sequence[Span]) -> list[bytes]:
    """The hash over each span, all from one statement."""
    wanted = [key for span in spans for subtree in subtrees(span) for key in _rows_of(subtree)]
    rows = await _nodes.load(connection, wanted)
    known = {key: row.hash for key, row in rows.items()}
    return [fold([_subtree_hash(subtree, known) for subtree in subtrees(span)]) for span in spans]


def _rows_of(subtree: Subtree) -> Iterable[tuple[int, int]]:
    """The rows below a complete subtree: all of one kept level."""
    kept = subtree.level - subtree.level % STEP
    width = 1 << (subtree.level - kept)
    return [(kept, index) for index in range(subtree.index * width, (subtree.index + 1) * width)]


def _subtree_hash(subtree: Subtree, known: _Hashes) -> bytes:
    try:
        return complete_root([known[key] for key in _rows_of(subtree)])
    except KeyError as missing:
        raise TreeTooSmallError(f"the audit tree has no node {missing}") from missing


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    size = await tree_size(connection)
    for position, entry in enumerate(entries, start=size + 1):
        if entry.position != position:
            raise LogDamagedError(entry.position, f"the audit tree has {size} leaves; leaf {position} must come next")
    grown = [
        _Node(0, entry.position - 1, leaf_hash(leaf_entry(entry.position, entry.subject, entry.payload)))
        for entry in entries
    ]
    rows = list(grown)
    for level in range(0, MAX_LEVEL, STEP):  # ends where no subtree of the next kept level became complete
        grown = await _completed(connection, level, grown)
        if not grown:
            break
        rows += grown
    await _nodes.add(connection, rows)


async def _completed(connection: Connection, level: int, grown: Sequence[_Node]) -> list[_Node]:
    """The nodes of the next kept level that new nodes of this one complete."""
    start = grown[0].index - grown[0].index % LEAVES_PER_ROW
    end = grown[-1].index + 1
    end -= end % LEAVES_PER_ROW
    if end <= start:
        return []
    stored = await _nodes.load(connection, [(level, index) for index in range(start, grown[0].index)])
    hashes = [stored[level, index].hash for index in range(start, grown[0].index)] + [node.hash for node in grown]
    return [
        _Node(level + STEP, (start + first) >> STEP, complete_root(hashes[first : first + LEAVES_PER_ROW]))
        for first in range(0, end - start, LEAVES_PER_ROW)
    ]


# Hashes tell nothing of what was hashed, and a proof about one's own entry is made of everybody's.
AUDIT_TREE = Projection("audit_tree", 1, _TABLES, apply, visible={"audit_tree_nodes": EVERYONE})
