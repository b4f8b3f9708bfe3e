"""`inventiv upstream ls|connect|key|activate|deactivate`: somebody else's OpenAI-compatible server as your model.

    inventiv upstream connect CODE URL --model NAME --key-stdin < key ──> callers say CODE, the upstream hears NAME

A key comes from a file or from standard input, never as an argument: those stand in the shell's history. An upstream is
a deployment without machines, so `inventiv deployment show` and `stop` take its id.
"""

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.offerings import Flag, FlagName, say_missing
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_json, print_table, say

_COLUMNS = {
    "id": "DEPLOYMENT",
    "model_code": "MODEL",
    "url": "URL",
    "model": "CALLED THERE",
    "key_fingerprint": "KEY",
    "status": "STATUS",
    "age": "AGE",
}
NO_KEY = "none"

DeploymentId = Annotated[str, typer.Argument(help="The deployment's id, from `inventiv upstream ls`.")]
KeyStdin = Annotated[
    bool, typer.Option("--key-stdin", help="Read its key from standard input (asked for at a terminal).")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Read its key from this file.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Other OpenAI-compatible servers as your models.", no_args_is_help=True)
    group.command("ls", help="List upstreams; keys are shown as fingerprints.")(list_upstreams)
    group.command("connect", help="Let a URL answer for a model's code; owners and admins.")(connect_upstream)
    group.command("key", help="Replace an upstream's key; the old one is destroyed.")(replace_key)
    group.command("activate", help="Set a flag; no request goes there before both are set.")(activate)
    group.command("deactivate", help="Clear a flag; it gets no more requests.")(deactivate)
    app.add_typer(group, name="upstream")


def list_upstreams(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        deployments = [one for one in api.get("/deployments") if one["upstream"]]
    if as_json:
        print_json({"upstreams": deployments})
        return
    rows = [{**one["upstream"], **one, "age": age(one["created_at"])} for one in deployments]
    for row in rows:
        row["key_fingerprint"] = row["key_fingerprint"] or NO_KEY
    print_table(rows, _COLUMNS, empty="No upstreams; `inventiv upstream connect CODE URL --key-stdin` makes one.")


def connect_upstream(
    code: Annotated[str, typer.Argument(help="What your callers call the model; your own choice.")],
    url: Annotated[
        str, typer.Argument(help="As OpenAI's clients take it for base_url, e.g. https://api.example.com/v1.")
    ],
    *,
    model: Annotated[str, typer.Option(help="What the upstream calls the model; CODE, if not said.")] = "",
    key_stdin: KeyStdin = False,
    key_file: KeyFile = None,
    as_json: JsonFlag = False,
) -> None:
    upstream = {"url": url, "model": model}
    if key_stdin or key_file:
        upstream["api_key"] = _key(key_file, from_stdin=key_stdin)
    with calling() as api:
        accepted = api.post("/deployments", {"model": code, "upstream": upstream})
        deployment = api.get(f"/deployments/{accepted['deployment_id']}")
    if as_json:
        print_json(deployment)
        return
    say(f'{code} is answered by {deployment["upstream"]["url"]}. Try: inventiv chat {code} "hello"')
    say_missing(deployment["upstream"], f"inventiv upstream activate {deployment['id']}")
    print(deployment["id"])


def replace_key(
    deployment_id: DeploymentId, *, key_stdin: KeyStdin = False, key_file: KeyFile = None, as_json: JsonFlag = False
) -> None:
    if not (key_stdin or key_file):
        cure = f"For example: inventiv upstream key {deployment_id} --key-stdin"
        raise CommandError(ExitCode.USAGE, "key_required", "Say where the new key comes from.", cure)
    key = _key(key_file, from_stdin=key_stdin)
    with calling() as api:
        upstream = api.put(f"/deployments/{deployment_id}/upstream/key", {"api_key": key})
    if as_json:
        print_json(upstream)
    else:
        say(f"The key of {upstream['url']} is replaced (fingerprint {upstream['key_fingerprint']}).")


def activate(deployment_id: DeploymentId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(deployment_id, flag, value=True, as_json=as_json)


def deactivate(deployment_id: DeploymentId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(deployment_id, flag, value=False, as_json=as_json)


def _change_flag(deployment_id: str, flag: Flag, *, value: bool, as_json: bool) -> None:
    with calling() as api:
        upstream: dict[str, Any] = api.put(
            f"/deployments/{deployment_id}/activation", {"flag": flag.value, "value": value}
        )
    if as_json:
        print_json(upstream)
        return
    say(f"The {flag.value} flag of {upstream['url']} is {'set' if value else 'cleared'}.")
    say_missing(upstream, f"inventiv upstream activate {deployment_id}")


def _typed_or_piped() -> str:
    return getpass("Key: ") if sys.stdin.isatty() else sys.stdin.read()


def _key(path: Path | None, *, from_stdin: bool) -> str:
    """Without the line's end; the API refuses what else does not belong into a key."""
    if path is not None and from_stdin:
        raise CommandError(ExitCode.USAGE, "two_keys", "Say --key-stdin or --key-file, not both.")
    try:
        text = path.read_text() if path is not None else _typed_or_piped()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CommandError(ExitCode.USAGE, "file_unreadable", f"{path} cannot be read ({reason}).") from error
    key = text.strip()
    if not key:
        raise CommandError(
            ExitCode.USAGE, "key_required", "The key is empty.", "Write it on one line, and nothing else."
        )
    return key
