"""`inventiv inbox ls|show|clear`: the mails of a platform without a mail server, as `inventiv up` is one.

They are files in the data folder, readable by its owner alone; no process has to run.
"""

import importlib
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table, say

Which = Annotated[str, typer.Argument(help="Id, or its beginning or end, as `inventiv inbox ls` shows it.")]

_COLUMNS = {"id": "ID", "at": "AT", "to": "TO", "subject": "SUBJECT"}
_HEAD = {"to": "To", "subject": "Subject", "at": "At"}
_EMPTY = "No mail here. Invitations and password resets arrive here unless INVENTIV_SMTP_SERVER is set."


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Mails that stayed on this machine.", no_args_is_help=True)
    group.command("ls", help="List mails, newest first.")(ls)
    group.command("show", help="Print a mail; the newest one unless told otherwise.")(show)
    group.command("clear", help="Delete all of them.")(clear)
    app.add_typer(group, name="inbox")


def ls(*, as_json: JsonFlag = False) -> None:
    mails = [_document(mail) for mail in _inbox().mails()]
    if as_json:
        print_json({"mails": [{field: mail[field] for field in _COLUMNS} for mail in mails]})
        return
    print_table(mails, _COLUMNS, empty=_EMPTY)


def show(which: Which = "", *, as_json: JsonFlag = False) -> None:
    found = [mail for mail in _inbox().mails() if mail.id.startswith(which) or mail.id.endswith(which)]
    if not found:
        message = f"There is no mail {which!r} here." if which else "There is no mail here."
        raise CommandError(ExitCode.NOT_FOUND, "mail_not_found", message, "`inventiv inbox ls` lists them.")
    if which and len(found) > 1:
        message = f"{len(found)} mails begin or end with {which!r}."
        raise CommandError(ExitCode.USAGE, "mail_ambiguous", message, "Give more of the id.")
    mail = _document(found[0])
    if as_json:
        print_json(mail)
        return
    print_fields(mail, _HEAD)
    print(f"\n{mail['text']}", end="")


def clear(*, as_json: JsonFlag = False) -> None:
    deleted = _inbox().clear()
    if as_json:
        print_json({"deleted": deleted})
        return
    say(f"Deleted {deleted} mails." if deleted else "There was nothing to delete.")


def _inbox() -> Any:
    inbox: Any = importlib.import_module("infra.inbox")
    return inbox.Inbox(inbox.inbox_folder(calling.environment().data_dir))


def _document(mail: Any) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(mail)
    return document
