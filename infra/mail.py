"""Mails to a real mail server (SMTP), or to the inbox of this machine when none is configured.

    Mail ──> one connection, one mail ──> taken         550: refused for good         anything else: unavailable, later

The surprising rule: SMTP cannot be asked what became of a mail. So a mail whose sending was cut off counts as not sent:
to get an invitation twice is better than never.
"""

import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from pathlib import Path

import aiosmtplib
import msgspec
import structlog
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
)

from handlers.ports import Happened, Mail, Mailer, MailRefusedError, MailUnavailableError
from infra.environment import Environment
from infra.inbox import Inbox, inbox_folder
from infra.mail_message import address_in, message_of
from infra.secret_files import SecretFileError, read_secret_file

TLS_FROM_THE_START_PORT = 465
STEP_TIMEOUT_S = 10.0
"""For one answer of the server, connecting included; a mail takes five or six of them."""
PERMANENT = range(500, 600)

_log = structlog.get_logger(__name__)


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the server. `username` empty: without login; `from_email` is also whose domain Message-IDs have."""

    server: str
    port: int
    username: str
    password: str
    from_email: str
    from_name: str
    use_tls: bool


def mailer_of(environment: Environment) -> Mailer:
    """What the settings ask for.

    Raises:
        SecretFileError: the settings do not suffice; with the cure.
    """
    if not environment.smtp_server:
        _log.info("mails_stay_in_inbox", folder=str(inbox_folder(environment.data_dir)))
        return Inbox(inbox_folder(environment.data_dir))
    if address_in(environment.smtp_from_email) is None:
        raise SecretFileError("INVENTIV_SMTP_FROM_EMAIL is not an e-mail address; set it to whom mails come from")
    settings = SmtpSettings(
        server=environment.smtp_server,
        port=environment.smtp_port,
        username=environment.smtp_username,
        password=_password(environment.smtp_username, environment.smtp_password_file),
        from_email=environment.smtp_from_email,
        from_name=environment.smtp_from_name,
        use_tls=environment.smtp_use_tls,
    )
    if settings.password and not settings.use_tls:
        raise SecretFileError("INVENTIV_SMTP_USE_TLS=0 would send the mail server's password in the clear; unset it")
    return SmtpMailer(settings)


class SmtpMailer:
    """Implements handlers.ports.Mailer."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._from = Address(display_name=settings.from_name, addr_spec=settings.from_email)

    async def send(self, mail: Mail) -> None:
        """See the port. Whatever goes wrong is told by the step and the server's code, never by its words."""
        message = message_of(mail, self._from, datetime.now(UTC))
        client = self._client()
        try:
            async with client:
                if self._settings.username:
                    await client.login(self._settings.username, self._settings.password)
                await client.send_message(message)
        except SMTPRecipientsRefused as refused:
            raise _fault("the recipient", refused.recipients[0].code, is_recipient=True) from None
        except SMTPDataError as refused:
            raise _fault("the mail", refused.code, is_recipient=True) from None
        except SMTPResponseException as refused:
            raise _fault(type(refused).__name__, refused.code, is_recipient=False) from None
        except (SMTPException, OSError) as fault:
            raise MailUnavailableError(f"mail server {self._settings.server}: {type(fault).__name__}") from None

    async def has_sent(self, message_id: str) -> Happened:  # noqa: ARG002 - no mail server answers that
        """See the head of this file."""
        return "not_happened"

    def _client(self) -> aiosmtplib.SMTP:
        settings = self._settings
        from_the_start = settings.use_tls and settings.port == TLS_FROM_THE_START_PORT
        return aiosmtplib.SMTP(
            hostname=settings.server,
            local_hostname=self._from.domain,
            port=settings.port,
            use_tls=from_the_start,
            start_tls=settings.use_tls and not from_the_start,
            tls_context=ssl.create_default_context() if settings.use_tls else None,
            timeout=STEP_TIMEOUT_S,
        )


def _fault(what: str, code: int, *, is_recipient: bool) -> Exception:
    """A permanent no to this recipient or mail is for good; to us (login, sender, TLS) somebody has to put it right."""
    if is_recipient and code in PERMANENT:
        return MailRefusedError(f"smtp_{code}")
    return MailUnavailableError(f"the mail server did not take {what}: {code}")


def _password(username: str, file: Path | None) -> str:
    if not username:
        return ""
    if file is None:
        raise SecretFileError("INVENTIV_SMTP_USERNAME needs INVENTIV_SMTP_PASSWORD_FILE, a file with its password")
    return read_secret_file(file).decode().strip()
