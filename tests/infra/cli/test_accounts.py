"""Provider accounts from the command line: what is asked, what is waited for, and a provider's own words."""

import json
from typing import Any

import pytest

from infra.cli import accounts
from infra.cli.output import ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

LOOKS: dict[str, Any] = {
    "requested_at": None,
    "completed_at": "2026-11-21T12:00:00+00:00",
    "servers": 3,
    "volumes": 2,
    "strays": 0,
    "strays_deleted": 0,
    "unrecorded": 0,
    "missed": 0,
    "deletions_halted_at": None,
    "failed_at": None,
    "failed_call": "",
    "failure_kind": "",
    "failure": "",
}
SYNC: dict[str, Any] = {
    "requested_at": None,
    "synced_at": "2026-11-21T12:00:00+00:00",
    "failed_at": None,
    "failure_kind": "",
    "failure": "",
}
ACCOUNT: dict[str, Any] = {
    "provider_code": "scaleway",
    "provider_name": "Scaleway",
    "is_configured": True,
    "missing_config": [],
    "reconciliation": LOOKS,
    "catalogue": SYNC,
    "position": 7,
}
DENIED = {**LOOKS, "failure_kind": "auth", "failure": "authentication is denied", "failed_call": "list_servers"}
PENDING = {**LOOKS, "requested_at": "2026-11-21T12:00:01+00:00"}


def triggered(stub: StubApi, path: str, *answers: dict[str, Any], providers: tuple[str, ...] = ("scaleway",)) -> None:
    stub.answer("POST", path, Answer(202, {"status": "triggered", "providers": list(providers), "position": 7}))
    stub.answer("GET", "/provider_accounts", *(Answer(200, [one]) for one in answers))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "POLL_S", 0.01)


def test_a_reconciliation_is_waited_for(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": PENDING}, ACCOUNT)
    assert inventiv("reconcile") == ExitCode.OK
    assert len(stub.asked_of("GET", "/provider_accounts")) == 2
    assert "Scaleway: 3 servers, 2 volumes: all as recorded." in capsys.readouterr().err


def test_one_provider_may_be_named_and_nobody_waited_for(stub: StubApi, inventiv: Inventiv) -> None:
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": PENDING})
    assert inventiv("reconcile", "--provider", "scaleway", "--detach") == ExitCode.OK
    [asked] = stub.asked_of("POST", "/reconcile")
    assert asked.path.endswith("?provider=scaleway")


def test_what_was_found_is_told(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    found = {**LOOKS, "volumes": None, "strays": 1, "missed": 2, "unrecorded": 1}
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": found})
    assert inventiv("reconcile") == ExitCode.OK
    told = capsys.readouterr().err
    for words in ("3 servers, 1 that no record wants", "2 missed at the provider", "1 signed by us without a record"):
        assert words in told
    assert "volumes" not in told


def test_a_failure_is_told_in_the_providers_own_words(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": DENIED})
    assert inventiv("reconcile") == ExitCode.FAILED
    assert "Scaleway: authentication is denied (auth)" in capsys.readouterr().err


def test_a_failure_is_a_document_too(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": DENIED})
    assert inventiv("reconcile", "--json") == ExitCode.FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["accounts"][0]["reconciliation"]["failure"] == "authentication is denied"


def test_without_any_account_the_cure_is_said(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    triggered(stub, "/catalog/sync", providers=())
    assert inventiv("catalog", "sync") == ExitCode.CONFLICT
    assert "inventiv provider credentials CODE" in capsys.readouterr().err


def test_an_answer_that_does_not_come_ends_the_wait(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "WAIT_S", 0.05)
    triggered(stub, "/reconcile", {**ACCOUNT, "reconciliation": PENDING})
    assert inventiv("reconcile") == ExitCode.TIMED_OUT
    assert "No answer yet for scaleway" in capsys.readouterr().err


def test_a_catalogue_is_synced_and_listed(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    triggered(stub, "/catalog/sync", ACCOUNT)
    assert inventiv("catalog", "sync") == ExitCode.OK
    assert "Scaleway: synced" in capsys.readouterr().err
    places = [{"zone_id": "z", "zone_code": "fr-par-2", "cost_per_hour": 0.75, "stock": "scarce"}]
    l4 = {"provider_code": "scaleway", "code": "L4-1-24G", "gpu_count": 1, "vram_per_gpu_gb": 24}
    stub.answer("GET", "/instance_types", Answer(200, [{**l4, "source": "provider", "places": places}]))
    assert inventiv("catalog", "ls") == ExitCode.OK
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["scaleway", "fr-par-2", "L4-1-24G", "1", "24", "0.75", "scarce", "provider"]
    assert inventiv("catalog", "ls", "--provider", "aws") == ExitCode.OK
    assert "Nothing is known to be for rent" in capsys.readouterr().err


def test_providers_show_how_their_accounts_are(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    status = {"provider_name": "Scaleway", "is_configured": True, "missing_config": []}
    local = {"provider_code": "local", "provider_name": "This machine", "is_configured": True, "missing_config": []}
    stub.answer("GET", "/providers/config-status", Answer(200, [{"provider_code": "scaleway", **status}, local]))
    stub.answer("GET", "/provider_accounts", Answer(200, [{**ACCOUNT, "reconciliation": DENIED}]))
    assert inventiv("provider", "ls") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "authentication is denied (auth)" in shown
    assert "This machine  yes         -        -" in shown


def test_a_secret_of_several_lines_is_named_by_its_file(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    key, given = tmp_path / "key", tmp_path / "given"
    key.write_text("line one\nline two\n")
    given.write_text(f"ssh_private_key=@{key}\n")
    answer = {"provider_name": "Own hosts", "is_configured": True, "missing_config": []}
    stub.answer("PUT", "/providers/bare_metal/credentials", Answer(200, answer))
    assert inventiv("provider", "credentials", "bare_metal", "--from", str(given)) == ExitCode.OK
    [asked] = stub.asked_of("PUT", "/providers/bare_metal/credentials")
    assert asked.body == {"values": {"ssh_private_key": "line one\nline two\n"}}
    given.write_text(f"ssh_private_key=@{tmp_path}/nowhere\n")
    assert inventiv("provider", "credentials", "bare_metal", "--from", str(given)) == ExitCode.USAGE
    assert "line one" not in capsys.readouterr().err
