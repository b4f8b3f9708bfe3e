"""`inventiv key ...`: API keys for the gateway and the REST API. A secret is printed once, by create and by rotate.

Scope options mean the same with `create` and with `scope`. The surprising rule: `create` without any makes a key that
calls every model, but only with the role user, and for 90 days; `scope` changes only what is named.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_fields, print_json, print_table, say

_COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "key_prefix": "KEY",
    "owner": "OWNER",
    "age": "AGE",
    "used": "USED",
    "state": "STATE",
}
_FIELDS = {
    "name": "Name",
    "id": "Id",
    "key_prefix": "Key",
    "state": "State",
    "owner": "Owner",
    "user_id": "User",
    "created_by": "Created by",
    "made_by_key": "Made by key",
    "created_at": "Created",
    "last_used_at": "Last used",
    "previous_valid_until": "Old secret until",
    "revoked_at": "Revoked",
}
_SCOPE_FIELDS = {
    "role": "Role",
    "models": "Models",
    "endpoints": "Endpoints",
    "ip_ranges": "Addresses",
    "expires_at": "Expires",
    "requests_per_minute": "Requests/min",
    "tokens_per_minute": "Tokens/min",
    "concurrency": "At once",
    "spend_limit": "Spend limit",
}
_ENDPOINTS = (
    "models, chat, completions, embeddings, responses, messages, rerank, score, tokenize, audio, images or rest"
)
_LISTS = {"models": "all", "endpoints": "all", "ip_ranges": "everywhere"}

EUR_MICROS = 1_000_000
MAX_EXPIRY_DAYS = 3650
MAX_OVERLAP_S = 30 * 86_400
_LIFTED: dict[str, Any] = {
    "models": [],
    "endpoints": [],
    "ip-ranges": [],
    "expiry": None,
    "requests-per-minute": None,
    "tokens-per-minute": None,
    "concurrency": None,
    "spend-limit": None,
}
"""What --lift takes -> what it sends."""

KeyId = Annotated[str, typer.Argument(help="The key's id, from `inventiv key ls`.")]
KeyName = Annotated[str, typer.Argument(help="A name to know it by, at most 100 characters.")]
FlagName = Annotated[str, typer.Argument(help="technical (owner, admin) or economic (owner, manager).")]
RoleOption = Annotated[str | None, typer.Option("--role", help="user, manager, admin or owner: at most yours.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="May call this model only; repeat for more.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", help=f"{_ENDPOINTS}; repeat for more."),
]
Ranges = Annotated[
    list[str] | None, typer.Option("--ip-range", help="May be used from this address or CIDR only; repeat for more.")
]
ExpiryDays = Annotated[int | None, typer.Option("--expires-in-days", min=1, max=MAX_EXPIRY_DAYS, help="From now on.")]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", min=1)]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", min=1)]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="Requests at the same time.")]
SpendLimit = Annotated[float | None, typer.Option("--spend-limit-eur", help="Over the key's whole life.")]

Lift = Annotated[
    list[str] | None, typer.Option("--lift", help=f"Take a restriction away: {', '.join(_LIFTED)}; repeat for more.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="API keys for the gateway.", no_args_is_help=True)
    group.command("create", help="Make a key; its secret is shown this once.")(create_key)
    group.command("ls", help="List keys.")(list_keys)
    group.command("show", help="Show one key with its scope.")(show_key)
    group.command("rename", help="Give a key another name.")(rename_key)
    group.command("scope", help="Change what a key may do; what is not named stays.")(change_scope)
    group.command("rotate", help="Give a key a new secret; the old one works on for a while.")(rotate_key)
    group.command("activate", help="Set a flag; a key works while both are set.")(activate_key)
    group.command("deactivate", help="Clear a flag: the key stops until it is set again.")(deactivate_key)
    group.command("revoke", help="End a key and all that it made at once; they stay in the list.")(revoke_key)
    app.add_typer(group, name="key")


def create_key(
    name: KeyName,
    *,
    organization: Annotated[bool, typer.Option("--organization", help="The organisation's own, not yours.")] = False,
    role: RoleOption = None,
    models: Models = None,
    endpoints: Endpoints = None,
    ip_ranges: Ranges = None,
    expires_in_days: ExpiryDays = None,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Instead of after 90 days.")] = False,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrency: Concurrency = None,
    spend_limit_eur: SpendLimit = None,
    as_json: JsonFlag = False,
) -> None:
    wish = _wish(
        role=role,
        models=models,
        endpoints=endpoints,
        ip_ranges=ip_ranges,
        expires_in_days=expires_in_days,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrency=concurrency,
        spend_limit_eur_micros=_micros(spend_limit_eur),
        owner="organization" if organization else None,
    )
    if never_expires and expires_in_days is not None:
        raise CommandError(ExitCode.USAGE, "two_expiries", "A key either ends after some days, or never.")
    if never_expires:
        wish["expires_in_days"] = None
    with calling() as api:
        made = api.post("/api_keys", {"name": name, **wish})
    _tell_secret(made, as_json=as_json)


def change_scope(
    key_id: KeyId,
    *,
    role: RoleOption = None,
    models: Models = None,
    endpoints: Endpoints = None,
    ip_ranges: Ranges = None,
    expires_in_days: ExpiryDays = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrency: Concurrency = None,
    spend_limit_eur: SpendLimit = None,
    lift: Lift = None,
    as_json: JsonFlag = False,
) -> None:
    wish = _wish(
        role=role,
        models=models,
        endpoints=endpoints,
        ip_ranges=ip_ranges,
        expires_in_days=expires_in_days,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrency=concurrency,
        spend_limit_eur_micros=_micros(spend_limit_eur),
    )
    wish |= _lifted(lift or [])
    if not wish:
        cure = "For example `inventiv key scope ID --model mock-echo-model`, or `--lift models`."
        raise CommandError(ExitCode.USAGE, "nothing_to_change", "Say what is to change.", cure)
    with calling() as api:
        key = api.put(f"/api_keys/{key_id}/scope", wish)
    _tell(key, as_json=as_json)


def _wish(**options: Any) -> dict[str, Any]:
    """What was said; an option that was left out stays out of the request, for null has a meaning of its own there."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def _lifted(names: list[str]) -> dict[str, Any]:
    if unknown := [name for name in names if name not in _LIFTED]:
        message = f"{unknown[0]} is no restriction; there are {', '.join(_LIFTED)}."
        raise CommandError(ExitCode.USAGE, "unknown_restriction", message)
    fields = {"expiry": "expires_in_days", "spend-limit": "spend_limit_eur_micros"}
    return {fields.get(name, name.replace("-", "_")): _LIFTED[name] for name in names}


def _micros(euros: float | None) -> int | None:
    return None if euros is None else round(euros * EUR_MICROS)


def list_keys(
    *,
    revoked: Annotated[bool | None, typer.Option("--revoked/--live", help="Only these; left out: both.")] = None,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        keys = api.get("/api_keys", revoked=None if revoked is None else str(revoked).lower())
    if as_json:
        print_json({"api_keys": keys})
        return
    rows = [
        {**key, "age": age(key["created_at"]), "used": age(key["last_used_at"]), "state": state_of(key)} for key in keys
    ]
    print_table(rows, _COLUMNS, empty="No such keys; `inventiv key create NAME` makes one.")


def show_key(key_id: KeyId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        key = api.get(f"/api_keys/{key_id}")
    _tell(key, as_json=as_json)


def rename_key(key_id: KeyId, name: KeyName, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        key = api.put(f"/api_keys/{key_id}", {"name": name})
    if as_json:
        print_json(key)
    else:
        say(f"Key {key_id} is now named {name}.")


def rotate_key(
    key_id: KeyId,
    *,
    overlap_s: Annotated[
        int, typer.Option("--overlap-s", min=0, max=MAX_OVERLAP_S, help="How long the old secret still works.")
    ] = 3600,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        made = api.post(f"/api_keys/{key_id}/rotate", {"overlap_s": overlap_s})
    _tell_secret(made, as_json=as_json)


def activate_key(key_id: KeyId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _set_flag(key_id, flag, value=True, as_json=as_json)


def deactivate_key(key_id: KeyId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _set_flag(key_id, flag, value=False, as_json=as_json)


def revoke_key(key_id: KeyId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        api.delete(f"/api_keys/{key_id}")
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        say(f"Key {key_id} is revoked, with all that it made.")


def state_of(key: Mapping[str, Any]) -> str:
    """One word, or what it waits for."""
    expires_at = key["scope"]["expires_at"]
    if key["revoked_at"]:
        return "revoked"
    if expires_at and datetime.fromisoformat(expires_at) <= datetime.now(UTC):
        return "expired"
    missing = key["activation"]["missing"]
    return f"waits for {' and '.join(missing)}" if missing else "active"


def _set_flag(key_id: str, flag: str, *, value: bool, as_json: bool) -> None:
    with calling() as api:
        shown = api.put(f"/api_keys/{key_id}/activation", {"flag": flag, "value": value})
    if as_json:
        print_json({"id": key_id, **shown})
    elif shown["operational"]:
        say(f"Key {key_id} works.")
    else:
        say(_waiting(key_id, shown["missing"]))


def _waiting(key_id: str, missing: Sequence[str]) -> str:
    return f"It does not work before `inventiv key activate {key_id} {missing[0]}`" + (
        f", and the same for {missing[1]}." if len(missing) > 1 else "."
    )


def _tell_secret(made: Mapping[str, Any], *, as_json: bool) -> None:
    """The secret alone on stdout, so that a script can catch it."""
    if as_json:
        print_json(made)
        return
    print(made["api_key"])
    say("Keep it: it is not shown again.")
    if missing := made["key"]["activation"]["missing"]:
        say(_waiting(made["key"]["id"], missing))


def _tell(key: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    scope = key["scope"]
    lists = {name: ", ".join(scope[name]) or unrestricted for name, unrestricted in _LISTS.items()}
    spend = scope["spend_limit_eur_micros"]
    print_fields({**key, "state": state_of(key)}, _FIELDS)
    shown = {
        **scope,
        **lists,
        "expires_at": scope["expires_at"] or "never",
        "spend_limit": None if spend is None else f"{spend / EUR_MICROS:.2f} EUR",
    }
    print_fields(shown, _SCOPE_FIELDS)
