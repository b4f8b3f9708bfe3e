"""A gateway takes over when it can serve, and gives away when another can; nobody is refused in between."""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from infra import gateway_serving
from infra.environment import Environment, activated_socket
from infra.finishing import finishing_requests
from infra.gateway_serving import DRAIN_S, Place
from infra.handover import is_offered
from tests.conftest import some_port

BOUND_S = 60.0


@dataclass
class Table:
    """The routing table's feed; ready or not."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def settle(self) -> None:
        return


@dataclass
class CountingServer:
    """Says nothing to anybody; knows what it was told."""

    open_requests: int = 0
    listener: socket.socket | None = None
    stopped: bool = False
    drained_within_s: float | None = None

    async def listen(self, listener: socket.socket) -> None:
        self.listener = listener

    def stop_listening(self) -> None:
        self.stopped = True
        if self.listener is not None:
            self.listener.close()

    async def drained(self, timeout_s: float) -> int:
        self.drained_within_s = timeout_s
        return self.open_requests


@dataclass
class Gateway:
    """One process's part, in this process."""

    environment: Environment
    number: str
    is_ready: bool = True
    server: CountingServer = field(default_factory=CountingServer)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    table: Table = field(default_factory=Table)

    @property
    def folder(self) -> Path:
        return self.environment.data_dir / "gateway"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        own = self.folder / self.number
        own.mkdir(parents=True, exist_ok=True)
        if self.is_ready:
            self.table.ready.set()
        place = Place(self.environment, self.folder)
        await place.open()
        task = asyncio.create_task(place.serve(self.server, self.table, self.stop, own_folder=own))
        try:
            yield task
        finally:
            self.stop.set()
            async with asyncio.timeout(BOUND_S):
                await asyncio.gather(task, return_exceptions=True)

    @property
    def serves(self) -> bool:
        return self.server.listener is not None and not self.server.stopped


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_serving, "WATCH_S", 0.01)
    monkeypatch.setattr(gateway_serving, "BIND_PAUSE_S", 0.01)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(data_dir=tmp_path, secrets_dir=tmp_path, gateway_port=some_port(), drain_s=5)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - several objects' state
            await asyncio.sleep(0.005)


async def test_the_first_gateway_binds_and_the_second_takes_over(environment: Environment) -> None:
    first, second = Gateway(environment, "0"), Gateway(environment, "1")
    async with first.running() as ending:
        await until(lambda: first.serves)
        async with second.running():
            await until(lambda: second.serves and first.server.stopped)
            await asyncio.wait_for(ending, BOUND_S)
            assert second.server.listener is not None
            assert second.server.listener.getsockname()[1] == environment.gateway_port
            assert is_offered(second.folder, environment.gateway_port)


async def test_who_cannot_serve_yet_takes_nothing_over(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = itertools.count()

    def looked(folder: Path, port: int) -> bool:
        next(looks)
        return is_offered(folder, port)

    monkeypatch.setattr(gateway_serving, "is_offered", looked)
    first, second = Gateway(environment, "0"), Gateway(environment, "1", is_ready=False)
    async with first.running(), second.running():
        await until(lambda: first.serves and next(looks) > 20)
        assert (first.serves, second.serves) == (True, False)
        second.table.ready.set()
        await until(lambda: second.serves and not first.serves)


async def test_when_the_old_one_dies_meanwhile_the_new_one_binds_at_once(environment: Environment) -> None:
    first, second = Gateway(environment, "0"), Gateway(environment, "1", is_ready=False)
    async with first.running() as ending:
        await until(lambda: first.serves)
        async with second.running():
            first.stop.set()
            await asyncio.wait_for(ending, BOUND_S)
            await until(lambda: second.serves)
            assert not second.table.ready.is_set()


async def test_told_to_stop_while_it_waits_it_leaves_the_old_one_serving(environment: Environment) -> None:
    first, second = Gateway(environment, "0"), Gateway(environment, "1", is_ready=False)
    async with first.running():
        await until(lambda: first.serves)
        async with second.running() as ending:
            second.stop.set()
            await asyncio.wait_for(ending, BOUND_S)
        assert first.serves
        assert is_offered(first.folder, environment.gateway_port)


async def test_taken_over_it_finishes_its_requests_and_says_how_many(environment: Environment) -> None:
    first, second = Gateway(environment, "0", server=CountingServer(open_requests=12)), Gateway(environment, "1")
    async with first.running() as ending, second.running():
        await until(lambda: finishing_requests(environment.data_dir) == 12)
        first.server.open_requests = 1
        await until(lambda: finishing_requests(environment.data_dir) == 1)
        assert not ending.done()
        first.server.open_requests = 0
        await asyncio.wait_for(ending, BOUND_S)
    assert finishing_requests(environment.data_dir) == 0
    assert first.server.drained_within_s == DRAIN_S


async def test_its_time_to_finish_is_bounded(environment: Environment) -> None:
    hurried = msgspec.structs.replace(environment, drain_s=0)
    first, second = Gateway(hurried, "0", server=CountingServer(open_requests=12)), Gateway(hurried, "1")
    async with first.running() as ending, second.running():
        await asyncio.wait_for(ending, BOUND_S)


async def test_a_stop_signal_cuts_the_finishing_short(environment: Environment) -> None:
    first, second = Gateway(environment, "0", server=CountingServer(open_requests=12)), Gateway(environment, "1")
    async with first.running() as ending, second.running():
        await until(lambda: finishing_requests(environment.data_dir) == 12)
        first.stop.set()
        await asyncio.wait_for(ending, BOUND_S)
        assert second.serves


async def test_a_plain_stop_leaves_no_offer_and_no_socket(environment: Environment) -> None:
    first = Gateway(environment, "0")
    async with first.running() as ending:
        await until(lambda: first.serves)
        first.stop.set()
        await asyncio.wait_for(ending, BOUND_S)
    assert not is_offered(first.folder, environment.gateway_port)
    socket.create_server((environment.host, environment.gateway_port)).close()


async def test_a_port_that_somebody_else_has_is_an_error_at_once(environment: Environment) -> None:
    with socket.create_server((environment.host, environment.gateway_port)), pytest.raises(OSError, match="in use"):
        await Place(environment, environment.data_dir).open()


def test_a_socket_of_systemd_is_ours_when_it_names_this_process() -> None:
    assert activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}) == 3
    assert activated_socket({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None
    assert activated_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) is None
    assert activated_socket({}) is None


async def test_a_socket_of_systemd_is_served(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server((environment.host, environment.gateway_port))
    monkeypatch.setattr(gateway_serving, "activated_socket", listener.detach)
    gateway = Gateway(environment, "0")
    async with gateway.running():
        await until(lambda: gateway.serves)
        assert gateway.server.listener is not None
        assert gateway.server.listener.getsockname()[1] == environment.gateway_port
