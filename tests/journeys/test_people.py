"""A person's life on a running platform: created, signed in, locked out, let in by a mail, and forgotten for ever."""

import re
from pathlib import Path

import httpx
import pytest

from infra.cli.output import ExitCode
from tests.journeys.platform import HTTP, Platform, until

pytestmark = pytest.mark.journey

FIRST_PASSWORD = "violet teapots sing"
SECOND_PASSWORD = "the kettle's on the left shelf"
LINK = re.compile(r"reset-password\?token=(\w+)")


def signed_in(platform: Platform, name: str, password: str) -> httpx.Response:
    reply = HTTP.post(f"{platform.card['api_url']}/auth/login", json={"email": name, "password": password})
    HTTP.cookies.clear()
    return reply


def me(platform: Platform, login: httpx.Response) -> httpx.Response:
    token = login.headers["set-cookie"].partition("=")[2].partition(";")[0]
    return platform.rest("GET", "/auth/me", signed=False, headers={"Authorization": f"Bearer {token}"})


def test_a_person_comes_forgets_their_password_and_is_forgotten(platform: Platform, tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(FIRST_PASSWORD)
    words = ("user", "create", "ottilie", "ottilie@example.org", "--password-file", str(password_file))
    user_id = platform.json(*words)["id"]
    first = signed_in(platform, "ottilie", FIRST_PASSWORD)
    assert me(platform, first).json()["email"] == "ottilie@example.org"

    asked = platform.rest("POST", "/auth/password-reset/request", signed=False, json={"email": "ottilie@example.org"})
    assert asked.status_code == 200
    token = until(lambda: _mailed_token(platform), "the mail with the link is in the inbox")
    wish = {"token": token, "new_password": SECOND_PASSWORD}
    assert platform.rest("POST", "/auth/password-reset/reset", signed=False, json=wish).status_code == 200
    again = platform.rest("POST", "/auth/password-reset/reset", signed=False, json=wish)
    assert (again.status_code, again.json()["error"]) == (404, "token_not_found_or_expired")
    assert me(platform, first).status_code == 401
    assert signed_in(platform, "ottilie@example.org", FIRST_PASSWORD).status_code == 401
    second = signed_in(platform, "ottilie@example.org", SECOND_PASSWORD)
    assert me(platform, second).status_code == 200

    assert platform.inventiv("user", "forget", "ottilie").code == ExitCode.USAGE
    assert platform.json("user", "forget", "ottilie", "--yes")["erased_at"]
    assert me(platform, second).status_code == 401
    assert signed_in(platform, "ottilie", SECOND_PASSWORD).status_code == 401
    assert platform.inventiv("user", "show", user_id, "--json").code == ExitCode.NOT_FOUND
    assert platform.json("user", "forget", user_id)["user_id"] == user_id
    assert _mailed_token(platform) is None


def _mailed_token(platform: Platform) -> str | None:
    for mail in platform.json("inbox", "ls")["mails"]:
        if mail["to"] == "ottilie@example.org":
            found = LINK.search(platform.json("inbox", "show", mail["id"])["text"])
            return found[1] if found else None
    return None


def test_the_administrator_changes_their_password_and_goes_on(platform: Platform, tmp_path: Path) -> None:
    kept = Path(platform.card["admin_password_file"])
    before = kept.read_text()
    password_file = tmp_path / "password"
    for password in ("a saucer under each cup", before.strip()):
        password_file.write_text(password)
        assert platform.json("password", "--password-file", str(password_file))["password_file"] == str(kept)
        assert kept.read_text().strip() == password
        (platform.data_dir / "run" / "cli-session").unlink()
        assert platform.json("user", "ls")["total_count"] >= 1
    platform._token = ""  # that session ended with the first change
