import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from infra.embedded import postgres
from infra.embedded.child import EmbeddedServerError
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.postgres_place import find_place, is_walkable
from tests.conftest import some_port, started

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must hand Postgres to another account")


@pytest.fixture
async def own_postgres(server_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = await started(lambda: EmbeddedPostgres(server_dir / "postgres", some_port()))
    yield server
    await server.stop()


async def ask(url: str, query: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return row[0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("fsync", "on"), ("synchronous_commit", "on"), ("data_checksums", "on"), ("max_connections", "100")],
)
async def test_what_is_committed_is_safe(postgres_url: str, setting: str, value: str) -> None:
    assert await ask(postgres_url, f"SELECT current_setting('{setting}')") == value


async def test_each_test_gets_an_empty_database(postgres_url: str) -> None:
    assert await ask(postgres_url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0


async def test_nobody_connects_without_the_password(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=postgres_server.port, user="inventiv", password="wrong"
        )
    assert (postgres_server.data_dir / "postgres.password").stat().st_mode & 0o077 == 0


async def test_a_crash_loses_nothing_and_does_not_prevent_a_restart(own_postgres: EmbeddedPostgres) -> None:
    async with await psycopg.AsyncConnection.connect(own_postgres.url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await own_postgres.kill()
    assert (own_postgres.cluster_dir / "postmaster.pid").exists(), "the crash left its pid file"
    await own_postgres.start()
    assert await ask(own_postgres.url, "SELECT answer FROM kept") == 42


async def test_a_stale_pid_file_does_not_prevent_a_start_when_its_number_was_reused(
    own_postgres: EmbeddedPostgres,
) -> None:
    await own_postgres.stop()
    stranger = await asyncio.create_subprocess_exec("sleep", "60", user=own_postgres.user)
    (own_postgres.cluster_dir / "postmaster.pid").write_text(f"{stranger.pid}\n{own_postgres.cluster_dir}\n1\n1\n\n\n")
    await own_postgres.start()
    assert await ask(own_postgres.url, "SELECT 1") == 1
    stranger.kill()
    await stranger.wait()


async def test_a_second_postgres_on_the_same_data_is_refused(
    own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LEFTOVER_TIMEOUT_S", 0.1)
    second = EmbeddedPostgres(own_postgres.data_dir, some_port())
    with pytest.raises(EmbeddedServerError, match=f"another Postgres \\(pid .*{own_postgres.pid}"):
        await second.start()
    assert await ask(own_postgres.url, "SELECT 1") == 1


async def test_the_pid_is_that_of_the_server_we_started(own_postgres: EmbeddedPostgres) -> None:
    first_line = (own_postgres.cluster_dir / "postmaster.pid").read_text().split("\n", 1)[0]
    assert own_postgres.pid == int(first_line)


@as_root
def test_root_keeps_the_data_where_it_was_wanted_when_that_is_walkable(server_dir: Path) -> None:
    place = find_place(server_dir)
    assert place.cluster == server_dir / "cluster"
    assert (place.user is not None, place.moved) == (True, False)


@as_root
def test_a_closed_data_folder_sends_the_data_elsewhere_and_notes_where(server_dir: Path) -> None:
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    first = find_place(closed / "data", root_home=server_dir / "home")
    assert first.moved
    assert first.cluster.is_relative_to(server_dir / "home")
    assert find_place(closed / "data", root_home=server_dir / "home") == first, "the note is found again"
    other = find_place(closed / "other", root_home=server_dir / "home")
    assert other.cluster != first.cluster


@as_root
def test_nowhere_to_go_is_refused_with_a_cure(server_dir: Path) -> None:
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="as a normal user"):
        find_place(closed / "data", root_home=closed / "home")


@as_root
async def test_closed_binaries_and_data_still_make_a_working_server(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    here = find_place(server_dir).binaries
    monkeypatch.setattr(
        "infra.embedded.postgres_place.is_walkable", lambda path, who: path != here and is_walkable(path, who)
    )
    monkeypatch.setattr(
        "infra.embedded.postgres.find_place", lambda data_dir: find_place(data_dir, root_home=server_dir / "home")
    )
    server = await started(lambda: EmbeddedPostgres(closed / "data", some_port()))
    assert str(server.command()[0]).startswith(str(server_dir / "home"))
    assert await ask(server.url, "SELECT current_setting('data_directory')") == str(server.cluster_dir)
    assert server.cluster_dir.stat().st_uid in {nobody.pw_uid, pwd.getpwnam(server.user or "").pw_uid}
    await server.stop()
