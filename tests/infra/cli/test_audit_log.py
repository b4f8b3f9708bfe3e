"""`inventiv audit log`, `show`, `state`, `download` against a stub of the API."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.cli import audit_log
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

ROW: dict[str, Any] = {
    "position": 7,
    "event_id": "e-7",
    "at": "2026-11-21T12:00:00Z",
    "actor": {"kind": "user", "id": "u-1", "name": "Alice A"},
    "type": "ApiKeyRenamed",
    "verb": "renamed the API key",
    "outcome": "success",
    "target": {"aggregate": "api_key", "kind": "API key", "id": "k-1", "label": "ci", "version": 2},
    "organization_id": "o-1",
    "correlation": "intent",
    "origin": {"kind": "session", "id": "s-1", "ip": "192.0.2.1", "browser": None},
    "data": {"name": "ci"},
    "changes": [{"field": "name", "before": None, "after": "ci"}],
    "changes_left_out": None,
}
LINK = {"position": 3, "event_id": "e-3", "verb": "issued the API key", "aggregate": "api_key", "id": "k-1"}
NAMELESS = {**ROW, "position": 6, "actor": {"kind": "system", "id": "handlers", "name": None}}


def query_of(stub: StubApi, path: str) -> dict[str, str]:
    """What the last request for a path asked."""
    return {name: values[0] for name, values in parse_qs(urlsplit(stub.asked_of("GET", path)[-1].path).query).items()}


def test_the_newest_row_stands_last(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/audit", Answer(200, {"rows": [ROW, NAMELESS], "older": None, "newer": 7}))
    assert inventiv("audit", "log") == 0
    heading, first, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["POSITION", "AT", "WHO", "DID", "TO", "OUTCOME"]
    assert "system:handlers" in first
    assert last == "7         2026-11-21 12:00:00  Alice A          renamed the API key  API key ci  success"
    assert query_of(stub, "/audit") == {"all": "true", "limit": "50", "changes": "false"}


def test_a_refused_attempt_says_at_what(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"action": "GET /audit", "target": "/audit", "code": "insufficient_permissions", "unrecorded": 0}
    row = {**ROW, "type": "AttemptDenied", "verb": "was refused", "data": data, "outcome": "failed"}
    stub.answer("GET", "/audit", Answer(200, {"rows": [row], "older": None, "newer": 7}))
    assert inventiv("audit", "log") == 0
    assert "was refused  GET /audit (insufficient_permissions)  failed" in capsys.readouterr().out


def test_filters_reach_the_api(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/audit", Answer(200, {"rows": [], "older": None, "newer": 0}))
    words = "--text ci --who user:u-1 --what api_key/k-1 --type T --action A --outcome failed --intent i --cause e"
    assert inventiv("audit", "log", *words.split(), "--since", "2026-01-01", "--until", "2026-02-01",
                    "--organization", "o-1") == 0  # fmt: skip
    assert "without filters" in capsys.readouterr().err
    assert query_of(stub, "/audit") == {
        "text": "ci",
        "actor_kind": "user",
        "actor_id": "u-1",
        "aggregate": "api_key",
        "id": "k-1",
        "type": "T",
        "action": "A",
        "outcome": "failed",
        "correlation": "i",
        "cause": "e",
        "since": "2026-01-01",
        "until": "2026-02-01",
        "organization": "o-1",
        "limit": "50",
        "changes": "false",
    }


def test_many_rows_come_in_pages(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "PAGE_ROWS", 1)
    first, second = ({"rows": [row], "older": older, "newer": 7} for row, older in ((ROW, 7), (NAMELESS, None)))
    stub.answer("GET", "/audit", Answer(200, first), Answer(200, second))
    assert inventiv("audit", "log", "--last", "5", "--json") == 0
    assert [row["position"] for row in json.loads(capsys.readouterr().out)["rows"]] == [7, 6]
    assert query_of(stub, "/audit")["before"] == "7"


def test_one_row_tells_what_changed_and_why(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {**ROW, "envelope": {}, "causes": [LINK], "effects": [{**LINK, "position": 9}], "more_effects": True}
    stub.answer("GET", "/audit/7", Answer(200, row))
    assert inventiv("audit", "show", "7") == 0
    said = capsys.readouterr()
    for line in (
        "Alice A renamed the API key: API key ci",
        "  name: nothing -> ci",
        "because of  3  issued the API key  api_key/k-1",
        "led to  9  issued the API key  api_key/k-1",
    ):
        assert line in said.out.splitlines()
    assert "session s-1, 192.0.2.1" in said.out
    assert "inventiv audit log --cause e-7" in said.err
    assert inventiv("audit", "show", "7", "--json") == 0
    assert json.loads(capsys.readouterr().out) == row


def test_a_row_that_is_not_there_is_not_found(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Answer(404, {"error": "audit_entry_not_found", "message": "There is no audit entry with this id."})
    stub.answer("GET", "/audit/8", refused)
    assert inventiv("audit", "show", "8") == 3
    assert "audit_entry_not_found" in capsys.readouterr().err


def test_a_state_is_told_at_a_moment(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"version": 2, "position": 7, "at": "2026-11-21T12:00:00Z", "state": {"name": "ci", "models": []}}
    stub.answer("GET", "/audit/state", Answer(200, state))
    assert inventiv("audit", "state", "api_key", "k-1", "--at", "7") == 0
    said = capsys.readouterr()
    assert said.out.split() == ["name", "ci"]
    assert "version 2 (position 7" in said.err
    assert query_of(stub, "/audit/state") == {"aggregate": "api_key", "id": "k-1", "at": "7", "all": "true"}


def test_a_download_is_a_file_for_its_owner_alone(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    stub.answer("GET", "/audit/export", Answer(200, b"position\r\n7\r\n"))
    assert inventiv("audit", "download", "--out", str(out), "--type", "ApiKeyRenamed", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "format": "csv", "bytes": 13}
    assert out.read_bytes() == b"position\r\n7\r\n"
    assert out.stat().st_mode & 0o077 == 0
    assert query_of(stub, "/audit/export") == {"format": "csv", "type": "ApiKeyRenamed", "all": "true"}
    assert inventiv("audit", "download", "--out", str(out)) == 5
    assert "exists already" in capsys.readouterr().err


def test_a_download_that_breaks_off_leaves_no_file(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = Answer(200, b"position\r\n7\r\n", {"Content-Length": "999", "Connection": "close"})
    stub.answer("GET", "/audit/export", broken)
    assert inventiv("audit", "download", "--out", str(tmp_path / "rows.csv")) == 8
    assert "broke off" in capsys.readouterr().err
    assert list(tmp_path.glob("rows*")) == []


def test_a_download_renews_a_session_that_ended(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ended = Answer(401, {"error": "session_invalid_or_expired", "message": "Over."})
    stub.answer("GET", "/audit/export", ended, Answer(200, b"{}\n"))
    assert inventiv("audit", "download", "--out", str(tmp_path / "rows.jsonl"), "--format", "jsonl") == 0
    assert "stands in the log" in capsys.readouterr().err
    stub.answer("GET", "/audit/export", ended)
    assert inventiv("audit", "download", "--out", str(tmp_path / "never.jsonl")) == 4


def test_nobody_is_no_actor(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("audit", "log", "--who", "ghost:1") == 2
    assert "nobody who acts" in capsys.readouterr().err
    assert stub.asked == []
