"""Mails over real SMTP on loopback: taken, refused for good, or to be tried again; and what a mail looks like."""

from datetime import UTC, datetime
from email.headerregistry import Address
from pathlib import Path

import pytest
from msgspec.structs import replace

from handlers.ports import Mail, MailRefusedError, MailUnavailableError
from infra import mail as mail_module
from infra.environment import Environment
from infra.inbox import Inbox
from infra.mail import SmtpMailer, SmtpSettings, mailer_of
from infra.mail_message import address_in, message_of, read_message
from infra.secret_files import SecretFileError
from tests.infra.smtp_server import DROP, HANG, Manners, own_certificate, smtp_server

MAIL = Mail(
    to="carol@example.org",
    subject="An invitation",
    text="Grüße,\n\nhttps://console.test/invitations/" + "t" * 90 + "\n.\n",
    message_id="0192-event",
)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SENDER = Address("Inventiv Agents", "agents", "example.com")


def mailer(port: int, *, username: str = "") -> SmtpMailer:
    settings = SmtpSettings(
        server="127.0.0.1",
        port=port,
        username=username,
        password="hush" if username else "",
        from_email="agents@example.com",
        from_name="Inventiv Agents",
        use_tls=False,
    )
    return SmtpMailer(settings)


async def test_a_mail_arrives_as_it_was_meant() -> None:
    async with smtp_server(Manners()) as server:
        await mailer(server.port).send(MAIL)
    [raw] = server.taken
    found = read_message(raw.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."))
    assert (found.to, found.subject, found.text) == (MAIL.to, MAIL.subject, MAIL.text)
    head = raw.partition(b"\r\n\r\n")[0].decode()
    assert "Message-ID: <0192-event@example.com>" in head
    assert "From: Inventiv Agents <agents@example.com>" in head
    assert "Auto-Submitted: auto-generated" in head
    assert server.said[0] == "EHLO example.com", "not the name of this machine"


async def test_a_login_is_made_where_one_is_wanted() -> None:
    async with smtp_server(Manners()) as server:
        await mailer(server.port, username="agents").send(MAIL)
    assert [line.split()[0] for line in server.said] == ["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]
    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("manners", "code"),
    [
        (Manners(rcpt="550 5.1.1 <carol@example.org> unknown"), "smtp_550"),
        (Manners(body="554 looks like spam to carol@example.org"), "smtp_554"),
    ],
)
async def test_what_is_refused_for_good_is_told_by_a_code_that_names_nobody(manners: Manners, code: str) -> None:
    async with smtp_server(manners) as server:
        with pytest.raises(MailRefusedError) as refused:
            await mailer(server.port).send(MAIL)
    assert refused.value.code == code
    assert "carol" not in repr(refused.value)


UNAVAILABLE = {
    "greets with a no": Manners(greeting="554 not today"),
    "says please wait": Manners(greeting="421 too busy"),
    "defers the recipient": Manners(rcpt="451 greylisted <carol@example.org>"),
    "has no room": Manners(body="452 disk full"),
    "refuses us": Manners(mail="550 5.7.1 we do not relay for carol@example.org"),
    "hangs at once": Manners(greeting=HANG),
    "hangs at the recipient": Manners(rcpt=HANG),
    "hangs after the mail": Manners(body=HANG),
    "drops at once": Manners(greeting=DROP),
    "drops at the recipient": Manners(rcpt=DROP),
    "drops after the mail": Manners(body=DROP),
    "babbles": Manners(greeting="what"),
}


@pytest.mark.parametrize("manners", UNAVAILABLE.values(), ids=UNAVAILABLE)
async def test_everything_else_is_to_be_tried_again(manners: Manners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_module, "STEP_TIMEOUT_S", 0.3)
    async with smtp_server(manners) as server:
        with pytest.raises(MailUnavailableError) as away:
            await mailer(server.port).send(MAIL)
    assert "carol" not in str(away.value)


async def test_a_wrong_login_is_to_be_put_right_and_tried_again() -> None:
    async with smtp_server(Manners(auth="535 no")) as server:
        with pytest.raises(MailUnavailableError, match="535"):
            await mailer(server.port, username="agents").send(MAIL)
    assert server.taken == []


async def test_an_absent_server_is_unavailable() -> None:
    with pytest.raises(MailUnavailableError):
        await mailer(1).send(MAIL)


async def test_a_server_that_forgets_its_manners_after_taking_the_mail_has_taken_it() -> None:
    async with smtp_server(Manners(quit=DROP)) as server:
        await mailer(server.port).send(MAIL)
    assert len(server.taken) == 1


async def test_a_server_without_tls_gets_no_mail_where_tls_is_wanted() -> None:
    async with smtp_server(Manners()) as server:
        wanting = SmtpMailer(replace(mailer(server.port)._settings, use_tls=True))
        with pytest.raises(MailUnavailableError):
            await wanting.send(MAIL)
    assert server.taken == []
    assert not [line for line in server.said if line.startswith(("MAIL", "AUTH"))]


@pytest.mark.parametrize("trusted", [True, False])
async def test_only_a_server_whose_certificate_is_trusted_gets_a_mail(
    *, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = own_certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with smtp_server(Manners(), context) as server:
        monkeypatch.setattr(mail_module, "TLS_FROM_THE_START_PORT", server.port)
        secured = SmtpMailer(replace(mailer(server.port, username="agents")._settings, use_tls=True))
        if trusted:
            await secured.send(MAIL)
        else:
            with pytest.raises(MailUnavailableError):
                await secured.send(MAIL)
    assert len(server.taken) == (1 if trusted else 0)
    assert bool(server.said) == trusted, "not even a login"


async def test_a_mail_server_cannot_be_asked_and_a_mail_twice_is_better_than_none() -> None:
    assert await mailer(1).has_sent("0192-event") == "not_happened"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "carol",
        "carol@",
        "@example.org",
        "a b@c.d",
        "é@b.c",
        "c@é.de",
        "<carol@example.org>",
        "carol@example.org, eve@example.org",
        "carol@example.org\r\nBcc: eve@example.org",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(MailRefusedError, match="address_not_usable"):
        message_of(replace(MAIL, to=address), SENDER, NOON)


def test_a_subject_cannot_begin_another_header() -> None:
    with pytest.raises(ValueError, match="linefeed"):
        message_of(replace(MAIL, subject="hello\r\nBcc: eve@example.org"), SENDER, NOON)


def test_a_mail_is_what_other_programs_read_too() -> None:
    message = message_of(MAIL, SENDER, NOON)
    raw = message.as_bytes()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998, "RFC 5322"
    assert raw.isascii()


def an_environment(folder: Path, **settings: object) -> Environment:
    return replace(Environment(data_dir=folder, secrets_dir=folder / "secrets"), **settings)


def test_without_a_mail_server_mails_stay_in_the_inbox(tmp_path: Path) -> None:
    assert isinstance(mailer_of(an_environment(tmp_path)), Inbox)


def test_with_a_mail_server_they_go_there(tmp_path: Path) -> None:
    secret = tmp_path / "smtp_password"
    secret.write_text("hush\n")
    secret.chmod(0o600)
    environment = an_environment(
        tmp_path,
        smtp_server="mail.test",
        smtp_username="agents",
        smtp_password_file=secret,
        smtp_from_email="agents@example.com",
    )
    made = mailer_of(environment)
    assert isinstance(made, SmtpMailer)
    assert made._settings.password == "hush"


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({}, "INVENTIV_SMTP_FROM_EMAIL"),
        ({"smtp_from_email": "nobody"}, "INVENTIV_SMTP_FROM_EMAIL"),
        ({"smtp_from_email": "a@b.c", "smtp_username": "a"}, "INVENTIV_SMTP_PASSWORD_FILE"),
        ({"smtp_from_email": "a@b.c", "smtp_username": "a", "smtp_password_file": Path("absent")}, "absent is not"),
    ],
)
def test_settings_that_do_not_suffice_are_said_at_the_start(
    tmp_path: Path, settings: dict[str, object], cure: str
) -> None:
    with pytest.raises(SecretFileError, match=cure):
        mailer_of(an_environment(tmp_path, smtp_server="mail.test", **settings))


def test_no_password_travels_in_the_clear(tmp_path: Path) -> None:
    secret = tmp_path / "smtp_password"
    secret.write_text("hush")
    secret.chmod(0o600)
    login = {"smtp_username": "a", "smtp_password_file": secret, "smtp_from_email": "a@b.c"}
    with pytest.raises(SecretFileError, match="in the clear"):
        mailer_of(an_environment(tmp_path, smtp_server="mail.test", smtp_use_tls=False, **login))


def test_a_plain_address_is_one() -> None:
    assert address_in("carol@example.org") is not None
