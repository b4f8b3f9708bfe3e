"""A thousand random changes to a sealed audit log, by somebody with every right on the database: how many are found?

    sealed log ──> savepoint ──> one change ──> the whole log is verified ──> found? ──> rolled back ──> the next one

Two controls show that the answer means something: the same log without a change must be found sound, and a verifier
whose comparisons are switched off (it reads every row, and compares nothing) must find none of the changes. The
surprising kinds are FORGERIES: an event is replaced, or the tail cut, together with columns, chain, leaves and nodes,
so that the tables agree perfectly. Only the signed seals tell; `mutations_seals_alone` counts what they alone find.
"""

import os
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from infra.audit.checking import PAGE_ROWS, TamperedError, check_audit_log
from infra.embedded.postgres import EmbeddedPostgres
from projections.audit_log import AUDIT_LOG, list_kept
from projections.audit_tree import AUDIT_TREE
from projections.projection import Connection, Entry
from tests.conftest import some_port, started
from tests.infra.audit.sealed import Notary, entries_of, sealed_log, store

ROWS = 2000
SIZES = (1, 700, 1400, 2000)
SEED = 20261121
"""Printed figures can be had again."""
TEXT_COLUMNS = (
    "event_id",
    "subject",
    "aggregate",
    "aggregate_id",
    "type",
    "organization_id",
    "actor",
    "correlation",
    "origin",
)
COLUMNS = ", ".join((*TEXT_COLUMNS, "version", "cause", "at", "payload"))
FORGERIES = ("rewritten", "cut_everywhere")

Check = Callable[[Connection, Notary], Awaitable[None]]
Mutate = Callable[[Connection, random.Random, int], Awaitable[object]]


async def measure(folder: Path, *, mutations: int = 1000, rows: int = ROWS) -> dict[str, int]:
    """Starts a Postgres of its own in the folder and makes the changes there; see mutate_all."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="mutations-") as place:
        os.chmod(place, 0o711)  # noqa: PTH101 - Postgres's unprivileged account walks through; Path may not, in async
        server = await started(lambda: EmbeddedPostgres(Path(place) / "postgres", some_port()))
        try:
            return await mutate_all(server.url, mutations=mutations, rows=rows)
        finally:
            await server.stop()


async def mutate_all(postgres_url: str, *, mutations: int, rows: int = ROWS) -> dict[str, int]:
    """Counts: `mutations` made, `mutations_detected`, and the controls.

    Returns:
        mutations_false_alarms: findings on the unchanged log, looked at before and after; must be 0.
        mutations_control_detected: found with the comparisons switched off; must be 0.
        mutations_seals_alone: forgeries that were found, and are not when the seals are left out.
    """
    chance = random.Random(SEED)
    kinds = [chance.choice(list(KINDS)) for _ in range(mutations)]
    made = dict.fromkeys(("mutations", "mutations_detected", "mutations_control_detected", "mutations_seals_alone"), 0)
    missed: list[str] = []
    sizes = [size * rows // ROWS or 1 for size in SIZES]
    async with sealed_log(postgres_url, count=rows, sizes=sizes) as (connection, notary):
        alarms = await _finds(connection, notary, verify)
        for kind in kinds:
            async with _undone(connection):
                await KINDS[kind](connection, chance, rows)
                found = await _finds(connection, notary, verify)
                made["mutations"] += 1
                made["mutations_detected"] += found
                made["mutations_control_detected"] += await _finds(connection, notary, read_without_comparing)
                if found and kind in FORGERIES:
                    made["mutations_seals_alone"] += not await _finds(connection, notary, verify_without_seals)
                if not found:
                    missed.append(kind)
        alarms += await _finds(connection, notary, verify)
    if missed:
        print(f"not detected: {', '.join(missed)}")
    return {**made, "mutations_false_alarms": alarms}


async def verify(connection: Connection, notary: Notary) -> None:
    await check_audit_log(connection, notary.every(), notary.keys)


async def verify_without_seals(connection: Connection, notary: Notary) -> None:
    await check_audit_log(connection, Notary().every(), notary.keys)


async def read_without_comparing(connection: Connection, notary: Notary) -> None:
    """The control: every row and every seal is read."""
    after = -(2**63)
    while page := await list_kept(connection, after=after, limit=PAGE_ROWS):
        after = page[-1].position
    async for _seal in notary.every():
        pass


async def _finds(connection: Connection, notary: Notary, check: Check) -> int:
    try:
        await check(connection, notary)
    except TamperedError:
        return 1
    return 0


@asynccontextmanager
async def _undone(connection: Connection) -> AsyncIterator[None]:
    await connection.execute("SAVEPOINT before")
    yield
    await connection.execute("ROLLBACK TO SAVEPOINT before")


async def _run(connection: Connection, statement: str, *values: object) -> None:
    cursor = await connection.execute(statement.encode(), values)
    assert cursor.rowcount > 0, f"changed nothing: {statement} {values}"


async def _flip_payload_bit(connection: Connection, chance: random.Random, rows: int) -> None:
    position = chance.randint(1, rows)
    cursor = await connection.execute("SELECT length(payload) FROM audit_log WHERE position = %s", (position,))
    ((length,),) = await cursor.fetchall()
    bit = chance.randrange(8 * length)
    change = "UPDATE audit_log SET payload = set_bit(payload, %s, 1 - get_bit(payload, %s)) WHERE position = %s"
    await _run(connection, change, bit, bit, position)


async def _change_text(connection: Connection, chance: random.Random, rows: int) -> None:
    """One character more or less, or another; what is empty (an origin may be) can only become more."""
    column = chance.choice(TEXT_COLUMNS)
    shorter = "CASE WHEN {0} = '' THEN 'x' ELSE left({0}, -1) END"
    change = chance.choice(("{0} || 'x'", shorter, "'~' || substr({0}, 2)"))
    statement = f"UPDATE audit_log SET {column} = {change.format(column)} WHERE position = %s"
    await _run(connection, statement, chance.randint(1, rows))


async def _change_cause(connection: Connection, chance: random.Random, rows: int) -> None:
    await _run(connection, "UPDATE audit_log SET cause = event_id WHERE position = %s", chance.randint(1, rows))


async def _change_version(connection: Connection, chance: random.Random, rows: int) -> None:
    by = chance.choice((-1, 1, 1000))
    await _run(
        connection, "UPDATE audit_log SET version = version + %s WHERE position = %s", by, chance.randint(1, rows)
    )


async def _change_time(connection: Connection, chance: random.Random, rows: int) -> None:
    by = chance.choice(("1 microsecond", "-1 second", "1 hour", "-1 year"))
    await _run(
        connection, f"UPDATE audit_log SET at = at + interval '{by}' WHERE position = %s", chance.randint(1, rows)
    )


async def _change_position(connection: Connection, chance: random.Random, rows: int) -> None:
    to = chance.choice((-chance.randint(1, rows), 0, rows + chance.randint(1, rows)))
    await _run(connection, "UPDATE audit_log SET position = %s WHERE position = %s", to, chance.randint(1, rows))


async def _swap_rows(connection: Connection, chance: random.Random, rows: int) -> None:
    """Two events change places: everything but the position."""
    one, two = chance.sample(range(1, rows + 1), 2)
    away = "UPDATE audit_log SET position = %s WHERE position = %s"
    for to, position in ((0, one), (one, two), (two, 0)):
        await _run(connection, away, to, position)


async def _delete_row(connection: Connection, chance: random.Random, rows: int) -> None:
    await _run(connection, "DELETE FROM audit_log WHERE position = %s", chance.randint(1, rows))


async def _delete_and_close_the_gap(connection: Connection, chance: random.Random, rows: int) -> None:
    position = chance.randint(1, rows)
    await _run(connection, "DELETE FROM audit_log WHERE position = %s", position)
    if position < rows:
        await _run(connection, "UPDATE audit_log SET position = -position WHERE position > %s", position)
        await _run(connection, "UPDATE audit_log SET position = -position - 1 WHERE position < 0")


async def _insert_row(connection: Connection, chance: random.Random, rows: int) -> None:
    """A copy of another event, before, behind, or (the others making room) among them."""
    at = chance.choice((0, -chance.randint(1, rows), rows + 1, chance.randint(1, rows)))
    if 0 < at <= rows:
        await _run(connection, "UPDATE audit_log SET position = -position WHERE position >= %s", at)
        await _run(connection, "UPDATE audit_log SET position = 1 - position WHERE position < 0")
    copied = chance.choice([n for n in range(1, rows + 1) if n != at])
    await _run(
        connection,
        f"INSERT INTO audit_log (position, {COLUMNS}) SELECT %s, {COLUMNS} FROM audit_log WHERE position = %s",
        at,
        copied,
    )


async def _cut_tail(connection: Connection, chance: random.Random, rows: int) -> None:
    await _run(connection, "DELETE FROM audit_log WHERE position > %s", chance.randrange(rows))


async def _cut_tail_everywhere(connection: Connection, chance: random.Random, rows: int) -> None:
    """Rows, tree, heads and checkpoints, as if the log had always ended there."""
    await _store_anew(connection, entries_of(chance.randrange(1, rows)))


async def _change_head(connection: Connection, chance: random.Random, rows: int) -> None:
    change = chance.choice(
        (
            "UPDATE audit_heads SET payload_sha256 = encode(sha256(payload_sha256::bytea), 'hex')",
            "UPDATE audit_heads SET version = version + 1",
            "DELETE FROM audit_heads",
        )
    )
    subject = "(SELECT subject FROM audit_log WHERE position = %s)"
    await _run(connection, f"{change} WHERE subject = {subject}", chance.randint(1, rows))


async def _rewrite(connection: Connection, chance: random.Random, rows: int) -> None:
    """One event was somebody else's doing, and always had been, in every table."""
    await _store_anew(connection, entries_of(rows, forged=chance.randint(1, rows)))


async def _store_anew(connection: Connection, entries: list[Entry]) -> None:
    schemas = f"platform, {AUDIT_LOG.schema}, {AUDIT_TREE.schema}"
    await connection.execute(f"DROP SCHEMA {schemas} CASCADE".encode())
    await store(connection, entries)


KINDS: dict[str, Mutate] = {
    "payload": _flip_payload_bit,
    "text": _change_text,
    "cause": _change_cause,
    "version": _change_version,
    "at": _change_time,
    "position": _change_position,
    "swapped": _swap_rows,
    "deleted": _delete_row,
    "deleted_and_closed": _delete_and_close_the_gap,
    "inserted": _insert_row,
    "cut": _cut_tail,
    "cut_everywhere": _cut_tail_everywhere,
    "head": _change_head,
    "rewritten": _rewrite,
}
"""Text and payload are chosen as often as any other kind; each run makes about mutations / 14 of each."""
