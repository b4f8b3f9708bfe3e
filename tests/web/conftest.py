"""One world for each file: making it takes a second, so its tests share it and each brings people of its own.

A file's tests run in the file's event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio

from infra.embedded.postgres import EmbeddedPostgres
from tests.web.world import World, a_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    name = f"web_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} STRATEGY wal_log")
        url = urlunsplit(urlsplit(postgres_server.url)._replace(path=f"/{name}"))
        async with a_world(url, tmp_path_factory.mktemp("web")) as made:
            yield made
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
