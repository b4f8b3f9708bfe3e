"""`inventiv password`: another password for oneself. A password comes from a prompt or a file, never as an argument.

The surprising rule: where the platform made the first password by chance, its file is rewritten too, because the next
command signs in with it.
"""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.client import Api
from infra.processes.running import write_private

MAX_FILE_BYTES = 4096

PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="Holds the new password; without it, a prompt asks.")
]


def register(app: typer.Typer) -> None:
    app.command("password", help="Change your own password; all other sessions end.")(change_password)


def change_password(*, password_file: PasswordFile = None, as_json: JsonFlag = False) -> None:
    new = new_password(password_file)
    with calling() as api:
        if not api.is_admin:
            message = "An API key has no password; unset INVENTIV_API_KEY to sign in as the administrator."
            raise CommandError(ExitCode.NOT_ALLOWED, "no_password", message)
        current = api.password_file.read_text().strip() if api.password_file.is_file() else hidden("Current password: ")
        api.put("/auth/me/password", {"current_password": current, "new_password": new})
        kept = _keep(api, current, new)
    if as_json:
        print_json({"changed": True, "password_file": str(kept) if kept else None})
        return
    say("Your password is changed; all other sessions have ended.")
    if kept:
        say(f"{kept} holds the new one.")


def _keep(api: Api, current: str, new: str) -> Path | None:
    """The file that this command line signs in with, rewritten when it held the old password."""
    path = api.password_file
    if not path.is_file() or path.read_text().strip() != current:
        return None
    try:
        write_private(path, f"{new}\n".encode())
    except OSError as error:
        say(f"{path} still holds the old password and cannot be written ({error.strerror}); correct it yourself.")
        return None
    return path


def new_password(file: Path | None) -> str:
    """From the file, or typed twice.

    Raises:
        CommandError: the file cannot be read, nobody is there to type, or the two differ.
    """
    if file is not None:
        return _read(file)
    first = hidden("New password: ")
    if hidden("The same again: ") != first:
        raise CommandError(ExitCode.USAGE, "passwords_differ", "The two passwords differ; nothing was changed.")
    return first


def hidden(prompt: str) -> str:
    """What a person types, unseen. Raises CommandError when nobody is there."""
    if not sys.stdin.isatty():
        cure = "Write it into a file, readable for you alone, and name that: --password-file FILE."
        raise CommandError(ExitCode.USAGE, "password_needed", "Nobody is there to type a password.", cure)
    return getpass.getpass(prompt)


def _read(file: Path) -> str:
    """Its first line, or all of it, without the end of line."""
    try:
        with file.open(encoding="utf-8") as opened:
            content = opened.read(MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"{file} cannot be read ({why})."
        raise CommandError(ExitCode.USAGE, "password_file_unreadable", message) from error
    password = content.removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise CommandError(ExitCode.USAGE, "password_file_unfit", f"{file} must hold one line: the password.")
    return password
