"""`inventiv events rehearse` and `effects` on a real log and a real Postgres; and that a rehearsal touches neither."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from domain.aggregates import AGGREGATES
from domain.instance import INSTANCE
from handlers.ports import Effect
from infra.cli.events import rehearse
from infra.effect_tables import EffectTables
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from tests.handlers.world import ACME, ALICE, INSTANCE_1, instance_wanted
from tests.infra.cli.conftest import Inventiv
from tests.infra.reacting_doors import doors_on

CREATED = Effect(reaction="advance_instance", event_id="event-1", name="create_server", key="server-1")


@pytest.fixture
def stores(nats_server: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> EmbeddedNats:
    monkeypatch.setenv("INVENTIV_NATS_URL", nats_server.url)
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    return nats_server


async def with_log(nats_url: str, use: Any) -> Any:
    writer = await connect_writer(nats_url, "test")
    try:
        return await use(JetStreamLog(writer))
    finally:
        await disconnect(writer)


def request_instance(nats_url: str) -> None:
    async def request(log: JetStreamLog) -> None:
        await doors_on(log, AGGREGATES).dispatch(INSTANCE, ACME, INSTANCE_1, instance_wanted(), ALICE)

    asyncio.run(with_log(nats_url, request))


def stored(nats_url: str, postgres_url: str) -> tuple[int, list[Any], list[Any]]:
    """The log's head, the tables that there are, and the ledger's rows."""

    async def head(log: JetStreamLog) -> int:
        return await log.head()

    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT schemaname, tablename FROM pg_tables ORDER BY 1, 2").fetchall()
        rows = connection.execute("SELECT * FROM platform.effects ORDER BY event_id").fetchall()
        return asyncio.run(with_log(nats_url, head)), tables, rows


def record(postgres_url: str, *effects: Effect) -> None:
    async def write() -> None:
        async with EffectTables(postgres_url) as rows:
            for effect in effects:
                await rows.intend(effect)
            await rows.end(effects[0], "done", "")

    asyncio.run(write())


def test_what_was_never_done_is_new_and_ends_with_1(
    stores: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    request_instance(stores.url)
    capsys.readouterr()
    assert inventiv("events", "rehearse", "advance_instance", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"] == {"new": 1}
    assert document["wakings"][0]["would"] == [
        {"kind": "event", "name": "ServerCreateIntended", "on": f"instance/{INSTANCE_1}"}
    ]
    assert inventiv("events", "rehearse", "advance_instance") == 1
    shown = capsys.readouterr()
    assert "would  ServerCreateIntended" in shown.out
    assert "1 new" in shown.err


def test_what_is_the_same_ends_with_0(
    stores: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    request_instance(stores.url)
    assert inventiv("events", "rehearse", "stop_instances_on_deployment_stopped") == 0
    assert "Nothing in this part of the log wakes" in capsys.readouterr().err


def test_a_rehearsal_leaves_log_and_tables_untouched(
    stores: EmbeddedNats, postgres_url: str, inventiv: Inventiv
) -> None:
    request_instance(stores.url)
    record(postgres_url, CREATED)
    before = stored(stores.url, postgres_url)
    assert inventiv("events", "rehearse", "advance_instance") == 1
    assert stored(stores.url, postgres_url) == before
    assert (before[0], len(before[2])) == (1, 1)


def test_an_unknown_handler_is_told_the_known_ones(inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("events", "rehearse", "advance") == 2
    assert "advance_instance" in capsys.readouterr().err


def test_a_range_that_ends_before_it_begins_is_refused(inventiv: Inventiv) -> None:
    assert inventiv("events", "rehearse", "advance_instance", "--from", "5", "--to", "4") == 2


def test_more_than_can_be_kept_is_refused_with_a_cure(
    stores: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("infra.replay.rehearse.MAX_WAKINGS", 0)
    request_instance(stores.url)
    assert inventiv("events", "rehearse", "advance_instance") == 2
    assert "--from and --to" in capsys.readouterr().err


def test_what_is_too_much_to_show_is_counted(
    stores: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearse, "MAX_SHOWN", 0)
    request_instance(stores.url)
    assert inventiv("events", "rehearse", "advance_instance") == 1
    assert "and 1 more" in capsys.readouterr().err


def test_effects_are_listed_and_filtered(
    stores: EmbeddedNats, postgres_url: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "effects") == 0
    assert "Nothing was done" in capsys.readouterr().err
    unfinished = Effect(reaction="advance_instance", event_id="event-2", name="delete_server", key="srv-1")
    record(postgres_url, CREATED, unfinished)
    capsys.readouterr()
    for arguments, names in (
        ([], ["delete_server", "create_server"]),
        (["--unfinished"], ["delete_server"]),
        (["--event", "event-1"], ["create_server"]),
        (["--event", "event-1", "--unfinished"], []),
    ):
        assert inventiv("events", "effects", *arguments, "--json") == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)["effects"]] == names, arguments
