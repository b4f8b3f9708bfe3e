"""Real servers for tests: they start in milliseconds, so nothing here is a fake.

nats-server starts in about 30 ms, and streams are global to a server: each test that asks gets a server of its own.
Postgres needs half a second for its first start and 40 ms for a database: one server a run, one database a test.
"""

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import nats
import psycopg
import pytest
import pytest_asyncio
from hypothesis import settings

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from infra.embedded.ports import free_port
from infra.embedded.postgres import EmbeddedPostgres
from infra.events.streams import ensure_streams

S = TypeVar("S", EmbeddedNats, EmbeddedNatsCluster, EmbeddedPostgres)

settings.register_profile("house", deadline=None)  # a law holds or not, however busy the machine is
settings.load_profile("house")

JOURNEYS = Path(__file__).parent / "journeys"
START_ATTEMPTS = 5
"""Another test run may take the port between our look and our bind."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here: one worker more than there are processors, for most tests wait for servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole platforms first: each file is one process's, and the longest ones must not be the last to begin."""
    items.sort(key=lambda item: not item.path.is_relative_to(JOURNEYS))


def some_port() -> int:
    """Below the range from which the kernel picks for outgoing connections; other test runs start elsewhere."""
    return free_port(_some_start())


def _some_start() -> int:
    return 10_000 + secrets.randbelow(15_000)


async def started(make: Callable[[], S]) -> S:
    for _ in range(START_ATTEMPTS - 1):
        server = make()
        try:
            await server.start()
        except EmbeddedServerError as error:
            if "in use" not in str(error):
                raise
        else:
            return server
    server = make()
    await server.start()
    return server


@contextmanager
def _walkable_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="inventiv-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """A folder that Postgres's unprivileged account may walk through (pytest's own are closed to it)."""
    with _walkable_folder() as folder:
        yield folder


@pytest.fixture
async def bare_nats(server_dir: Path) -> AsyncIterator[EmbeddedNats]:
    """A nats-server of this test's own, without streams; `.kill()` and `.start()` are allowed."""
    server = await started(lambda: EmbeddedNats(server_dir / "nats", some_port()))
    yield server
    await server.stop()


@pytest.fixture
async def nats_server(bare_nats: EmbeddedNats) -> EmbeddedNats:
    """A nats-server of this test's own with the platform's streams; connect services to `.url`."""
    connection = await nats.connect(bare_nats.admin_url)
    await ensure_streams(connection)
    await connection.close()
    return bare_nats


@pytest.fixture
async def nats_cluster(server_dir: Path) -> AsyncIterator[EmbeddedNatsCluster]:
    """Three nats-servers of this test's own with the platform's streams, three copies each; kill and start `.nodes`."""
    cluster = await started(lambda: EmbeddedNatsCluster(server_dir / "nats", free_node_ports(_some_start())))
    connection = await nats.connect(cluster.admin_url.split(","))
    await ensure_streams(connection, replicas=cluster.replicas)
    await connection.close()
    yield cluster
    await cluster.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """The Postgres of this test run. Leave it running; take `postgres_url` for a database of your own."""
    with _walkable_folder() as folder:
        server = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
        yield server
        await server.stop()


@pytest.fixture
async def postgres_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """An empty database of this test's own; gone after it, whatever is still connected."""
    name = f"test_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} STRATEGY wal_log")
        yield urlunsplit(urlsplit(postgres_server.url)._replace(path=f"/{name}"))
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
