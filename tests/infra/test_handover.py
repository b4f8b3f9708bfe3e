"""The listening socket passes from one gateway to the next; until the next one serves, nothing has happened."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra import handover
from infra.handover import Inheritance, Offer, is_offered, take

BOUND_S = 60.0
HOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as made:
        yield made


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def doors_in(folder: Path) -> list[Path]:
    return list(folder.glob("handover-*"))


@asynccontextmanager
async def offered(folder: Path, listener: socket.socket) -> AsyncIterator["asyncio.Task[None]"]:
    """Lends the task that ends when somebody has taken over."""
    offer = Offer(folder, listener)
    task = asyncio.create_task(offer.taken())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    offer.close()


async def taken_from(folder: Path, listener: socket.socket) -> Inheritance:
    inheritance = await take(folder, HOST, port_of(listener))
    assert inheritance is not None
    return inheritance


async def ended(task: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(BOUND_S):
        await task


async def test_the_successor_gets_the_very_same_socket(tmp_path: Path, listener: socket.socket) -> None:
    async with offered(tmp_path, listener) as taken:
        inheritance = await taken_from(tmp_path, listener)
        assert not taken.done()
        inheritance.serving()
        await ended(taken)
    listener.close()
    with inheritance.listener, socket.create_connection((HOST, port_of(inheritance.listener)), BOUND_S) as client:
        accepted, address = inheritance.listener.accept()
        with accepted:
            assert address == client.getsockname()


async def test_a_connection_that_waits_in_the_queue_changes_hands(tmp_path: Path, listener: socket.socket) -> None:
    client = socket.create_connection((HOST, port_of(listener)), BOUND_S)
    async with offered(tmp_path, listener) as taken:
        inheritance = await taken_from(tmp_path, listener)
        inheritance.serving()
        await ended(taken)
    listener.close()
    with client, inheritance.listener:
        accepted, address = inheritance.listener.accept()
        with accepted:
            assert address == client.getsockname()


async def test_a_successor_that_dies_before_it_serves_changes_nothing(tmp_path: Path, listener: socket.socket) -> None:
    async with offered(tmp_path, listener) as taken:
        for _ in range(3):
            inheritance = await taken_from(tmp_path, listener)
            inheritance.decline()  # closes what the kernel closes for a dead process
        assert is_offered(tmp_path, port_of(listener))
        assert not taken.done()


async def test_to_look_takes_nothing(tmp_path: Path, listener: socket.socket) -> None:
    assert not is_offered(tmp_path, port_of(listener))
    async with offered(tmp_path, listener) as taken:
        assert is_offered(tmp_path, port_of(listener))
        (await taken_from(tmp_path, listener)).decline()
        assert not taken.done()
    assert not is_offered(tmp_path, port_of(listener))


async def test_nobody_there_gives_nothing(tmp_path: Path, listener: socket.socket) -> None:
    assert await take(tmp_path, HOST, port_of(listener)) is None


async def test_the_file_of_a_killed_gateway_gives_nothing(tmp_path: Path, listener: socket.socket) -> None:
    Offer(tmp_path, listener)._door.close()  # as the kernel does it for a dead process
    assert doors_in(tmp_path) != []
    assert not is_offered(tmp_path, port_of(listener))
    assert await take(tmp_path, HOST, port_of(listener)) is None
    async with offered(tmp_path, listener):
        assert is_offered(tmp_path, port_of(listener))


async def test_a_gateway_at_another_address_keeps_its_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as elsewhere:
        async with offered(tmp_path, elsewhere) as taken:
            assert await take(tmp_path, HOST, port_of(elsewhere)) is None
            assert is_offered(tmp_path, port_of(elsewhere))
            assert not taken.done()


async def test_the_successors_own_offer_outlives_the_predecessors(tmp_path: Path, listener: socket.socket) -> None:
    first = Offer(tmp_path, listener)
    taken = asyncio.create_task(first.taken())
    inheritance = await taken_from(tmp_path, listener)
    inheritance.serving()
    await ended(taken)
    async with offered(tmp_path, inheritance.listener):
        first.close()
        assert is_offered(tmp_path, port_of(listener))
        (await taken_from(tmp_path, listener)).decline()
    inheritance.listener.close()


async def test_only_our_own_account_is_given_the_socket(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with offered(tmp_path, listener) as taken:
        assert [door.stat().st_mode & 0o777 for door in doors_in(tmp_path)] == [0o600]
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: 12345)  # both sides are this process: nobody is "ours"
            patched.setattr(handover, "TAKE_PAUSE_S", 0.01)
            assert await take(tmp_path, HOST, port_of(listener)) is None
            assert not taken.done()
        (await taken_from(tmp_path, listener)).decline()


async def test_a_data_folder_may_lie_deep(tmp_path: Path, listener: socket.socket) -> None:
    deep = tmp_path.joinpath(*["a-long-name-of-a-folder"] * 8)
    deep.mkdir(parents=True)
    async with offered(deep, listener):
        assert is_offered(deep, port_of(listener))
        (await taken_from(deep, listener)).decline()


async def test_a_successor_that_says_nothing_does_not_stand_in_the_way(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "ANSWER_TIMEOUT_S", 0.2)
    async with offered(tmp_path, listener) as taken:
        with handover._connected(tmp_path, port_of(listener)):
            inheritance = await taken_from(tmp_path, listener)
            inheritance.serving()
            await ended(taken)
            inheritance.listener.close()
