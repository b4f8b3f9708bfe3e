"""`inventiv setting ls|set|unset`: what the platform and your organisation chose instead of the defaults."""

from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.client import Api

_COLUMNS = {"key": "SETTING", "provider": "PROVIDER", "value": "VALUE", "set": "SET", "description": "MEANING"}

Key = Annotated[str, typer.Argument(help="A setting's name, from `inventiv setting ls`.")]
Provider = Annotated[str, typer.Option("--provider", help="Code of the provider; left out for the platform's own.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Settings of the platform and of your organisation's providers.", no_args_is_help=True)
    group.command("ls", help="List settings, what they are, and what they mean.")(list_settings)
    group.command("set", help="Set one; it counts from now on.")(set_setting)
    group.command("unset", help="Go back to what counts without you.")(unset_setting)
    app.add_typer(group, name="setting")


def list_settings(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        meanings = {one["key"]: one["description"] for one in api.get("/settings/definitions")}
        rows = [_global(one) for one in api.get("/settings/global")]
        rows += [row for params in api.get("/providers/params") for row in _provider_rows(params)]
    for row in rows:
        row["description"] = meanings[row["key"]]
    if as_json:
        print_json({"settings": rows})
    else:
        print_table(rows, _COLUMNS, empty="There are no settings.")


def _global(one: dict[str, Any]) -> dict[str, Any]:
    return {"key": one["key"], "provider": "", "value": one["value"], "set": one["is_override"]}


def _provider_rows(params: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key.upper(), "provider": params["provider_code"], "value": value, "set": key in params["overrides"]}
        for key, value in params["effective"].items()
    ]


def set_setting(
    key: Key,
    value: Annotated[str, typer.Argument(help="A number, true or false, or text.")],
    *,
    provider: Provider = "",
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        changed = _change(api, key.upper(), provider, value)
    _tell(changed, f"{key.upper()} is now {value}.", as_json=as_json)


def unset_setting(key: Key, *, provider: Provider = "", as_json: JsonFlag = False) -> None:
    with calling() as api:
        changed = _change(api, key.upper(), provider, None)
    _tell(changed, f"{key.upper()} is what it is without you.", as_json=as_json)


def _change(api: Api, key: str, provider: str, text: str | None) -> Any:
    kinds = {one["key"]: one["value_type"] for one in api.get("/settings/definitions")}
    if key not in kinds:
        message = f"There is no setting {key}."
        raise CommandError(ExitCode.NOT_FOUND, "unknown_setting", message, "`inventiv setting ls` lists them.")
    kind = kinds[key]
    value = None if text is None else _parsed(kind, key, text)
    if provider:
        return api.put(f"/providers/{provider}/params", {key.lower(): value})
    return api.put("/settings/global", {"key": key, f"value_{kind}": value})


def _parsed(kind: str, key: str, text: str) -> int | bool | str:
    if kind == "bool" and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if kind == "int" and text.lstrip("-").isascii() and text.lstrip("-").isdigit():
        return int(text)
    if kind == "text":
        return text
    wanted = "true or false" if kind == "bool" else "a whole number"
    raise CommandError(ExitCode.USAGE, "invalid_setting_type", f"{key} is {wanted}, not {text}.")


def _tell(changed: Any, words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(changed if isinstance(changed, dict) else {"settings": changed})
    else:
        say(words)
