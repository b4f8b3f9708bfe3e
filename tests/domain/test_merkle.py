"""The Merkle tree: RFC 6962's definitions as the oracle, its published vectors, and proofs that show only the truth."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    Span,
    consistency_spans,
    fold,
    inclusion_spans,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
    subtrees,
)

ENTRIES = [bytes.fromhex(x) for x in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Entries and roots that certificate transparency's implementations test themselves with."""
MAX_LEAVES = 200


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(n.to_bytes(4, "big")) for n in range(size)]


def rfc_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 2.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = rfc_part(len(hashes))
    return node_hash(rfc_root(hashes[:k]), rfc_root(hashes[k:]))


def rfc_path(m: int, hashes: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 2.1.1."""
    if len(hashes) == 1:
        return []
    k = rfc_part(len(hashes))
    if m < k:
        return [*rfc_path(m, hashes[:k]), rfc_root(hashes[k:])]
    return [*rfc_path(m - k, hashes[k:]), rfc_root(hashes[:k])]


def rfc_subproof(m: int, hashes: list[bytes], *, known: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 2.1.2."""
    if m == len(hashes):
        return [] if known else [rfc_root(hashes)]
    k = rfc_part(len(hashes))
    if m <= k:
        return [*rfc_subproof(m, hashes[:k], known=known), rfc_root(hashes[k:])]
    return [*rfc_subproof(m - k, hashes[k:], known=False), rfc_root(hashes[:k])]


def rfc_part(size: int) -> int:
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def hash_of(span: Span, hashes: list[bytes]) -> bytes:
    return fold([rfc_root(hashes[s.index << s.level : (s.index + 1) << s.level]) for s in subtrees(span)])


def inclusion(index: int, hashes: list[bytes]) -> list[bytes]:
    return [hash_of(span, hashes) for span in inclusion_spans(index, len(hashes))]


def consistency(old: int, hashes: list[bytes]) -> list[bytes]:
    return [hash_of(span, hashes) for span in consistency_spans(old, len(hashes))]


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, int]:
    """(a number within, the size of a tree)"""
    size = draw(st.integers(1, MAX_LEAVES))
    return draw(st.integers(0, size - 1)), size


def test_published_roots_come_out() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT == sha256().digest()
    for entry, root in zip(ENTRIES, ROOTS, strict=True):
        frontier.append(leaf_hash(entry))
        assert frontier.root().hex() == root


@given(st.integers(0, MAX_LEAVES))
def test_a_growing_tree_has_the_root_of_the_definition(size: int) -> None:
    frontier = Frontier()
    for leaf in leaves(size):
        frontier.append(leaf)
    assert frontier.size == size
    assert frontier.root() == rfc_root(leaves(size)) == hash_of(Span(0, size), leaves(size))


@given(trees())
def test_an_inclusion_proof_is_the_definitions_and_convinces(tree: tuple[int, int]) -> None:
    index, size = tree
    hashes = leaves(size)
    proof = inclusion(index, hashes)
    assert proof == rfc_path(index, hashes)
    assert is_included(hashes[index], index, size, proof, rfc_root(hashes))


@given(trees())
def test_a_consistency_proof_is_the_definitions_and_convinces(tree: tuple[int, int]) -> None:
    old, new = tree[0] + 1, tree[1]
    hashes = leaves(new)
    proof = consistency(old, hashes)
    assert proof == rfc_subproof(old, hashes, known=True)
    assert is_consistent(old, new, rfc_root(hashes[:old]), rfc_root(hashes), proof)


@settings(max_examples=300)
@given(trees(), st.data())
def test_a_changed_inclusion_proof_convinces_nobody(tree: tuple[int, int], data: st.DataObject) -> None:
    index, size = tree
    hashes = leaves(size)
    proof, root = inclusion(index, hashes), rfc_root(hashes)
    forged = data.draw(st.sampled_from([proof[:-1], [*proof, root], [*proof[:-1], leaf_hash(b"forged")]]))
    assert not is_included(leaf_hash(b"forged"), index, size, proof, root)
    assert forged == proof or not is_included(hashes[index], index, size, forged, root)
    other = data.draw(st.integers(-1, size))
    assert other == index or not is_included(hashes[index], other, size, proof, root)


@settings(max_examples=300)
@given(trees(), st.data())
def test_a_tree_whose_past_was_changed_is_never_consistent(tree: tuple[int, int], data: st.DataObject) -> None:
    old, new = tree[0] + 1, tree[1]
    hashes = leaves(new)
    before = rfc_root(hashes[:old])
    hashes[data.draw(st.integers(0, old - 1))] = leaf_hash(b"forged")
    assert not is_consistent(old, new, before, rfc_root(hashes), consistency(old, hashes))


@given(trees())
def test_a_consistency_proof_of_another_length_convinces_nobody(tree: tuple[int, int]) -> None:
    old, new = tree[0] + 1, tree[1]
    hashes = leaves(new)
    proof, roots = consistency(old, hashes), (rfc_root(hashes[:old]), rfc_root(hashes))
    assert not is_consistent(old, new, *roots, [*proof, roots[0]])
    assert not proof or not is_consistent(old, new, *roots, proof[:-1])


def test_every_tree_follows_the_empty_one() -> None:
    assert consistency_spans(0, 7) == []
    assert is_consistent(0, 7, EMPTY_ROOT, rfc_root(leaves(7)), [])
    assert not is_consistent(0, 7, leaf_hash(b""), rfc_root(leaves(7)), [])


def test_what_cannot_be_proved_is_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_spans(3, 3)
    with pytest.raises(ValueError, match="cannot follow"):
        consistency_spans(4, 3)
    assert not is_consistent(4, 3, EMPTY_ROOT, EMPTY_ROOT, [])
