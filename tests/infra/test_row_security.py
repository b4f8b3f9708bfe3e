"""The wall in Postgres: whatever a query says, a tenant reads its own rows; and who takes no scope reads none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg import sql
from psycopg.rows import scalar_row

from infra.embedded.postgres import EmbeddedPostgres
from infra.postgres import ReadModels, ReadModelUnavailableError, connect, ensure_schema, require_reader_roles
from infra.row_security import PLATFORM, TENANT, RolesMissingError, ensure_roles, fingerprint
from projections.projection import EVERYTHING, NOBODY, THEIR_USER, Connection, Entry, Projection, Scope
from projections.registry import PROJECTIONS
from tests.conftest import some_port, started

ACME, GLOBEX = Scope(organization="acme", user="ann"), Scope(organization="globex")
TABLES = """
CREATE TABLE things (organization_id text NOT NULL, name text PRIMARY KEY);
CREATE TABLE notes (person text NOT NULL, name text PRIMARY KEY);
CREATE TABLE inner_rows (name text PRIMARY KEY)
"""


async def _nothing(_entries: Sequence[Entry], _connection: Connection) -> None: ...


THINGS = Projection("things", 1, TABLES, _nothing, visible={"notes": f"person = {THEIR_USER}"})
ALL_NAMES = "SELECT name FROM things UNION ALL SELECT name FROM notes UNION ALL SELECT name FROM inner_rows ORDER BY 1"


async def fill(connection: Connection, projection: Projection = THINGS) -> None:
    await ensure_schema(connection, projection)
    async with connection.transaction():
        await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(projection.schema)))
        await connection.execute(
            "INSERT INTO things VALUES ('acme', 'of acme'), ('globex', 'of globex'), ('', 'no ones')"
        )
        await connection.execute(
            "INSERT INTO notes VALUES ('ann', 'note of ann'), ('bob', 'note of bob'), ('', 'free')"
        )
        await connection.execute("INSERT INTO inner_rows VALUES ('inner')")


@asynccontextmanager
async def reading(postgres_url: str, *projections: Projection, **settings: Any) -> AsyncIterator[ReadModels]:
    async with ReadModels(postgres_url, projections=projections or (THINGS,), **settings) as read:
        yield read


async def names(read: ReadModels, scope: Scope | None = None) -> list[str]:
    async with read("things", scope=scope) as connection:
        return await listed(connection)


async def listed(connection: Connection) -> list[str]:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(ALL_NAMES)
        return await cursor.fetchall()


EVERY_NAME = ["free", "inner", "no ones", "note of ann", "note of bob", "of acme", "of globex"]


async def test_each_tenant_reads_its_own_rows_whatever_the_query_says(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
    async with reading(postgres_url) as read:
        assert await names(read, ACME) == ["note of ann", "of acme"]
        assert await names(read, GLOBEX) == ["of globex"]
        assert await names(read, Scope(user="bob")) == ["note of bob"]
        assert await names(read, EVERYTHING) == EVERY_NAME


async def test_without_a_scope_there_are_no_rows(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
    async with reading(postgres_url) as read:
        assert await names(read) == await names(read, NOBODY) == []
    async with reading(postgres_url, scope=EVERYTHING) as read:
        assert await names(read) == EVERY_NAME
        assert await names(read, NOBODY) == []


async def test_a_connection_forgets_the_scope_of_its_last_borrower(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
    lent: dict[int, set[Scope]] = {}
    async with reading(postgres_url) as read:
        for scope, expected in ((EVERYTHING, EVERY_NAME), (ACME, ["note of ann", "of acme"]), (NOBODY, [])) * 3:
            async with read("things", scope=scope) as connection:
                assert await listed(connection) == expected
                lent.setdefault(connection.info.backend_pid, set()).add(scope)
    assert any(len(scopes) == 3 for scopes in lent.values())  # one connection had them all


@pytest.mark.parametrize("id_", ["a'; RESET ROLE; --", "\\'; RESET ROLE; --", "a\0b", "ä\n;", "'", "$1", "%s", "{}"])
async def test_an_id_is_a_value_and_never_a_statement(postgres_url: str, id_: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
    async with reading(postgres_url) as read:
        assert await names(read, Scope(organization=id_, user=id_)) == []


async def test_the_owner_of_the_tables_is_not_held(postgres_url: str) -> None:
    """The writers' way, and the control of the tests above: without a role the same query shows everything."""
    async with await connect(postgres_url, "test", search_path=THINGS.schema) as connection:
        await fill(connection)
        assert await listed(connection) == EVERY_NAME


async def test_tables_of_an_older_release_are_protected_at_the_next_start(postgres_url: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
        await undo_protection(connection)
        await connection.commit()
        async with reading(postgres_url) as read:
            with pytest.raises(ReadModelUnavailableError, match="permission denied"):
                await names(read, ACME)  # closed, rather than open to all
            await ensure_schema(connection, THINGS)
            await connection.commit()
            assert await names(read, ACME) == ["note of ann", "of acme"]


async def undo_protection(connection: Connection) -> None:
    schema = sql.Identifier(THINGS.schema)
    await connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS NULL").format(schema))
    for table in THINGS.table_names:
        at = sql.Identifier(THINGS.schema, table)
        for role in (TENANT, PLATFORM):
            await connection.execute(sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(role), at))
            await connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(at, sql.Identifier(role)))
        await connection.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(at))


async def test_a_changed_rule_holds_from_the_next_start_without_a_new_version(postgres_url: str) -> None:
    changed = replace(THINGS, visible={"notes": f"person = {THEIR_USER}", "inner_rows": "true"})
    assert fingerprint(changed) != fingerprint(THINGS)
    async with await connect(postgres_url, "test") as connection:
        await fill(connection)
        await connection.commit()
        async with reading(postgres_url) as read:
            assert "inner" not in await names(read, ACME)
            await ensure_schema(connection, changed)
            await connection.commit()
            assert await names(read, ACME) == ["inner", "note of ann", "of acme"]


async def test_processes_that_start_together_protect_once(postgres_url: str) -> None:
    async def ensure() -> int:
        async with await connect(postgres_url, "test") as connection:
            return await ensure_schema(connection, THINGS)

    assert await asyncio.gather(*(ensure() for _ in range(5))) == [0] * 5


async def test_before_the_first_schema_a_reader_is_asked_to_come_back(postgres_url: str) -> None:
    async with reading(postgres_url) as read:
        with pytest.raises(ReadModelUnavailableError):
            await names(read, ACME)


async def test_each_table_of_each_read_model_is_behind_the_wall(postgres_url: str) -> None:
    async with await connect(postgres_url, "test", autocommit=True) as connection:
        for projection in PROJECTIONS:
            await ensure_schema(connection, projection)
            assert set(projection.visible) <= set(projection.table_names), projection.name
        async with connection.cursor() as cursor:
            await cursor.execute(
                """
                SELECT n.nspname || '.' || c.relname, c.relrowsecurity, count(p.oid)
                FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                LEFT JOIN pg_policy AS p ON p.polrelid = c.oid
                WHERE c.relkind = 'r' AND n.nspname = ANY(%s) GROUP BY 1, 2
                """,
                ([projection.schema for projection in PROJECTIONS],),
            )
            found = {name: (is_on, policies) for name, is_on, policies in await cursor.fetchall()}
    assert len(found) >= sum(len(projection.table_names) for projection in PROJECTIONS)
    assert {name: state for name, state in found.items() if state != (True, 2)} == {}


async def test_a_login_that_may_not_make_roles_is_told_the_cure(postgres_url: str) -> None:
    async with await connect(postgres_url, "test", autocommit=True) as administrator:
        await administrator.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'")
        try:
            place = urlsplit(postgres_url)
            url = urlunsplit(place._replace(netloc=f"poor:poor@{place.hostname}:{place.port}"))
            with pytest.raises(RolesMissingError, match=f"GRANT {TENANT}, {PLATFORM} TO"):
                await require_reader_roles(url)
        finally:
            await administrator.execute("DROP ROLE poor")


async def test_a_login_that_may_make_roles_makes_its_own(server_dir: Path) -> None:
    """On a server that has never seen us: the roles are made by a login that is no superuser, and it may take them."""
    server = await started(lambda: EmbeddedPostgres(server_dir / "postgres", some_port()))
    try:
        async with await connect(server.url, "test", autocommit=True) as administrator:
            await administrator.execute("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'maker'")
            await administrator.execute("CREATE DATABASE made OWNER maker")
        place = urlsplit(server.url)
        url = urlunsplit(place._replace(netloc=f"maker:maker@{place.hostname}:{place.port}", path="/made"))
        await require_reader_roles(url)
        async with await connect(url, "test") as connection:
            await fill(connection)
        async with reading(url) as read:
            assert await names(read, ACME) == ["note of ann", "of acme"]
            assert await names(read, EVERYTHING) == EVERY_NAME
    finally:
        await server.stop()


async def test_a_postgres_that_is_away_is_waited_for_later(postgres_url: str) -> None:
    await require_reader_roles(f"postgresql://nobody@127.0.0.1:{some_port()}/none")
    await require_reader_roles(postgres_url)  # the control: here it did something
    async with await connect(postgres_url, "test") as connection, connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT count(*) FROM pg_roles WHERE rolname = ANY(%s)", ([TENANT, PLATFORM],))
        assert await cursor.fetchone() == 2


async def test_a_login_without_rights_of_its_own_can_work_once_it_was_given_the_roles(postgres_url: str) -> None:
    """As at a managed Postgres: its owner of the database is no superuser."""
    async with await connect(postgres_url, "test", autocommit=True) as administrator:
        await ensure_roles(administrator)
        database = sql.Identifier(urlsplit(postgres_url).path[1:])
        await administrator.execute("CREATE ROLE modest LOGIN PASSWORD 'modest'")
        try:
            await administrator.execute(
                sql.SQL("GRANT {}, {} TO modest").format(*map(sql.Identifier, (TENANT, PLATFORM)))
            )
            await administrator.execute(sql.SQL("ALTER DATABASE {} OWNER TO modest").format(database))
            place = urlsplit(postgres_url)
            url = urlunsplit(place._replace(netloc=f"modest:modest@{place.hostname}:{place.port}"))
            async with await connect(url, "test") as connection:
                await fill(connection)
            async with reading(url) as read:
                assert await names(read, ACME) == ["note of ann", "of acme"]
                assert await names(read, EVERYTHING) == EVERY_NAME
        finally:
            await administrator.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(database))
            await administrator.execute("REASSIGN OWNED BY modest TO CURRENT_USER")
            await administrator.execute("DROP OWNED BY modest")
            await administrator.execute("DROP ROLE modest")
