"""Gateways on a real server keep a limit together, with NATS and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from nats.aio.client import Client

from gateway.shared_counts import SharedCounts
from gateway.statements import COUNTS_SUBJECT
from gateway.tally import NO_LIMIT
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.limit_exchange import LimitExchange
from tests.gateway.served import until

KEY = "key"


class Gateway:
    def __init__(self, name: str) -> None:
        self.shared = SharedCounts(name)
        self.exchange = LimitExchange(self.shared, time.monotonic)
        self.clients: Sequence[Client] = ()

    def admit(self, limit: int) -> bool:
        tally, second = self.shared.tally(KEY, (limit, NO_LIMIT, NO_LIMIT)), int(time.monotonic())
        if not tally.fits(second, 0):
            tally.refused((1, 0, 0), second)
            return False
        tally.take(second, 0)
        return True


@asynccontextmanager
async def gateways(count: int, url: str) -> AsyncIterator[list[Gateway]]:
    made, tasks = [Gateway(f"g{n}") for n in range(count)], []
    try:
        for gateway in made:
            gateway.clients = (await connect_reader(url, "gateway"), await connect_writer(url, "gateway"))
            await gateway.exchange.connect(*gateway.clients)
            tasks.append(asyncio.ensure_future(gateway.exchange.run()))
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for gateway in made:
            for client in gateway.clients:
                await disconnect(client)


def all_know(made: Sequence[Gateway], count: int) -> bool:
    return all(len(gateway.shared.members) == count for gateway in made)


async def test_three_gateways_share_one_limit(nats_server: EmbeddedNats) -> None:
    async with gateways(3, nats_server.url) as made:
        await until(lambda: all_know(made, 3))
        admitted = 0

        def flood() -> bool:
            nonlocal admitted
            admitted += sum(made[0].admit(90) for _ in range(50))
            return admitted >= 88

        await until(flood)
        for gateway in made:
            admitted += sum(gateway.admit(90) for _ in range(200))
        assert 88 <= admitted <= 92


async def test_a_gateway_that_leaves_leaves_its_share(nats_server: EmbeddedNats) -> None:
    async with gateways(2, nats_server.url) as made:
        await until(lambda: all_know(made, 2))
        await made[1].exchange.leave()
        await until(lambda: made[0].shared.members == ("g0",))
        assert sum(made[0].admit(60) for _ in range(100)) == 60
        await made[1].exchange.close()


async def test_while_nats_is_away_each_keeps_to_its_share_and_they_meet_again(nats_server: EmbeddedNats) -> None:
    async with gateways(2, nats_server.url) as made:
        await until(lambda: all_know(made, 2))
        await nats_server.kill()
        await until(lambda: not any(client.is_connected for gateway in made for client in gateway.clients))
        assert [sum(gateway.admit(60) for _ in range(100)) for gateway in made] == [30, 30]
        await nats_server.start()
        await until(lambda: all(gateway.shared.tallies[KEY].others[0] == 30 for gateway in made))
        assert all_know(made, 2)


async def test_without_nats_a_gateway_goes_on_alone() -> None:
    alone = Gateway("g0")
    await alone.exchange.tick()
    assert sum(alone.admit(60) for _ in range(100)) == 60
    await alone.exchange.leave()
    await alone.exchange.close()


@pytest.mark.parametrize("said", [b"", b"nonsense", msgspec.msgpack.encode({"a": 1}), msgspec.msgpack.encode([1, 2])])
async def test_what_cannot_be_understood_changes_nothing(nats_server: EmbeddedNats, said: bytes) -> None:
    async with gateways(2, nats_server.url) as made:
        await made[0].clients[1].publish(COUNTS_SUBJECT, said)
        await until(lambda: all_know(made, 2))
