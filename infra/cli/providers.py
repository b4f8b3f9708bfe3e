"""`inventiv provider ls|credentials|forget`: where machines can be rented, and your organisation's accounts there.

Secrets come from a file or from standard input, never as arguments: those stand in the shell's history.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say

_COLUMNS = {"provider_code": "PROVIDER", "provider_name": "NAME", "ready": "CONFIGURED", "missing": "MISSING"}

Code = Annotated[str, typer.Argument(help="Code of the provider, from `inventiv provider ls`.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Providers, and your organisation's accounts there.", no_args_is_help=True)
    group.command("ls", help="List providers, and what is missing to use them.")(list_providers)
    group.command("credentials", help="Give (or replace) an account's credentials; they are never shown.")(
        set_credentials
    )
    group.command("forget", help="Destroy an account's credentials.")(forget_credentials)
    app.add_typer(group, name="provider")


def list_providers(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        statuses = api.get("/providers/config-status")
    if as_json:
        print_json({"providers": statuses})
        return
    rows = [
        {**one, "ready": one["is_configured"], "missing": ", ".join(one["missing_config"]) or "-"} for one in statuses
    ]
    print_table(rows, _COLUMNS, empty="There are no providers.")


def set_credentials(
    code: Code,
    *,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="File of lines NAME=VALUE; standard input when left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    try:
        text = from_file.read_text() if from_file else sys.stdin.read()
    except OSError as error:
        message = f"{from_file} cannot be read ({error.strerror})."
        raise CommandError(ExitCode.USAGE, "file_unreadable", message) from error
    values = _values(text)
    with calling() as api:
        status = api.put(f"/providers/{code}/credentials", {"values": values})
    if as_json:
        print_json(status)
    elif status["is_configured"]:
        say(f"{status['provider_name']} can be used now.")
    else:
        say(f"Kept. Still missing: {', '.join(status['missing_config'])}.")


def _values(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    values = {name.strip(): value.strip() for name, equals, value in (line.partition("=") for line in lines) if equals}
    if not lines or len(values) != len(lines):
        cure = "For example: echo 'project_id=...' | inventiv provider credentials scaleway"
        raise CommandError(ExitCode.USAGE, "invalid_credentials_file", "Write one NAME=VALUE on each line.", cure)
    return values


def forget_credentials(code: Code, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        status = api.delete(f"/providers/{code}/credentials")
    if as_json:
        print_json(status)
    else:
        say(f"The credentials for {status['provider_name']} are destroyed.")
