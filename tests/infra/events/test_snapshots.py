import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.snapshots import Snapshot, SnapshotStore


@pytest.fixture
async def connection(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    writer = await connect_writer(nats_server.url, "test")
    yield writer
    await disconnect(writer)


@pytest.fixture
def store(connection: Client) -> SnapshotStore:
    return SnapshotStore(connection)


async def save(store: SnapshotStore, position: int, *, shape: str = "v1", state: bytes = b"state") -> bool:
    return await store.save("instance", "i-1", snapshot_at(position, shape, state))


def snapshot_at(position: int, shape: str, state: bytes) -> Snapshot:
    return Snapshot(
        position=position,
        version=position,
        previous_hash=f"hash-{position}",
        correlation="c-1",
        schema_fingerprint=shape,
        state=state,
    )


async def load(store: SnapshotStore, shape: str = "v1") -> Snapshot | None:
    return await store.load("instance", "i-1", schema_fingerprint=shape)


async def test_what_was_never_saved_is_absent(store: SnapshotStore) -> None:
    assert await load(store) is None


async def test_a_snapshot_loads_as_it_was_saved(store: SnapshotStore) -> None:
    state = bytes(range(256))
    assert await save(store, 7, state=state)
    assert await load(store) == snapshot_at(7, "v1", state)


async def test_a_newer_snapshot_replaces_an_older_one_and_never_the_other_way(store: SnapshotStore) -> None:
    assert [await save(store, position) for position in (5, 9, 7, 9)] == [True, True, False, False]
    found = await load(store)
    assert found is not None
    assert found.position == 9


async def test_of_many_writers_the_newest_wins(store: SnapshotStore) -> None:
    for _ in range(5):
        await asyncio.gather(*(save(store, position) for position in range(1, 20)))
        await save(store, 20)
        found = await load(store)
        assert found is not None
        assert found.position == 20


async def test_a_snapshot_of_another_shape_is_absent_and_gives_way(store: SnapshotStore) -> None:
    await save(store, 7, shape="v1")
    assert await load(store, "v2") is None
    assert await save(store, 7, shape="v2")
    assert await load(store, "v1") is None
    assert await load(store, "v2") is not None


async def test_a_message_without_the_headers_is_absent_and_gives_way(store: SnapshotStore, connection: Client) -> None:
    await connection.jetstream().publish("snap.instance.i-1", b"from somewhere else")
    assert await load(store) is None
    assert await save(store, 1)


async def test_a_state_that_is_too_large_is_skipped(store: SnapshotStore) -> None:
    assert not await save(store, 7, state=b"x" * 1_000_001)
    assert not await save(store, 7, state=b"x" * 2_000_000)
    assert await load(store) is None


async def test_without_a_server_a_snapshot_is_absent_and_saving_is_skipped(
    store: SnapshotStore, nats_server: EmbeddedNats
) -> None:
    await save(store, 7)
    await nats_server.kill()
    assert await load(store) is None
    assert not await save(store, 8)
