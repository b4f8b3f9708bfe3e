"""`inventiv provider ls|credentials|forget`: where machines can be rented, and your organisation's accounts there.

Secrets come from a file or from standard input, never as arguments: those stand in the shell's history.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_json, print_table, say

_COLUMNS = {
    "provider_code": "PROVIDER",
    "provider_name": "NAME",
    "ready": "CONFIGURED",
    "missing": "MISSING",
    "looked_at": "LOOKED AT",
    "found": "SERVERS",
    "trouble": "TROUBLE",
}

MAX_TROUBLE = 100
"""Characters of a trouble in the table; --json holds all of it."""

Code = Annotated[str, typer.Argument(help="Code from `inventiv provider ls`; huggingface: for gated models.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Providers, and your organisation's accounts there.", no_args_is_help=True)
    group.command("ls", help="List providers, and what is missing to use them.")(list_providers)
    group.command("credentials", help="Give (or replace) an account's credentials; they are never shown.")(
        set_credentials
    )
    group.command("forget", help="Destroy an account's credentials.")(forget_credentials)
    app.add_typer(group, name="provider")


def list_providers(*, as_json: JsonFlag = False) -> None:
    """A provider of the platform's own has no account to show to those who are not its administrators."""
    with calling() as api:
        statuses = api.get("/providers/config-status")
        accounts = {one["provider_code"]: one for one in api.get("/provider_accounts")}
    providers = [{**one, "account": accounts.get(one["provider_code"])} for one in statuses]
    if as_json:
        print_json({"providers": providers})
        return
    rows = [
        {
            **one,
            "ready": one["is_configured"],
            "missing": ", ".join(one["missing_config"]) or "-",
            **_state(one["account"]),
        }
        for one in providers
    ]
    print_table(rows, _COLUMNS, empty="There are no providers.")


def _state(account: dict[str, Any] | None) -> dict[str, str]:
    if account is None:
        return {"looked_at": "-", "found": "-", "trouble": "-"}
    looks = account["reconciliation"]
    last = max((at for at in (looks["completed_at"], looks["failed_at"]) if at), default=None)
    return {
        "looked_at": f"{age(last)} ago" if last else "never",
        "found": "-" if looks["servers"] is None else str(looks["servers"]),
        "trouble": _trouble(account) or "-",
    }


def _trouble(account: dict[str, Any]) -> str:
    """The provider's own words, of whichever failed; then what a person should look at."""
    looks, catalogue = account["reconciliation"], account["catalogue"]
    said = [f"{one['failure']} ({one['failure_kind']})" for one in (looks, catalogue) if one["failure_kind"]]
    if looks["unrecorded"]:
        said.append(f"{looks['unrecorded']} signed by us without a record")
    words = "; ".join(dict.fromkeys(said))
    return words if len(words) <= MAX_TROUBLE else f"{words[: MAX_TROUBLE - 3]}..."


def set_credentials(
    code: Code,
    *,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="File of lines NAME=VALUE (or NAME=@FILE); standard input when left out."),
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
        say(f"{status['provider_name']} can be used now; `inventiv provider ls` soon shows whether it answers.")
    else:
        say(f"Kept. Still missing: {', '.join(status['missing_config'])}.")


def _values(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    values = {name.strip(): value.strip() for name, equals, value in (line.partition("=") for line in lines) if equals}
    values = {name: _contents(value) for name, value in values.items()}
    if not lines or len(values) != len(lines):
        cure = "For example: echo 'project_id=...' | inventiv provider credentials scaleway"
        raise CommandError(ExitCode.USAGE, "invalid_credentials_file", "Write one NAME=VALUE on each line.", cure)
    return values


def _contents(value: str) -> str:
    """A secret of several lines, such as a private key, is named by its file: "@/path"."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(ExitCode.USAGE, "file_unreadable", f"{value[1:]} cannot be read ({error}).") from error


def forget_credentials(code: Code, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        status = api.delete(f"/providers/{code}/credentials")
    if as_json:
        print_json(status)
    else:
        say(f"The credentials for {status['provider_name']} are destroyed.")
