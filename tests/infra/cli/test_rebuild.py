"""`inventiv events rebuild` on real servers: documents, exit codes, refusals."""

import asyncio
import json
from typing import Any

import pytest

from infra.cli.output import ExitCode
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.postgres import connect, ensure_schema
from projections.api_keys import API_KEYS
from projections.checkpoint import Move, move
from projections.registry import PROJECTIONS
from tests.infra.cli.conftest import Inventiv
from tests.infra.test_projecting import renames, stored

EVENTS = 20


@pytest.fixture
async def stores(nats_server: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """Servers of one's own with some events; no read model has been built. The URL of Postgres."""
    nc = await connect_writer(nats_server.url, "test")
    await stored(JetStreamLog(nc), renames(EVENTS))
    await disconnect(nc)
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path / "no platform here"))
    monkeypatch.setenv("INVENTIV_NATS_URL", nats_server.url)
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    return postgres_url


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def execute(postgres_url: str, statement: str) -> None:
    async def run() -> None:
        async with await connect(postgres_url, "test", autocommit=True) as connection:
            await connection.execute(statement)

    asyncio.run(run())


def test_all_read_models_are_rebuilt_and_then_the_same(
    stores: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "rebuild", "all", "--json") == ExitCode.OK
    rebuilt = document(capsys)["rebuilt"]
    assert [one["projection"] for one in rebuilt] == [projection.name for projection in PROJECTIONS]
    assert {one["result"] for one in rebuilt} == {"swapped"}
    assert {one["position"] for one in rebuilt if one["projection"] != "usage"} == {EVENTS}
    assert inventiv("events", "rebuild", "all", "--compare") == ExitCode.OK
    said = capsys.readouterr()
    assert "audit_log" in said.out
    assert "Comparing" in said.err


def test_rows_that_differ_are_exit_code_1_and_said(
    stores: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "rebuild", "api_keys") == ExitCode.OK
    execute(stores, f"UPDATE {API_KEYS.schema}.api_keys SET name = 'wrong'")
    capsys.readouterr()
    assert inventiv("events", "rebuild", "api_keys", "--compare", "--json") == ExitCode.FAILED
    (found,) = document(capsys)["rebuilt"]
    assert found["result"] == "different"
    assert (found["differences"][0]["table"], found["differences"][0]["keys"]) == ("api_keys", ["k-1"])
    assert inventiv("events", "rebuild", "api_keys", "--compare") == ExitCode.FAILED
    assert "api_keys.api_keys: 1 rows only in the living one, 1 only in the rebuilt one" in capsys.readouterr().err
    assert inventiv("events", "rebuild", "api_keys") == ExitCode.OK
    assert inventiv("events", "rebuild", "api_keys", "--compare") == ExitCode.OK


def test_an_unknown_read_model_is_named_with_those_that_there_are(
    stores: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "rebuild", "nothing", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "read_model_not_found"
    assert inventiv("events", "rebuild") == ExitCode.USAGE
    assert "Known: organizations, invitations" in capsys.readouterr().err


def test_older_versions_are_listed_and_pruned(
    stores: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "rebuild", "--list") == ExitCode.OK
    assert "No projection has run" in capsys.readouterr().err
    asyncio.run(_an_older_version(stores))
    assert inventiv("events", "rebuild", "api_keys") == ExitCode.OK
    capsys.readouterr()
    assert inventiv("events", "rebuild", "--list", "--json") == ExitCode.OK
    listed = {one["schema"]: one["state"] for one in document(capsys)["read_models"]}
    assert listed == {"api_keys_v0": "superseded", API_KEYS.schema: "living"}
    assert inventiv("events", "rebuild", "--prune") == ExitCode.OK
    assert "dropped" in capsys.readouterr().out
    assert inventiv("events", "rebuild", "--list", "--json") == ExitCode.OK
    assert [one["schema"] for one in document(capsys)["read_models"]] == [API_KEYS.schema]


async def _an_older_version(postgres_url: str) -> None:
    older = API_KEYS.__class__(**{**API_KEYS.__dict__, "version": 0})
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, older)
        await move(connection, [Move(older, 0, EVENTS)])


def test_one_that_fails_leaves_the_living_one_and_says_so(
    stores: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "rebuild", "api_keys") == ExitCode.OK
    execute(stores, f"UPDATE platform.checkpoints SET position = {EVENTS + 1}")
    capsys.readouterr()
    assert inventiv("events", "rebuild", "api_keys", "--compare", "--json") == ExitCode.FAILED
    (found,) = document(capsys)["rebuilt"]
    assert found["result"] == "failed"
    assert "its stream ends at 20" in found["reason"]
