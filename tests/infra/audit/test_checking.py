"""What the check of the audit log finds, and where; its proof at scale is tests/chaos/mutations.py."""

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from domain.seal import StoredSeal, seal_hash
from infra.audit.checking import Checked, TamperedError, check_audit_log
from infra.audit.sealer import AuditTreeForkedError
from projections.audit_log import AUDIT_LOG
from projections.audit_tree import AUDIT_TREE
from projections.projection import Connection
from tests.infra.audit.sealed import Notary, entries_of, sealed_log, store

COUNT = 700
SIZES = (1, 300, 650)


async def check(connection: Connection, notary: Notary) -> Checked:
    return await check_audit_log(connection, notary.every(), notary.keys)


async def found(postgres_url: str, *statements: str) -> TamperedError:
    """What the check says after these changes; the same log without them is sound."""
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        await check(connection, notary)
        for statement in statements:
            await connection.execute(statement.encode())
        with pytest.raises(TamperedError) as finding:
            await check(connection, notary)
    return finding.value


async def test_a_sound_log_is_found_sound(postgres_url: str) -> None:
    pages: list[int] = []
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        checked = await check_audit_log(connection, notary.every(), notary.keys, advance=pages.append)
        newest = notary.seals[-1].seal
    assert checked == Checked(entries=COUNT, checkpoints=3, sealed_entries=650, newest_at=newest.at, root=newest.root)
    assert sum(pages) == COUNT


async def test_an_empty_log_is_sound(postgres_url: str) -> None:
    async with sealed_log(postgres_url, count=0, sizes=()) as (connection, notary):
        assert (await check(connection, notary)).entries == 0


@pytest.mark.parametrize(
    "column",
    [
        "event_id = 'x'", "subject = 'evt.x.y.z'", "aggregate = 'x'", "aggregate_id = 'x'", "version = version + 1",
        "type = 'ApiKeyCelebrated'", "organization_id = 'x'", "actor = 'user:mallory'", "cause = 'x'",
        "correlation = 'x'", "at = at + interval '1 microsecond'", "payload = set_byte(payload, 9, 0)",
    ],
)  # fmt: skip
async def test_a_changed_column_is_found_at_its_row(postgres_url: str, column: str) -> None:
    assert (await found(postgres_url, f"UPDATE audit_log SET {column} WHERE position = 123")).position == 123


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("DELETE FROM audit_log WHERE position = 5", 5),
        ("DELETE FROM audit_log WHERE position = 1", 1),
        ("DELETE FROM audit_log WHERE position > 690", 691),
        ("DELETE FROM audit_log", 1),
        ("UPDATE audit_log SET position = -position WHERE position = 5", -5),
        ("UPDATE audit_log SET position = 701 WHERE position = 5", 5),
        ("UPDATE audit_log SET position = 701 WHERE position = 700", 701),
        ("DELETE FROM audit_tree_nodes WHERE level = 0 AND index > 690", 692),
        ("UPDATE audit_tree_nodes SET hash = sha256(hash) WHERE level = 0 AND index = 40", 41),
        ("UPDATE audit_heads SET version = 9 WHERE subject LIKE '%key-0'", COUNT),
        ("UPDATE audit_heads SET payload_sha256 = repeat('0', 64) WHERE subject LIKE '%key-0'", COUNT),
        ("DELETE FROM audit_heads WHERE subject LIKE '%key-0'", COUNT),
    ],
)
async def test_what_is_missing_moved_or_unlike_is_found(postgres_url: str, statement: str, position: int) -> None:
    assert (await found(postgres_url, statement)).position == position


async def test_an_event_changed_with_its_columns_is_found_by_its_leaf(postgres_url: str) -> None:
    """The last event of its aggregate, beyond the last seal: no successor and no signature tells."""
    change = """
        UPDATE audit_log SET actor = 'user:mallory',
            payload = convert_to(replace(convert_from(payload, 'UTF8'), actor, 'user:mallory'), 'UTF8')
        WHERE position = 700
    """
    assert (await found(postgres_url, change)).position == 700


async def test_a_cut_that_takes_checkpoints_and_leaves_along_is_found_by_the_seal(postgres_url: str) -> None:
    cut = (
        "DELETE FROM audit_log WHERE position > 640",
        "DELETE FROM audit_tree_nodes WHERE level = 0 AND index >= 640",
        "UPDATE platform.checkpoints SET position = 640",
    )
    finding = await found(postgres_url, *cut)
    assert (finding.position, "a seal covers 650 entries" in finding.finding) == (641, True)


async def rewritten(connection: Connection) -> None:
    """Event 620 says something else, in every row, hash and leaf, as if it always had: perfect, and false."""
    await connection.execute(f"DROP SCHEMA platform, {AUDIT_LOG.schema}, {AUDIT_TREE.schema} CASCADE".encode())
    await store(connection, entries_of(COUNT, forged=620))


async def test_a_history_rewritten_everywhere_is_found_by_its_seal_alone(postgres_url: str) -> None:
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        await check(connection, notary)
        await rewritten(connection)
        with pytest.raises(TamperedError, match="entries 301 to 650 are not those that were sealed"):
            await check(connection, notary)
        notary.seals.pop()
        assert (await check(connection, notary)).sealed_entries == 300, "without its seal nobody could tell"


async def test_nothing_is_sealed_on_top_of_a_rewritten_history(postgres_url: str) -> None:
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        await rewritten(connection)
        with pytest.raises(AuditTreeForkedError, match="seal over 650"):
            await notary.seal(connection, COUNT)


def edited(seal: StoredSeal, **changes: object) -> StoredSeal:
    said = replace(seal.seal, **changes)
    return StoredSeal(seal.number, said, msgspec.json.encode(said))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: [s[0], s[2]], "does not follow"),
        (lambda s: s[1:], "does not follow"),
        (lambda s: [s[0], edited(s[1], at=s[0].seal.at), s[2]], "valid signature"),
        (lambda s: [s[0], s[1], edited(s[2], signature="00" * 64)], "valid signature"),
        (lambda s: [s[0], s[1], edited(s[2], signature="nonsense")], "valid signature"),
        (lambda s: [s[0], s[1], edited(s[2], key_id="f" * 16)], "not trusted"),
        (lambda s: [*s, edited(s[2], previous=seal_hash(s[2].stored))], "covers no more"),
    ],
)
async def test_seals_that_were_changed_are_found(
    postgres_url: str, change: Callable[[list[StoredSeal]], list[StoredSeal]], says: str
) -> None:
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        notary.seals = change(notary.seals)
        with pytest.raises(TamperedError, match=says):
            await check(connection, notary)


async def test_a_log_signed_anew_by_another_key_is_not_trusted(postgres_url: str) -> None:
    async with sealed_log(postgres_url, count=COUNT, sizes=()) as (connection, notary):
        forger = Notary()
        await forger.seal(connection, COUNT)
        with pytest.raises(TamperedError, match="not trusted"):
            await check_audit_log(connection, forger.every(), notary.keys)
