"""How a mail goes out because of an event: once, by the ledger, with the event's id as its Message-ID.

    compose ──> Mail ──> Mailer        refused for good ──> on record, and no reason to stop       away ──> raised

The surprising rule: the address and the token are looked up inside the deed. Outside it, where the ledger and
rehearsals look, there is nothing personal and nothing secret.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256

import structlog

from domain.message import Envelope, subject_of
from domain.values import Sealed
from handlers.ports import Doors, Effect, Happened, Mail, MailRefusedError

MAIL_TIMEOUT_S = 30.0
"""For one mail, from connecting to its server to the server's word that it took it."""

_log = structlog.get_logger(__name__)

_NOT_PLAIN = re.compile(r"[^\w &'()-]+")


async def send_once(doors: Doors, reaction: str, envelope: Envelope, compose: Callable[[], Awaitable[Mail]]) -> None:
    """Sends the mail of this event, unless that was done or refused already.

    Raises:
        OSError: it is not known whether it went; look again later.
    """
    subject = subject_of(envelope.organization, envelope.aggregate, envelope.id)
    effect = Effect(reaction=reaction, event_id=envelope.event_id, name="send_mail", subject=subject)

    async def act() -> None:
        await doors.mailer.send(await compose())

    async def ask() -> Happened:
        return await doors.mailer.has_sent(envelope.event_id)

    try:
        await doors.effects.once(effect, act=act, ask=ask, timeout_s=MAIL_TIMEOUT_S)
    except MailRefusedError as refused:
        _log.warning("mail_refused", reaction=reaction, event_id=envelope.event_id, code=refused.code)


async def address_of(doors: Doors, email: Sealed) -> str:
    """Raises MailRefusedError: its person is forgotten."""
    address = await doors.vault.open(email)
    if address is None:
        raise MailRefusedError("person_forgotten")
    return address


def token_of(doors: Doors, kind: str, subject: str, token_sha256: str) -> str:
    """The token that belongs to a hash.

    Raises:
        MailRefusedError: the master key is not the one with which the hash was made; the link would lead nowhere.
    """
    token = doors.tokens.token(kind, subject)
    if sha256(token.encode()).hexdigest() != token_sha256:
        raise MailRefusedError("token_does_not_fit")
    return token


def plain(name: str) -> str:
    """A name that somebody chose, so that it cannot look like a link or another line of the mail."""
    return _NOT_PLAIN.sub(" ", name).strip()


def moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%d %B %Y, %H:%M UTC")
