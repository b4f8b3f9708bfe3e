"""A mail as the world's mail programs read it (RFC 5322): plain text, one recipient, nothing that a name smuggles in.

Only plain addresses are used: those with letters beyond ASCII would need servers that know SMTPUTF8, all along the way.
"""

from datetime import datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, default
from email.utils import format_datetime

import msgspec

from handlers.ports import Mail, MailRefusedError


class ReadMail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail read back."""

    to: str
    subject: str
    text: str


def message_of(mail: Mail, sender: Address, at: datetime) -> EmailMessage:
    """The mail as it travels.

    Raises:
        MailRefusedError: nothing can be sent to such an address.
    """
    to = address_in(mail.to)
    if to is None:
        raise MailRefusedError("address_not_usable")
    message = EmailMessage(policy=SMTP)
    message["To"] = to
    message["From"] = sender
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{mail.message_id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text, cte="quoted-printable")
    return message


def read_message(raw: bytes) -> ReadMail:
    """Of what message_of made; a foreign one may come back with empty fields."""
    message = message_from_bytes(raw, policy=default)
    body = message.get_body(("plain",))
    return ReadMail(
        to=str(message.get("To", "")),
        subject=str(message.get("Subject", "")),
        text=str(body.get_content()).replace("\r\n", "\n") if body else "",
    )


def address_in(text: str) -> Address | None:
    """None when it is none that a mail can be sent to."""
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, HeaderParseError):  # what Python's parser raises, depending on what is wrong
        return None
    return address if address.domain and text.isascii() else None
