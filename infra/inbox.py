"""The inbox of this machine: mails of a platform without a mail server, a private file each in `<data folder>/inbox`.

    <UTC time>-<digest of the message id>.eml       at most MAX_MAILS and MAX_AGE; what is beyond goes with each new one

Whoever may read the data folder may read them: they are for the person who runs `inventiv up`. The surprising rule:
unlike a mail server it can be asked, for a file's name says which mail it is.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import msgspec

from domain.ports import Clock
from handlers.ports import Happened, Mail, MailUnavailableError
from infra.mail_message import message_of, read_message

MAX_MAILS = 200
MAX_AGE = timedelta(days=7)
"""The longest that an invitation waits."""
SENDER = Address(display_name="Inventiv Agents", addr_spec="inventiv@localhost")
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_TIME = "%Y%m%dT%H%M%S%fZ"
_SUFFIX = ".eml"
_DRAFT = ".draft-"
DRAFT_AGE = timedelta(minutes=1)
"""A draft that is older was left by a process that was killed while it wrote."""


class InboxMail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail here; `id` names it for `inventiv inbox show`."""

    id: str
    at: datetime
    to: str
    subject: str
    text: str


def inbox_folder(data_dir: Path) -> Path:
    return data_dir / "inbox"


def utc_now() -> datetime:
    return datetime.now(UTC)


class Inbox:
    """Implements handlers.ports.Mailer, and is read by `inventiv inbox`."""

    def __init__(self, folder: Path, clock: Clock = utc_now) -> None:
        self._folder = folder
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        """See the port; twice the same mail is one mail."""
        raw = message_of(mail, SENDER, self._clock()).as_bytes()
        try:
            await asyncio.to_thread(self._keep, mail.message_id, raw)
        except OSError as fault:
            raise MailUnavailableError(f"{self._folder} cannot be written: {fault.strerror}") from fault

    async def has_sent(self, message_id: str) -> Happened:
        """What was cleared or grew too old counts as never sent."""
        return "happened" if self._named(message_id) else "not_happened"

    def mails(self) -> list[InboxMail]:
        """Newest first."""
        return [mail for path in reversed(self._paths()) if (mail := _read(path)) is not None]

    def clear(self) -> int:
        """How many it were."""
        return self.delete(lambda _: True)

    def delete(self, unwanted: Callable[[InboxMail], bool]) -> int:
        """How many it were. Drafts go with them, for they may be of unwanted mails, too."""
        self._delete_drafts(older_than=timedelta())
        gone = [path for path in self._paths() if (mail := _read(path)) is not None and unwanted(mail)]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _keep(self, message_id: str, raw: bytes) -> None:
        self._folder.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if not self._named(message_id):
            draft = self._folder / f"{_DRAFT}{uuid4().hex}"
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._folder / f"{self._clock():{_TIME}}-{_digest(message_id)}{_SUFFIX}")
        self._prune()

    def _prune(self) -> None:
        oldest = self._clock() - MAX_AGE
        paths = self._paths()
        for path in paths[:-MAX_MAILS] + [path for path in paths[-MAX_MAILS:] if _moment(path) < oldest]:
            path.unlink(missing_ok=True)
        self._delete_drafts(older_than=DRAFT_AGE)

    def _delete_drafts(self, *, older_than: timedelta) -> None:
        for path in self._folder.glob(f"{_DRAFT}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= (utc_now() - older_than).timestamp():
                    path.unlink()

    def _named(self, message_id: str) -> bool:
        return any(path.stem.endswith(_digest(message_id)) for path in self._paths())

    def _paths(self) -> list[Path]:
        """Oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.glob(f"*-*{_SUFFIX}") if _is_ours(path))


def _read(path: Path) -> InboxMail | None:
    """None when it was deleted between our listing and our reading."""
    with suppress(FileNotFoundError):
        mail = read_message(path.read_bytes())
        return InboxMail(id=path.stem, at=_moment(path), to=mail.to, subject=mail.subject, text=mail.text)
    return None


def _moment(path: Path) -> datetime:
    return datetime.strptime(path.stem.partition("-")[0], _TIME).replace(tzinfo=UTC)


def _is_ours(path: Path) -> bool:
    try:
        _moment(path)
    except ValueError:
        return False
    return True


def _digest(message_id: str) -> str:
    return sha256(message_id.encode()).hexdigest()[:16]
