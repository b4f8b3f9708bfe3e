"""`inventiv user` and `inventiv password`, against a stub of the REST API."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import users
from infra.cli.output import ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import PASSWORD, Answer, StubApi

ANN_ID = "01890000-0000-7000-8000-00000000000a"
ANN = {
    "id": ANN_ID,
    "username": "ann",
    "email": "ann@example.org",
    "first_name": "Ann",
    "last_name": "",
    "role": "user",
    "account_plan": "free",
    "has_password": True,
    "created_at": "2026-11-21T08:00:00Z",
    "updated_at": "2026-11-21T08:00:00Z",
}
NOWHERE = {"organization_id": None, "organization_name": None, "organization_slug": None, "organization_role": None}
NOT_FOUND = Answer(404, {"error": "user_not_found", "message": "There is no user with this id."})
NEW_PASSWORD = "violet teapots sing"


def page(*rows: dict[str, Any], total: int = 1, searched: int = 1, filtered: int | None = None) -> Answer:
    counts = {"total_count": total, "searched_count": searched, "filtered_count": filtered or len(rows)}
    return Answer(200, {"offset": 0, "limit": 500, **counts, "rows": [{**row, **NOWHERE} for row in rows]})


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "new-password"
    path.write_text(f"{NEW_PASSWORD}\n")
    return path


def test_users_are_listed(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/users/search", page(ANN))
    assert inventiv("user", "ls") == ExitCode.OK
    shown = capsys.readouterr()
    assert ("ann@example.org" in shown.out, shown.err) == (True, "")
    assert inventiv("user", "ls", "--json") == ExitCode.OK
    assert document(capsys)["rows"][0]["id"] == ANN_ID


def test_a_list_says_what_it_does_not_show(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/users/search", page(ANN, total=2500, searched=2000, filtered=700))
    assert inventiv("user", "ls", "a") == ExitCode.OK
    said = capsys.readouterr().err
    assert "699 more" in said
    assert "500 older users" in said
    stub.answer("GET", "/users/search", page())
    assert inventiv("user", "ls", "nobody") == ExitCode.OK
    assert "'nobody'" in capsys.readouterr().err


def test_a_user_is_created_with_a_password_from_a_file(
    stub: StubApi, inventiv: Inventiv, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("POST", "/users", Answer(201, ANN))
    words = ("user", "create", "ann", "ann@example.org", "--password-file", str(password_file))
    assert inventiv(*words) == ExitCode.OK
    [asked] = stub.asked_of("POST", "/users")
    assert asked.body["password"] == NEW_PASSWORD
    assert asked.body["role"] == "user"
    shown = capsys.readouterr()
    assert shown.out == f"{ANN_ID}\n"
    assert NEW_PASSWORD not in shown.out + shown.err


@pytest.mark.parametrize("content", [None, b"", b"two\nlines\n", b"\xff\xfe"])
def test_a_password_file_that_cannot_serve_is_named(
    stub: StubApi, inventiv: Inventiv, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    for words in (("user", "create", "ann", "ann@example.org"), ("password",)):
        assert inventiv(*words, "--password-file", str(path)) == ExitCode.USAGE
        assert str(path) in capsys.readouterr().err
    assert not stub.asked


def test_without_a_person_no_password_is_asked_for(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("user", "create", "ann", "ann@example.org") == ExitCode.USAGE
    assert "--password-file" in capsys.readouterr().err
    assert not stub.asked


@pytest.mark.parametrize("name", [ANN_ID, "ann", "ANN@example.org"])
def test_a_user_is_named_by_id_username_or_address(
    stub: StubApi, inventiv: Inventiv, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer(
        "GET", "/users/search", page({**ANN, "id": "other", "username": "annabel", "email": "b@example.org"}, ANN)
    )
    stub.answer("GET", f"/users/{ANN_ID}", Answer(200, ANN))
    assert inventiv("user", "show", name, "--json") == ExitCode.OK
    assert document(capsys) == ANN


def test_a_part_of_a_name_names_nobody(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/users/search", page(ANN))
    assert inventiv("user", "forget", "an", "--yes", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "user_not_found"


@pytest.mark.parametrize(
    ("words", "body"),
    [(("role", "ann", "admin"), {"role": "admin"}), (("plan", "ann", "subscriber"), {"account_plan": "subscriber"})],
)
def test_role_and_plan_are_changed(
    stub: StubApi, inventiv: Inventiv, words: tuple[str, ...], body: dict[str, str]
) -> None:
    stub.answer("GET", "/users/search", page(ANN))
    stub.answer("GET", f"/users/{ANN_ID}", Answer(200, ANN))
    stub.answer("PUT", f"/users/{ANN_ID}", Answer(200, {**ANN, **body}))
    assert inventiv("user", *words) == ExitCode.OK
    assert [asked.body for asked in stub.asked_of("PUT", f"/users/{ANN_ID}")] == [body]


def forgettable(stub: StubApi, *erased: str | None) -> None:
    stub.answer("GET", "/users/search", page(ANN))
    stub.answer("GET", f"/users/{ANN_ID}", Answer(200, ANN))
    stub.answer("DELETE", f"/users/{ANN_ID}", Answer(204))
    answers = [Answer(200, {"user_id": ANN_ID, "erased_at": at}) for at in erased]
    stub.answer("GET", f"/users/{ANN_ID}/forgetting", *answers)


def test_forgetting_waits_until_everything_is_erased(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    forgettable(stub, None, None, "2026-11-21T08:00:01Z")
    assert inventiv("user", "forget", "ann", "--yes") == ExitCode.OK
    assert len(stub.asked_of("GET", f"/users/{ANN_ID}/forgetting")) == 3
    assert "names, e-mail address" in capsys.readouterr().err


def test_forgetting_asks_first(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    forgettable(stub, "2026-11-21T08:00:01Z")
    assert inventiv("user", "forget", "ann") == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err
    assert not stub.asked_of("DELETE", f"/users/{ANN_ID}")


def test_forgetting_goes_on_where_an_earlier_command_ended(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", f"/users/{ANN_ID}", NOT_FOUND)
    stub.answer("GET", f"/users/{ANN_ID}/forgetting", Answer(200, {"user_id": ANN_ID, "erased_at": "2026-11-21"}))
    assert inventiv("user", "forget", ANN_ID, "--json") == ExitCode.OK
    assert document(capsys)["erased_at"] == "2026-11-21"
    stub.answer("GET", f"/users/{ANN_ID}/forgetting", NOT_FOUND)
    assert inventiv("user", "forget", ANN_ID, "--yes") == ExitCode.NOT_FOUND


def test_an_erasure_that_takes_too_long_is_told(
    stub: StubApi, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(users, "ERASURE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(users, "ERASURE_LOOK_S", 0.01)
    forgettable(stub, None)
    assert inventiv("user", "forget", "ann", "--yes", "--json") == ExitCode.TIMED_OUT
    assert document(capsys)["error"] == "erasure_under_way"


def test_the_last_owner_is_told_what_to_do(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    forgettable(stub)
    refused = {"error": "last_owner_cannot_be_removed", "message": "These would have no owner: Acme (acme)."}
    stub.answer("DELETE", f"/users/{ANN_ID}", Answer(409, refused))
    assert inventiv("user", "forget", "ann", "--yes") == ExitCode.CONFLICT
    said = capsys.readouterr().err
    assert "Acme (acme)" in said
    assert "inventiv member role" in said


def test_a_changed_password_signs_the_next_command_in(
    stub: StubApi, inventiv: Inventiv, tmp_path: Path, password_file: Path
) -> None:
    stub.answer("PUT", "/auth/me/password", Answer(200, None))
    assert inventiv("password", "--password-file", str(password_file)) == ExitCode.OK
    [asked] = stub.asked_of("PUT", "/auth/me/password")
    assert asked.body == {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    kept = tmp_path / "secrets" / "admin_password"
    assert kept.read_text() == f"{NEW_PASSWORD}\n"
    assert kept.stat().st_mode & 0o077 == 0


def test_a_refused_password_changes_no_file(
    stub: StubApi, inventiv: Inventiv, tmp_path: Path, password_file: Path
) -> None:
    weak = {"error": "password_too_common", "message": "Guessed first."}
    stub.answer("PUT", "/auth/me/password", Answer(400, weak))
    assert inventiv("password", "--password-file", str(password_file), "--json") == ExitCode.FAILED
    assert (tmp_path / "secrets" / "admin_password").read_text() == f"{PASSWORD}\n"


def test_a_key_has_no_password(
    stub: StubApi, inventiv: Inventiv, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_API_KEY", "sk-inv-x")
    assert inventiv("password", "--password-file", str(password_file)) == ExitCode.NOT_ALLOWED
    assert not stub.asked
