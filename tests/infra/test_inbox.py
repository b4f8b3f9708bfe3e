"""The inbox of this machine: private, bounded, and it can be asked."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handlers.ports import Mail, MailRefusedError, MailUnavailableError
from infra.inbox import MAX_AGE, MAX_MAILS, Inbox


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(tmp_path: Path, clock: Clock) -> Inbox:
    return Inbox(tmp_path / "inbox", clock)


def mail(number: int = 1, to: str = "carol@example.org") -> Mail:
    return Mail(to=to, subject=f"No. {number}", text="Grüße\n\nhttps://x.test/a\n", message_id=f"event-{number}")


async def test_a_mail_is_kept_and_read_back(inbox: Inbox) -> None:
    await inbox.send(mail())
    [found] = inbox.mails()
    assert (found.to, found.subject, found.text) == ("carol@example.org", "No. 1", "Grüße\n\nhttps://x.test/a\n")


async def test_only_the_owner_reads_it(inbox: Inbox, tmp_path: Path) -> None:
    await inbox.send(mail())
    [path] = (tmp_path / "inbox").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_the_same_mail_twice_is_one_and_can_be_asked_for(inbox: Inbox) -> None:
    assert await inbox.has_sent("event-1") == "not_happened"
    await inbox.send(mail())
    await inbox.send(mail())
    assert len(inbox.mails()) == 1
    assert await inbox.has_sent("event-1") == "happened"
    assert await inbox.has_sent("event-2") == "not_happened"


async def test_the_newest_come_first_and_the_oldest_go(inbox: Inbox) -> None:
    for number in range(MAX_MAILS + 5):
        await inbox.send(mail(number))
    subjects = [found.subject for found in inbox.mails()]
    assert len(subjects) == MAX_MAILS
    assert subjects[0] == f"No. {MAX_MAILS + 4}"
    assert subjects[-1] == "No. 5"


async def test_what_is_too_old_goes_with_the_next_mail(inbox: Inbox, clock: Clock) -> None:
    await inbox.send(mail(1))
    clock.now += MAX_AGE
    await inbox.send(mail(2))
    assert [found.subject for found in inbox.mails()] == ["No. 2"]


async def test_mails_to_one_address_can_be_deleted(inbox: Inbox) -> None:
    await inbox.send(mail(1))
    await inbox.send(mail(2, to="dave@example.org"))
    assert inbox.delete(lambda found: found.to == "carol@example.org") == 1
    assert [found.to for found in inbox.mails()] == ["dave@example.org"]
    assert inbox.clear() == 1
    assert inbox.clear() == 0


async def test_a_folder_that_is_not_there_is_an_empty_inbox(inbox: Inbox) -> None:
    assert inbox.mails() == []


async def test_strange_files_are_left_alone(inbox: Inbox, tmp_path: Path) -> None:
    await inbox.send(mail())
    (tmp_path / "inbox" / "my-notes.eml").write_text("mine")
    (tmp_path / "inbox" / ".draft").write_text("half a mail")
    assert inbox.clear() == 1
    assert {path.name for path in (tmp_path / "inbox").iterdir()} == {"my-notes.eml", ".draft"}


async def test_an_address_that_is_none_is_refused_here_too(inbox: Inbox) -> None:
    with pytest.raises(MailRefusedError):
        await inbox.send(mail(to="nobody"))


async def test_a_mail_that_was_half_written_when_its_process_was_killed_is_cleared_too(
    inbox: Inbox, tmp_path: Path
) -> None:
    await inbox.send(mail())
    draft = tmp_path / "inbox" / ".draft-0123"
    draft.write_text("To: carol@example.org")
    await inbox.send(mail(2))
    assert draft.exists(), "another process may be writing it"
    os.utime(draft, (0, 0))
    await inbox.send(mail(3))
    assert not draft.exists()
    draft.write_text("To: carol@example.org")
    inbox.delete(lambda _: False)
    assert not draft.exists()


async def test_a_file_in_the_folders_place_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("no folder")
    with pytest.raises(MailUnavailableError):
        await Inbox(tmp_path / "inbox").send(mail())
