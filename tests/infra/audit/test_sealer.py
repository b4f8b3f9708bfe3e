"""The sealer on a real stream and real tables: each seal goes on from the last, and two signers make one chain."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import nats.js.errors
import pytest
from structlog.testing import capture_logs

from domain.seal import SealKey, seal_hash
from infra.audit.checking import check_audit_log
from infra.audit.sealer import AuditTreeForkedError, Sealer
from infra.audit.seals import SEAL_SUBJECT, SealStore
from infra.audit.signing_key import SigningKey, is_signed, read_signing_key
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.streams import SEALS
from infra.postgres import ReadModels, connect, search_path
from infra.secret_files import SecretFileError
from projections.projection import EVERYTHING
from tests.domain.test_seal import SEAL
from tests.given import NOON
from tests.infra.audit.sealed import TABLES, entries_of, store


@asynccontextmanager
async def sealing(nats_server: EmbeddedNats) -> AsyncIterator[SealStore]:
    nc = await connect_writer(nats_server.url, "test")
    try:
        yield SealStore(nc)
    finally:
        await disconnect(nc)


async def stored(postgres_url: str, count: int) -> None:
    async with await connect(postgres_url, "test", search_path=search_path(TABLES)) as connection:
        await store(connection, entries_of(count))
        await connection.commit()


def reading(postgres_url: str) -> ReadModels:
    return ReadModels(postgres_url, projections=TABLES, scope=EVERYTHING)


async def test_each_seal_goes_on_from_the_last(nats_server: EmbeddedNats, postgres_url: str) -> None:
    await stored(postgres_url, 20)
    key = SigningKey(os.urandom(32))
    async with sealing(nats_server) as seals, reading(postgres_url) as read:
        sealer = Sealer(seals, read, key)
        assert (await sealer.standing()).sealed_at is None
        await sealer.seal(20, NOON)
        await stored(postgres_url, 35)
        standing = await sealer.standing()
        assert (standing.entries, standing.sealed, standing.sealed_at) == (35, 20, NOON)
        await sealer.seal(35, NOON + timedelta(minutes=1, microseconds=7))
        await sealer.seal(35, NOON + timedelta(minutes=2))
        one, two = await seals.page()
        assert [found.seal async for found in seals.every()] == [one.seal, two.seal]
        assert await seals.page(after=one.number, limit=1) == [two] == [await seals.latest()]
        assert (one.seal.previous, two.seal.previous) == ("", seal_hash(one.stored))
        assert (two.seal.size, two.seal.at) == (35, NOON + timedelta(minutes=1))
        assert all(is_signed(found.seal, key.public_key) for found in (one, two))
        assert await seals.keys() == [SealKey(key_id=key.key_id, public_key=key.public_key.hex(), at=NOON)]
        async with read("audit_log", "audit_tree") as connection:
            checked = await check_audit_log(connection, seals.every(), {key.key_id: key.public_key})
        assert (checked.checkpoints, checked.sealed_entries) == (2, 35)


async def test_two_signers_make_one_chain(nats_server: EmbeddedNats, postgres_url: str) -> None:
    await stored(postgres_url, 20)
    key = SigningKey(os.urandom(32))
    async with sealing(nats_server) as one, sealing(nats_server) as two, reading(postgres_url) as read:
        signers = [Sealer(seals, read, key) for seals in (one, two)]
        for size in range(1, 21):
            at = [NOON + timedelta(seconds=size, minutes=n) for n in (0, 1)]
            await asyncio.gather(*(signer.seal(size, at[n]) for n, signer in enumerate(signers)))
        found = [seal async for seal in one.every()]
    assert [seal.seal.size for seal in found] == list(range(1, 21))
    hashes = ["", *(seal_hash(seal.stored) for seal in found)]
    assert [seal.seal.previous for seal in found] == hashes[:-1]


async def test_a_rewritten_history_is_refused_and_said_once(nats_server: EmbeddedNats, postgres_url: str) -> None:
    await stored(postgres_url, 20)
    async with sealing(nats_server) as seals, reading(postgres_url) as read:
        sealer = Sealer(seals, read, SigningKey(os.urandom(32)))
        await sealer.seal(15, NOON)
        async with await connect(postgres_url, "test", search_path=search_path(TABLES)) as connection:
            await connection.execute("UPDATE audit_tree_nodes SET hash = sha256(hash) WHERE index = 3")
            await connection.commit()
        with capture_logs() as lines:
            for _ in range(2):
                with pytest.raises(AuditTreeForkedError):
                    await sealer.seal(20, NOON)
        assert [(line["event"], line["log_level"]) for line in lines] == [("audit_tree_forked", "critical")]
        assert len(await seals.page()) == 1


async def test_a_tree_that_is_behind_its_seals_is_left_alone(nats_server: EmbeddedNats, postgres_url: str) -> None:
    await stored(postgres_url, 20)
    async with sealing(nats_server) as seals, reading(postgres_url) as read:
        sealer = Sealer(seals, read, SigningKey(os.urandom(32)))
        await sealer.seal(15, NOON)
        await sealer.seal(10, NOON)
        assert len(await seals.page()) == 1


async def test_no_service_can_take_a_seal_away(nats_server: EmbeddedNats, postgres_url: str) -> None:
    await stored(postgres_url, 3)
    async with sealing(nats_server) as seals, reading(postgres_url) as read:
        await Sealer(seals, read, SigningKey(os.urandom(32))).seal(3, NOON)
        latest = await seals.latest()
    admin = await nats.connect(nats_server.admin_url)
    try:
        for attempt in (
            admin.jetstream().delete_msg(SEALS, latest.number if latest else 0),
            admin.jetstream().purge_stream(SEALS, subject=SEAL_SUBJECT),
        ):
            with pytest.raises(nats.js.errors.APIError):
                await attempt
    finally:
        await admin.close()


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    key = read_signing_key(tmp_path / "secrets", make=True)
    assert read_signing_key(tmp_path / "secrets").public_key == key.public_key
    path = tmp_path / "secrets" / "audit_signing_key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(SecretFileError, match="32 bytes"):
        read_signing_key(tmp_path / "secrets")


def test_a_signature_is_for_exactly_what_was_said() -> None:
    key = SigningKey(os.urandom(32))
    signed = key.signed(SEAL)
    assert is_signed(signed, key.public_key)
    for change in ({"size": 1001}, {"at": NOON}, {"root": "11" * 32}, {"previous": ""}, {"origin": "another"}):
        assert not is_signed(msgspec.structs.replace(signed, **change), key.public_key)
