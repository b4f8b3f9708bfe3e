"""The book of spending follows USAGE, and starts from whatever copy there is."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.usage import UsageRecord, usage_subject
from gateway.spend import SpendBook
from infra import spend_feed
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_reader, disconnect
from infra.postgres import ensure_schema
from infra.projecting import connect_projector
from infra.spend_feed import SpendFeed, is_free
from projections.checkpoint import Move, begin
from projections.projection import UsageEntry
from projections.usage import USAGE
from tests.gateway.records import account, record
from tests.gateway.served import until

NOVEMBER = "2026-11"
NOON = datetime.fromisoformat("2026-11-21T12:00:00+00:00")
NOWHERE = ""


def priced(request_id: str, tokens: int, **changes: Any) -> UsageRecord:
    """Of one EUR millionth a token."""
    facts: dict[str, Any] = {"organization_id": "acme", "at": NOON, "completion_tokens": 0}
    price = {"input_eur_micros_per_million": 1_000_000, "output_eur_micros_per_million": 1_000_000}
    return record(request_id=request_id, prompt_tokens=tokens, **{**facts, **price, **changes})


def feed(book: SpendBook, folder: Path, *, postgres_url: str = NOWHERE, wanted: bool = True) -> SpendFeed:
    path = folder / "gateway" / "spend.json"
    return SpendFeed(book, path, is_wanted=lambda: wanted, postgres_url=postgres_url, utc=lambda: NOON)


async def aged(book: SpendBook, folder: Path, age_s: float) -> None:
    """Saves a snapshot that is as old as that."""
    await feed(book, folder).save()
    then_s = NOON.timestamp() - age_s
    os.utime(folder / "gateway" / "spend.json", (then_s, then_s))


async def publish(server: EmbeddedNats, *records: UsageRecord) -> None:
    client = await connect_reader(server.url, "test")
    for one in records:
        subject = usage_subject(one.organization_id, one.deployment_id)
        await client.jetstream().publish(subject, msgspec.json.encode(one), stream="USAGE")
    await disconnect(client)


@asynccontextmanager
async def following(server: EmbeddedNats, fed: SpendFeed) -> AsyncIterator[None]:
    client = await connect_reader(server.url, "gateway")
    task = asyncio.ensure_future(fed.follow(client))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await disconnect(client)


async def project(postgres_url: str, *records: UsageRecord) -> None:
    """As the projector keeps the read model."""
    async with await connect_projector(postgres_url, USAGE, autocommit=True) as connection:
        at = await ensure_schema(connection, USAGE, head=0)
        entries = [UsageEntry(position, one) for position, one in enumerate(records, start=at + 1)]
        assert await begin(connection, Move(USAGE, previous=at, position=entries[-1].position))
        await USAGE.apply(entries, connection)
        await connection.commit()


async def test_every_gateways_records_are_counted(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    book = SpendBook()
    await publish(nats_server, priced("r1", 10), record(request_id="free"), priced("r2", 5, api_key_id="k2"))
    async with following(nats_server, feed(book, tmp_path)):
        await until(lambda: book.position == 3)
        await publish(nats_server, priced("r3", 1))
        await until(lambda: book.position == 4)
    assert (book.by_key("k1"), book.by_key("k2"), book.by_organization("acme", NOVEMBER)) == (11, 5, 16)


async def test_nobody_follows_while_nobody_has_a_limit(
    nats_server: EmbeddedNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_feed, "WANTED_CHECK_S", 0.01)
    asked = 0

    def is_wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    await publish(nats_server, priced("r1", 10))
    book = SpendBook()
    fed = SpendFeed(book, tmp_path / "spend.json", is_wanted=is_wanted, postgres_url=NOWHERE)
    async with following(nats_server, fed):
        await until(lambda: asked == 3)
        assert book.position == 0
        await until(lambda: book.by_key("k1") == 10)


async def test_it_goes_on_from_its_snapshot(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    book = SpendBook()
    await publish(nats_server, priced("r1", 10))
    fed = feed(book, tmp_path)
    async with following(nats_server, fed):
        await until(lambda: book.position == 1)
    await fed.save()
    alone = SpendBook()
    await feed(alone, tmp_path).start()
    assert (alone.position, alone.by_key("k1")) == (1, 10), "with NATS and Postgres away"
    await publish(nats_server, priced("r2", 5))
    async with following(nats_server, feed(alone, tmp_path)):
        await until(lambda: alone.by_key("k1") == 15)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"position":"x"}'])
async def test_a_damaged_snapshot_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "spend.json").write_bytes(damage)
    book = SpendBook()
    await feed(book, tmp_path).start()
    assert book.position == 0


async def test_it_starts_from_postgres_where_that_is_newer(postgres_url: str, tmp_path: Path) -> None:
    older = SpendBook()
    older.seen(1, priced("r1", 10))
    await aged(older, tmp_path, spend_feed.FRESH_S + 1)
    await project(postgres_url, priced("r1", 10), priced("r2", 5), priced("r3", 7, at=NOON.replace(month=10)))
    book = SpendBook()
    await feed(book, tmp_path, postgres_url=postgres_url).start()
    assert (book.position, book.by_key("k1"), book.by_organization("acme", NOVEMBER)) == (3, 22, 15)


async def test_beside_a_fresh_snapshot_postgres_is_not_asked(postgres_url: str, tmp_path: Path) -> None:
    older = SpendBook()
    older.seen(1, priced("r1", 10))
    await aged(older, tmp_path, spend_feed.FRESH_S - 1)
    await project(postgres_url, priced("r1", 10), priced("r2", 5))
    book = SpendBook()
    await feed(book, tmp_path, postgres_url=postgres_url).start()
    assert (book.position, book.by_key("k1")) == (1, 10), "USAGE brings the rest"


async def test_no_copy_is_looked_for_while_nobody_has_a_limit(tmp_path: Path) -> None:
    older, book = SpendBook(), SpendBook()
    older.seen(1, priced("r1", 10))
    await feed(older, tmp_path).save()
    await feed(book, tmp_path, wanted=False).start()
    assert book.position == 0


async def test_a_postgres_that_has_no_totals_is_none(postgres_url: str, tmp_path: Path) -> None:
    older = SpendBook()
    older.seen(1, priced("r1", 10))
    await aged(older, tmp_path, spend_feed.FRESH_S + 1)
    book = SpendBook()
    await feed(book, tmp_path, postgres_url=postgres_url).start()
    assert (book.position, book.by_key("k1")) == (1, 10)


async def test_a_stream_that_began_anew_is_another_book(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    book = SpendBook()
    book.seen(100, priced("old", 1000))
    await publish(nats_server, priced("r1", 10))
    async with following(nats_server, feed(book, tmp_path)):
        await until(lambda: book.position == 1)
    assert book.by_key("k1") == 10


async def test_an_unreadable_record_is_passed_over(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    book = SpendBook()
    client = await connect_reader(nats_server.url, "test")
    await client.jetstream().publish("use.acme.d1", b"nonsense", stream="USAGE")
    await disconnect(client)
    await publish(nats_server, priced("r1", 10))
    async with following(nats_server, feed(book, tmp_path)):
        await until(lambda: book.position == 2)
    assert book.by_key("k1") == 10


def test_records_without_a_price_are_told_without_decoding_them() -> None:
    assert is_free(account().line()), "as the gateway writes it"
    assert is_free(msgspec.json.encode(record(request_id="free")))
    wording = '"input_eur_micros_per_million":0,"output_eur_micros_per_million":0,'
    for changes in ({"input_eur_micros_per_million": 0}, {"output_eur_micros_per_million": 0}, {"model_code": wording}):
        assert not is_free(msgspec.json.encode(priced("r1", 5, **changes)))
