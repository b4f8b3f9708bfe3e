"""The keys of a fresh platform: made once, shown once, and the same again for an `up` that died in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.environment import Environment, read_environment
from infra.processes.data_folder import Marker
from infra.processes.first_keys import first_keys, password_file
from tests.infra.cli.stub_api import PASSWORD, Answer, StubApi, running_stub

MARKER = Marker(id="folder", created_at=0)


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubApi]:
    with running_stub() as stub:
        for folder in ("run", "secrets"):
            (tmp_path / folder).mkdir()
        (tmp_path / "secrets" / "admin_password").write_text(PASSWORD)
        stub.answer("POST", "/api_keys", Answer(201, {"api_key": "sk-inv-a"}), Answer(201, {"api_key": "sk-inv-b"}))
        yield stub


def settings(stub: StubApi, folder: Path, **more: str) -> Environment:
    return read_environment({"INVENTIV_DATA_DIR": str(folder), "INVENTIV_API_URL": stub.url, **more})


def test_the_first_start_makes_two_keys_and_shows_one(stub: StubApi, tmp_path: Path) -> None:
    keys = first_keys(settings(stub, tmp_path), MARKER)
    assert (keys.admin_password, keys.api_key) == (PASSWORD, "sk-inv-b")
    assert keys.key_file.read_text() == "sk-inv-a\n"
    assert keys.key_file.stat().st_mode & 0o077 == 0
    asked = stub.asked_of("POST", "/api_keys")
    assert [one.headers["idempotency-key"] for one in asked] == ["folder-cli-key", "folder-first-key"]
    for one in asked:
        assert one.body["activate"] == ["technical", "economic"]
        assert one.body["expires_in_days"] is None


def test_once_shown_nothing_is_asked_or_shown_again(stub: StubApi, tmp_path: Path) -> None:
    first_keys(settings(stub, tmp_path), MARKER).shown()
    stub.asked.clear()
    again = first_keys(settings(stub, tmp_path), MARKER)
    assert (again.admin_password, again.api_key) == (None, None)
    assert stub.asked == []


def test_an_up_that_died_before_its_card_asks_under_the_same_key(stub: StubApi, tmp_path: Path) -> None:
    first_keys(settings(stub, tmp_path), MARKER)
    first_keys(settings(stub, tmp_path), MARKER)
    keys = [one.headers["idempotency-key"] for one in stub.asked_of("POST", "/api_keys")]
    assert keys == ["folder-cli-key", "folder-first-key", "folder-first-key"]


def test_a_password_that_was_given_is_not_shown(stub: StubApi, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "admin_password").rename(tmp_path / "given")
    given = settings(stub, tmp_path, INVENTIV_ADMIN_PASSWORD_FILE=str(tmp_path / "given"))
    assert password_file(given) == tmp_path / "given"
    keys = first_keys(given, MARKER)
    assert keys.admin_password is None
    assert keys.api_key == "sk-inv-b"


def test_a_password_made_at_the_first_start_outlives_a_later_given_one(stub: StubApi, tmp_path: Path) -> None:
    given = settings(stub, tmp_path, INVENTIV_ADMIN_PASSWORD_FILE=str(tmp_path / "given"))
    assert password_file(given) == tmp_path / "secrets" / "admin_password"
