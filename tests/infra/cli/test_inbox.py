"""`inventiv inbox`: what mails stayed here, one of them, none of them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from handlers.ports import Mail
from infra.cli.output import ExitCode
from infra.inbox import Inbox, inbox_folder
from tests.infra.cli.conftest import Inventiv


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path))
    return Inbox(inbox_folder(tmp_path))


def receive(inbox: Inbox, *subjects: str) -> None:
    for subject in subjects:
        mail = Mail(to="carol@example.org", subject=subject, text="https://x.test/a\n", message_id=subject)
        asyncio.run(inbox.send(mail))


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_mails_are_listed_newest_first(inbox: Inbox, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    receive(inbox, "first", "second")
    assert inventiv("inbox", "ls") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "AT", "TO", "SUBJECT"]
    assert [line.split()[-1] for line in lines[1:]] == ["second", "first"]
    assert inventiv("inbox", "ls", "--json") == ExitCode.OK
    mails = document(capsys)["mails"]
    assert [mail["subject"] for mail in mails] == ["second", "first"]
    assert mails[0].keys() == {"id", "at", "to", "subject"}


def test_the_newest_mail_is_shown_or_the_one_that_is_named(
    inbox: Inbox, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(inbox, "first", "second")
    assert inventiv("inbox", "show") == ExitCode.OK
    said = capsys.readouterr().out
    assert "Subject  second" in said
    assert said.endswith("https://x.test/a\n")
    oldest = inbox.mails()[-1]
    assert inventiv("inbox", "show", oldest.id[-8:], "--json") == ExitCode.OK
    assert document(capsys) | {"at": ""} == {
        "id": oldest.id,
        "at": "",
        "to": "carol@example.org",
        "subject": "first",
        "text": "https://x.test/a\n",
    }


def test_an_empty_inbox_says_what_would_come(
    inbox: Inbox, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("inbox", "ls") == ExitCode.OK
    assert "Invitations and password resets" in capsys.readouterr().err
    assert inventiv("inbox", "show", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "mail_not_found"


def test_a_name_that_fits_several_is_asked_to_be_longer(
    inbox: Inbox, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(inbox, "first", "second")
    assert inventiv("inbox", "show", "20") == ExitCode.USAGE
    assert "2 mails" in capsys.readouterr().err


def test_clearing_says_how_many_went(inbox: Inbox, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    receive(inbox, "first", "second")
    assert inventiv("inbox", "clear", "--json") == ExitCode.OK
    assert document(capsys) == {"deleted": 2}
    assert inventiv("inbox", "clear") == ExitCode.OK
    assert "nothing to delete" in capsys.readouterr().err
