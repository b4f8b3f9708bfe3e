"""The tree of the audit log: roots and proofs from rows, against the tree folded in memory."""

import pytest
from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed
from domain.merkle import EMPTY_ROOT, Frontier, is_consistent, is_included, leaf_hash
from domain.seal import leaf_entry
from projections.audit_tree import (
    AUDIT_TREE,
    TreeTooSmallError,
    consistency_proof,
    inclusion_proof,
    list_leaves,
    tree_root,
    tree_size,
)
from projections.projection import Entry, LogDamagedError
from tests.examples import example
from tests.projections.grammar import Story, all_rows, projected

SIZE = 1100
SIZES = (1, 2, 255, 256, 257, 511, 512, 600, 1024, SIZE)
"""Around the edges of the subtrees that are kept."""


def entries_of(size: int) -> list[Entry]:
    renames = [ApiKeyRenamed(name=f"name {n}") for n in range(size - 1)]
    return Story().happened("acme", "k-1", example(ApiKeyIssued), *renames).of(AUDIT_TREE)


ENTRIES = entries_of(SIZE)
LEAVES = [leaf_hash(leaf_entry(e.position, e.subject, e.payload)) for e in ENTRIES]


def root_of(size: int) -> bytes:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    return frontier.root()


async def test_every_earlier_root_can_still_be_told(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_TREE, ENTRIES, batches=[1, 200, 300, 1000]) as connection:
        assert await tree_size(connection) == SIZE
        for size in SIZES:
            assert await tree_root(connection, size) == root_of(size)
        assert await list_leaves(connection, 250, 260) == LEAVES[250:260]


async def test_proofs_convince_whoever_has_the_root(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_TREE, ENTRIES) as connection:
        for size in SIZES:
            for position in {1, size // 2 + 1, size}:
                proof = await inclusion_proof(connection, position, size)
                assert is_included(LEAVES[position - 1], position - 1, size, proof, root_of(size))
            proof = await consistency_proof(connection, size, SIZE)
            assert is_consistent(size, SIZE, root_of(size), root_of(SIZE), proof)


async def test_an_empty_tree_has_the_empty_root(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_TREE, []) as connection:
        assert (await tree_size(connection), await tree_root(connection, 0)) == (0, EMPTY_ROOT)
        with pytest.raises(TreeTooSmallError):
            await tree_root(connection, 1)


async def test_what_is_not_in_the_tree_cannot_be_proved(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_TREE, ENTRIES[:3]) as connection:
        with pytest.raises(TreeTooSmallError):
            await inclusion_proof(connection, 2, 5)
        with pytest.raises(ValueError, match="no leaf"):
            await inclusion_proof(connection, 4, 3)
        assert await list_leaves(connection, 2, 10) == LEAVES[2:3]


async def test_only_each_256th_leaf_costs_a_second_row(postgres_url: str) -> None:
    async with projected(postgres_url, AUDIT_TREE, ENTRIES) as connection:
        (rows,) = (await all_rows(connection, AUDIT_TREE)).values()
    assert len(rows) == SIZE + SIZE // 256


@pytest.mark.parametrize("batches", [[], [1]], ids=["in one batch", "across batches"])
async def test_a_position_left_out_is_noticed(postgres_url: str, batches: list[int]) -> None:
    entries = [ENTRIES[0], replace(ENTRIES[1], position=3)]
    with pytest.raises(LogDamagedError, match="position 3"):
        async with projected(postgres_url, AUDIT_TREE, entries, batches=batches):
            pass
