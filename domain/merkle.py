r"""A Merkle tree over the entries of a log, hashed as in RFC 6962: one root stands for every entry and their order.

                 root of 5                      leaf = SHA-256(0x00 || entry)
              /            \                    node = SHA-256(0x01 || left || right)
           [0,4)           [4,5)
          /     \                               complete subtree: 2**level leaves, never changes again
       [0,2)   [2,4)                            root: the complete subtrees, folded from the right

The surprising rule: nothing here holds a tree. A root or a proof is said as spans of leaves, and a span as complete
subtrees; who keeps the hashes of those (a table, a file, a list) looks them up and folds.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

EMPTY_ROOT = sha256(b"").digest()


class Span(NamedTuple):
    """Leaves from `start` up to, not including, `end`; counted from 0."""

    start: int
    end: int


class Subtree(msgspec.Struct, frozen=True):
    """A complete subtree: the leaves from index * 2**level, 2**level of them."""

    level: int
    index: int


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash above complete subtrees of falling size, from left to right; EMPTY_ROOT of none."""
    if not hashes:
        return EMPTY_ROOT
    folded = hashes[-1]
    for left in reversed(hashes[:-1]):
        folded = node_hash(left, folded)
    return folded


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The hash above 2**n hashes of one level."""
    level = list(hashes)
    while len(level) > 1:  # halves each time
        level = [node_hash(level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def subtrees(span: Span) -> list[Subtree]:
    """The complete subtrees of a span of the tree, largest first.

    Spans of the tree are those of roots and proofs: they begin where a subtree of at least their size begins.
    """
    found, start = [], span.start
    while start < span.end:
        level = (span.end - start).bit_length() - 1
        found.append(Subtree(level, start >> level))
        start += 1 << level
    return found


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The spans whose hashes prove that leaf `index` is in the tree of `size`: RFC 6962 2.1.1, lowest first.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    whole, path = Span(0, size), []
    while whole.end - whole.start > 1:
        middle = _middle(whole)
        left, right = Span(whole.start, middle), Span(middle, whole.end)
        whole, other = (left, right) if index < middle else (right, left)
        path.append(other)
    return path[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """The spans whose hashes prove that the tree of `old` begins that of `new`: RFC 6962 2.1.2, lowest first.

    None are needed for an empty or an equal tree.

    Raises:
        ValueError: the new tree is smaller.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves cannot follow one of {old}")
    if old in {0, new}:
        return []
    whole, path = Span(0, new), []
    while whole.end != old:
        middle = _middle(whole)
        left, right = Span(whole.start, middle), Span(middle, whole.end)
        whole, other = (left, right) if old <= middle else (right, left)
        path.append(other)
    if whole.start:  # the verifier knows the old root already when all of it is one subtree
        path.append(whole)
    return path[::-1]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof leads from the leaf's hash to the root of a tree of `size`."""
    if not 0 <= index < size:
        return False
    hashes, folded = iter(proof), leaf
    last = size - 1
    while last:  # one level up each time
        if index & 1 or index < last:
            other = next(hashes, None)
            if other is None:
                return False
            folded = node_hash(other, folded) if index & 1 else node_hash(folded, other)
        index, last = index >> 1, last >> 1
    return folded == root and next(hashes, None) is None


def is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the first `old` leaves of the tree of `new` are those that `old_root` stands for."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return old_root == EMPTY_ROOT and not proof
    if old == new:
        return old_root == new_root and not proof
    roots = _roots_of(old, new, old_root, iter(proof))
    return roots == (old_root, new_root)


def _roots_of(old: int, new: int, old_root: bytes, hashes: Iterator[bytes]) -> tuple[bytes, bytes] | None:
    """The roots of both trees as the proof gives them; None when it is too short or too long."""
    index, last = old - 1, new - 1
    while index & 1:  # up to the subtree that both trees share
        index, last = index >> 1, last >> 1
    first = next(hashes, None) if index else old_root
    if first is None:
        return None
    older = newer = first
    while last:  # one level up each time
        if index & 1 or index < last:
            other = next(hashes, None)
            if other is None:
                return None
            if index & 1:
                older, newer = node_hash(other, older), node_hash(other, newer)
            else:
                newer = node_hash(newer, other)
        index, last = index >> 1, last >> 1
    return None if next(hashes, None) is not None else (older, newer)


def _middle(span: Span) -> int:
    """Where RFC 6962 parts a span: after the largest power of two that is smaller than it."""
    return span.start + (1 << ((span.end - span.start - 1).bit_length() - 1))


class Frontier:
    """A tree that grows leaf by leaf and remembers only its complete subtrees: at most one of each size."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """`leaf` is its hash."""
        odd = self.size
        while odd & 1:
            leaf, odd = node_hash(self._peaks.pop(), leaf), odd >> 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        return fold(self._peaks)
