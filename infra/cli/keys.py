"""`inventiv key create|ls|rename|revoke`: API keys for the gateway. A key's secret is printed once, by create."""

from typing import Annotated

import typer

from infra.cli.calling import calling
from infra.cli.output import JsonFlag, age, print_json, print_table, say

_COLUMNS = {"id": "ID", "name": "NAME", "key_prefix": "KEY", "age": "AGE", "state": "STATE"}

KeyId = Annotated[str, typer.Argument(help="The key's id, from `inventiv key ls`.")]
KeyName = Annotated[str, typer.Argument(help="A name to know it by, at most 100 characters.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="API keys for the gateway.", no_args_is_help=True)
    group.command("create", help="Make a key; its secret is shown this once.")(create_key)
    group.command("ls", help="List keys.")(list_keys)
    group.command("rename", help="Give a key another name.")(rename_key)
    group.command("revoke", help="End a key at once; it stays in the list.")(revoke_key)
    app.add_typer(group, name="key")


def create_key(name: KeyName, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        made = api.post("/api_keys", {"name": name})
    if as_json:
        print_json(made)
        return
    print(made["api_key"])
    say("Keep it: it is not shown again.")


def list_keys(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        keys = api.get("/api_keys")
    if as_json:
        print_json({"api_keys": keys})
        return
    rows = [
        {**key, "age": age(key["created_at"]), "state": "revoked" if key["revoked_at"] else "active"} for key in keys
    ]
    print_table(rows, _COLUMNS, empty="No keys yet; `inventiv key create NAME` makes one.")


def rename_key(key_id: KeyId, name: KeyName, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        key = api.put(f"/api_keys/{key_id}", {"name": name})
    if as_json:
        print_json(key)
    else:
        say(f"Key {key_id} is now named {name}.")


def revoke_key(key_id: KeyId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        api.delete(f"/api_keys/{key_id}")
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        say(f"Key {key_id} is revoked.")
