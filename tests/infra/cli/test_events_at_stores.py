"""`inventiv events verify`, `export`, `import`, `restore` on real servers: documents, exit codes, refusals."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from infra.cli.output import ExitCode
from infra.embedded.nats import EmbeddedNats
from infra.events.streams import EVENTS
from projections.users import USERS
from tests.infra.cli.conftest import Inventiv
from tests.infra.replay.stores import a_story, administrator, fold, messages_of, publish, stored, wipe

WHOLE = messages_of(a_story(lives=1))


@pytest.fixture
def environment(
    bare_nats: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> EmbeddedNats:
    """Servers of one's own, as the environment names them."""
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path / "no platform here"))
    monkeypatch.setenv("INVENTIV_NATS_URL", bare_nats.admin_url)
    monkeypatch.setenv("INVENTIV_NATS_MONITOR_URL", bare_nats.monitor_url)
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    return bare_nats


@pytest.fixture
async def platform(environment: EmbeddedNats, postgres_url: str) -> EmbeddedNats:
    """... with a story in both."""
    async with administrator(environment) as nc:
        await publish(nc, WHOLE)
    await fold(postgres_url, WHOLE)
    return environment


@pytest.fixture
async def burnt(platform: EmbeddedNats) -> EmbeddedNats:
    """... of which NATS has lost everything."""
    async with administrator(platform) as nc:
        await wipe(nc, EVENTS)
    return platform


def on(server: EmbeddedNats, work: str) -> Any:
    """Runs a coroutine function of this file from a test without a loop (the command has its own)."""
    jobs: dict[str, Coroutine[Any, Any, Any]] = {"stored": _stored(server), "wiped": _wiped(server)}
    wanted = jobs.pop(work)
    for other in jobs.values():
        other.close()
    return asyncio.run(wanted)


async def _stored(server: EmbeddedNats) -> Any:
    async with administrator(server) as nc:
        return await stored(nc)


async def _wiped(server: EmbeddedNats) -> None:
    async with administrator(server) as nc:
        await wipe(nc, EVENTS)


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_whole_log_verifies(platform: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("events", "verify", "--json") == ExitCode.OK
    report = document(capsys)
    assert (report["damaged"], report["checked"]["events"]) == (False, len(WHOLE))
    assert report["events_per_s"] > 0
    assert inventiv("events", "verify", "--full") == ExitCode.OK
    assert f"Checked {len(WHOLE)} events" in capsys.readouterr().err


def test_damage_is_exit_code_1_with_a_table_and_cures(
    burnt: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "verify") == ExitCode.FAILED
    said = capsys.readouterr()
    assert "damage    checkpoint" in said.out
    assert "inventiv events restore" in said.err
    assert inventiv("events", "verify", "--json") == ExitCode.FAILED
    finding = next(f for f in document(capsys)["findings"] if f["check"] == "checkpoint")
    assert set(finding) == {"severity", "check", "position", "subject", "found", "cure"}


def test_a_lost_log_is_restored_once_its_roles_are_known_to_be_stopped(
    burnt: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "restore", "--dry-run", "--json") == ExitCode.OK
    assert document(capsys)["plan"]["events_missing"] == len(WHOLE)
    assert inventiv("events", "restore", "--json") == ExitCode.CONFLICT
    assert document(capsys)["error"] == "platform_may_be_running"
    assert inventiv("events", "restore", "--stopped", "--json") == ExitCode.OK
    assert document(capsys)["done"]["events_restored"] == len(WHOLE)
    assert on(burnt, "stored") == WHOLE
    assert inventiv("events", "restore", "--stopped") == ExitCode.OK
    assert "Nothing to do" in capsys.readouterr().err


def test_losses_must_be_accepted(
    burnt: EmbeddedNats, postgres_url: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    story = a_story(lives=1)
    story.happened("acme", "late", *[entry.event for entry in a_story(lives=1).entries[:1]])
    asyncio.run(fold(postgres_url, messages_of(story), only=["users"]))
    assert inventiv("events", "restore", "--stopped", "--json") == ExitCode.CONFLICT
    assert document(capsys)["error"] == "events_lost"
    assert inventiv("events", "restore", "--stopped", "--accept-loss", "--json") == ExitCode.OK
    assert document(capsys)["done"]["reset"] == [USERS.schema]


def test_an_export_comes_back(
    platform: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    assert inventiv("events", "export", str(file), "--json") == ExitCode.OK
    assert document(capsys)["events"] == len(WHOLE)
    assert file.stat().st_mode & 0o077 == 0
    assert inventiv("events", "export", str(file)) == ExitCode.CONFLICT
    assert inventiv("events", "import", str(file), "--stopped") == ExitCode.CONFLICT
    on(platform, "wiped")
    assert inventiv("events", "import", str(file), "--stopped", "--json") == ExitCode.OK
    assert on(platform, "stored") == WHOLE


def test_a_selection_goes_to_stdout(
    platform: EmbeddedNats, inventiv: Inventiv, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert inventiv("events", "export", "--from", "2", "--to", "3") == ExitCode.OK
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line).get("position") for line in lines] == [2, 3, None]
    assert inventiv("events", "export", "--json") == ExitCode.USAGE


def test_streams_are_backed_up_and_brought_back(
    platform: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "backup")
    assert inventiv("events", "export", "--stream-backup", folder, "--json") == ExitCode.OK
    assert document(capsys)["streams"] == ["EVENTS", "USAGE", "SEALS"]
    assert inventiv("events", "import", "--stream-backup", folder, "--stopped") == ExitCode.CONFLICT
    on(platform, "wiped")
    assert inventiv("events", "import", "--stream-backup", folder, "--stopped", "--json") == ExitCode.OK
    assert on(platform, "stored") == WHOLE


def test_stores_that_do_not_answer_are_unreachable(
    environment: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert inventiv("events", "restore", "--stopped") == ExitCode.UNREACHABLE
    assert "does not answer" in capsys.readouterr().err


def test_without_stores_it_says_what_to_set(
    environment: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INVENTIV_POSTGRES_URL")
    assert inventiv("events", "verify", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "no_stores"
