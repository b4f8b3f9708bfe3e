"""Postgres as the read side uses it: schemas, connections, and reading what one has just written."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from domain.ids import PLATFORM
from infra.embedded.postgres import EmbeddedPostgres
from infra.postgres import ReadModels, ReadModelUnavailableError, SchemaDriftError, connect, ensure_schema, search_path
from projections.checkpoint import Move, list_checkpoints, move, position_of
from projections.models import MODELS, list_models
from projections.projection import NotYetVisibleError, Projection
from projections.usage import USAGE
from tests.conftest import some_port, started

SHORT_WAIT_S = 0.15
PATIENCE_S = 60.0


@asynccontextmanager
async def moved(postgres_url: str, *steps: tuple[int, int], projection: Projection = MODELS) -> AsyncIterator[set[str]]:
    """The projection exists and its checkpoint was moved by these steps."""
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, projection)
        yield await move(connection, [Move(projection, before, after) for before, after in steps])


async def test_a_schema_is_made_once(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        assert await ensure_schema(connection, MODELS) == 0
        await move(connection, [Move(MODELS, 0, 7)])
        assert await ensure_schema(connection, MODELS) == 7
        assert [(c.schema, c.position) for c in await list_checkpoints(connection)] == [(MODELS.schema, 7)]


async def test_processes_that_start_together_make_it_once(postgres_url: str) -> None:
    async def ensure() -> int:
        async with await connect(postgres_url, "test") as connection:
            return await ensure_schema(connection, MODELS)

    assert await asyncio.gather(*(ensure() for _ in range(5))) == [0] * 5


async def test_changed_tables_ask_for_a_new_version(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, MODELS)
        changed = replace(MODELS, tables=MODELS.tables.replace("code text", "code varchar"))
        with pytest.raises(SchemaDriftError, match="raise the version of projection models"):
            await ensure_schema(connection, changed)
        assert await ensure_schema(connection, replace(changed, version=MODELS.version + 1)) == 0
        assert await position_of(connection, MODELS) == 0


async def test_a_checkpoint_moves_only_from_where_it_is(postgres_url: str) -> None:
    async with moved(postgres_url, (0, 3)) as first, await connect(postgres_url, "test") as connection:
        assert first == {MODELS.schema}
    async with await connect(postgres_url, "test") as connection:
        assert await move(connection, [Move(MODELS, 0, 4)]) == set()
        assert await position_of(connection, MODELS) == 3


async def test_a_read_without_a_position_does_not_wait(postgres_url: str) -> None:
    async with moved(postgres_url, (0, 1)):
        pass
    async with ReadModels(postgres_url) as read, read("models") as connection:
        assert await list_models(connection, PLATFORM) == []


async def test_a_read_waits_until_its_position_is_there(postgres_url: str) -> None:
    async with moved(postgres_url, (0, 1)):
        pass
    async with ReadModels(postgres_url, wait_s=PATIENCE_S) as read, await connect(postgres_url, "test") as writer:
        waiting = asyncio.create_task(_position_when_readable(read, 2))
        await asyncio.wait({waiting}, timeout=SHORT_WAIT_S)
        assert not waiting.done()
        await move(writer, [Move(MODELS, 1, 2)])
        await writer.commit()
        began = time.perf_counter()
        assert await waiting == 2
        assert time.perf_counter() - began < 1.0


async def _position_when_readable(read: ReadModels, position: int) -> int:
    async with read("models", position=position) as connection:
        return await position_of(connection, MODELS)


async def test_a_wait_ends_when_it_is_too_long(postgres_url: str) -> None:
    async with moved(postgres_url, (0, 1)):
        pass
    async with ReadModels(postgres_url, wait_s=SHORT_WAIT_S) as read:
        assert await _position_when_readable(read, 1) == 1
        with pytest.raises(NotYetVisibleError, match=rf"not at position 9 after 0\.15 s: {MODELS.schema} is at 1"):
            await _position_when_readable(read, 9)


async def test_a_read_of_another_stream_does_not_wait_for_a_position_of_events(postgres_url: str) -> None:
    async with moved(postgres_url, projection=USAGE):
        pass
    async with ReadModels(postgres_url, wait_s=SHORT_WAIT_S) as read, read("usage", position=9) as connection:
        assert await position_of(connection, USAGE) == 0


async def test_a_reader_cannot_write(postgres_url: str) -> None:
    async with moved(postgres_url):
        pass
    async with ReadModels(postgres_url) as read:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with read("models") as connection:
                await connection.execute("DELETE FROM models")


async def test_a_reader_sees_one_moment(postgres_url: str) -> None:
    async with moved(postgres_url, (0, 1)):
        pass
    async with (
        ReadModels(postgres_url) as read,
        await connect(postgres_url, "test") as writer,
        read("models") as reader,
    ):
        assert await position_of(reader, MODELS) == 1
        await move(writer, [Move(MODELS, 1, 2)])
        await writer.commit()
        assert await position_of(reader, MODELS) == 1


async def test_a_read_model_that_is_not_built_yet_is_unavailable(postgres_url: str) -> None:
    async with ReadModels(postgres_url) as read:
        with pytest.raises(ReadModelUnavailableError, match="cannot read models"):
            async with read("models") as connection:
                await list_models(connection, PLATFORM)


async def test_a_read_model_that_is_being_built_is_not_shown(postgres_url: str) -> None:
    async with ReadModels(postgres_url, wait_s=SHORT_WAIT_S) as read, await connect(postgres_url, "test") as writer:
        await ensure_schema(writer, MODELS, head=200)
        await move(writer, [Move(MODELS, 0, 90)])
        await writer.commit()
        for position in (0, 90, 150):
            with pytest.raises(ReadModelUnavailableError, match=f"{MODELS.schema} is being built: 45 %"):
                await _position_when_readable(read, position)
        await move(writer, [Move(MODELS, 90, 200)])
        await writer.commit()
        assert await _position_when_readable(read, 200) == 200


async def test_the_table_of_checkpoints_of_an_older_release_gets_its_new_column(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, MODELS)
        await move(connection, [Move(MODELS, 0, 7)])
        await connection.execute("ALTER TABLE platform.checkpoints DROP COLUMN shown_from")
        assert await ensure_schema(connection, MODELS, head=9) == 7
        assert [known.built_percent for known in await list_checkpoints(connection)] == [100]


async def test_reading_works_again_after_postgres_was_killed(server_dir: Path) -> None:
    server = await started(lambda: EmbeddedPostgres(server_dir / "postgres", some_port()))
    try:
        async with moved(server.url, (0, 1)):
            pass
        async with ReadModels(server.url, wait_s=PATIENCE_S) as read:
            assert await _position_when_readable(read, 1) == 1
            await server.kill()
            with pytest.raises(ReadModelUnavailableError):
                await _position_when_readable(read, 0)
            await server.start()
            assert await _position_when_readable(read, 1) == 1
            async with await connect(server.url, "test") as writer:
                await move(writer, [Move(MODELS, 1, 2)])
            assert await _position_when_readable(read, 2) == 2
    finally:
        await server.stop()


async def test_without_postgres_a_wait_says_that_it_is_away(server_dir: Path) -> None:
    async with ReadModels(f"postgresql://nobody@127.0.0.1:{some_port()}/none", wait_s=SHORT_WAIT_S) as read:
        with pytest.raises(ReadModelUnavailableError):
            await _position_when_readable(read, 1)


def test_the_search_path_holds_each_schema() -> None:
    assert search_path([MODELS, USAGE]) == f"{MODELS.schema},{USAGE.schema}"
