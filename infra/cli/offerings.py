"""`inventiv offering ls|publish|revise|withdraw|activate|deactivate`: models that your organisation offers to others.

An offering is named by its code here; others name it `your-slug/code`. Prices are EUR per million tokens.
"""

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.client import Api

EUR_MICROS = 1_000_000
_COLUMNS = {
    "identifier": "OFFERING",
    "model_code": "MODEL",
    "visibility": "VISIBILITY",
    "access_policy": "ACCESS",
    "price": "EUR IN/OUT",
    "missing": "WAITS FOR",
}


class Visibility(StrEnum):
    public = "public"
    unlisted = "unlisted"
    private = "private"


class Access(StrEnum):
    free = "free"
    subscription_required = "subscription_required"
    request_required = "request_required"
    pay_per_token = "pay_per_token"  # noqa: S105 - a policy's name
    trial = "trial"


class Flag(StrEnum):
    technical = "technical"
    economic = "economic"


Code = Annotated[str, typer.Argument(help="The offering's code, from `inventiv offering ls`.")]
FlagName = Annotated[Flag, typer.Argument(help="technical (owner, admin) or economic (owner, manager).")]
Name = Annotated[str | None, typer.Option(help="A name for people.")]
Description = Annotated[str | None, typer.Option(help="At most 2000 characters.")]
SeenBy = Annotated[Visibility | None, typer.Option("--visibility", help="Who finds it; private, if not said.")]
Policy = Annotated[Access | None, typer.Option("--access", help="Who may call it; free, if not said.")]
PriceIn = Annotated[str | None, typer.Option("--price-in", help="EUR per million tokens read, e.g. 0.15.")]
PriceOut = Annotated[str | None, typer.Option("--price-out", help="EUR per million tokens written.")]
TrialDays = Annotated[int | None, typer.Option(min=0, help="With --access trial: how long one trial lasts.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Models that your organisation offers to others.", no_args_is_help=True)
    group.command("ls", help="List your offerings.")(list_offerings)
    group.command("publish", help="Offer a model of the catalogue.")(publish)
    group.command("revise", help="Change what an offering says; it counts at once.")(revise)
    group.command("withdraw", help="End an offering; nobody reaches it any more.")(withdraw)
    group.command("activate", help="Set a flag; nobody is served before both are set.")(activate)
    group.command("deactivate", help="Clear a flag; others cannot call it any more.")(deactivate)
    app.add_typer(group, name="offering")


def list_offerings(
    *,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="Withdrawn ones, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        offerings = api.get("/offerings", withdrawn="true" if withdrawn else "false")
    if as_json:
        print_json({"offerings": offerings})
        return
    empty = "No offerings yet; `inventiv offering publish MODEL CODE` makes one."
    print_table([_row(offering) for offering in offerings], _COLUMNS, empty=empty)


def _row(offering: dict[str, Any]) -> dict[str, Any]:
    missing = ", ".join(offering["activation"]["missing"]) or "-"
    return {
        **offering,
        "price": price_text(offering["price"]),
        "missing": missing if offering["is_live"] else "withdrawn",
    }


def publish(
    model: Annotated[str, typer.Argument(help="Model code, from `inventiv model ls`.")],
    code: Annotated[str, typer.Argument(help="Its own: lower-case letters, digits, single hyphens.")],
    *,
    name: Name = None,
    description: Description = None,
    visibility: SeenBy = None,
    access: Policy = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    trial_days: TrialDays = None,
    as_json: JsonFlag = False,
) -> None:
    said = _said(name, description, visibility, access, trial_days)
    price = price_body(price_in, price_out)
    with calling() as api:
        offering = api.post("/offerings", {"model": model, "code": code, **said, **({"price": price} if price else {})})
    _tell(offering, f"{offering['identifier']} is published.", as_json=as_json)


def revise(
    code: Code,
    *,
    name: Name = None,
    description: Description = None,
    visibility: SeenBy = None,
    access: Policy = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    trial_days: TrialDays = None,
    as_json: JsonFlag = False,
) -> None:
    said = _said(name, description, visibility, access, trial_days)
    price = price_body(price_in, price_out)
    with calling() as api:
        before = find_offering(api, code)
        if price:
            said["price"] = {**before["price"], **price}
        offering = api.put(f"/offerings/{before['id']}", said)
    _tell(offering, f"{offering['identifier']} is revised.", as_json=as_json)


def _said(
    name: str | None, description: str | None, visibility: Visibility | None, access: Access | None, days: int | None
) -> dict[str, Any]:
    fields = {
        "name": name,
        "description": description,
        "visibility": visibility.value if visibility else None,
        "access_policy": access.value if access else None,
        "trial_days": days,
    }
    return {field: value for field, value in fields.items() if value is not None}


def withdraw(code: Code, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        offering = find_offering(api, code)
        api.delete(f"/offerings/{offering['id']}")
    if as_json:
        print_json({"id": offering["id"], "identifier": offering["identifier"], "withdrawn": True})
    else:
        say(f"{offering['identifier']} is withdrawn.")


def activate(code: Code, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(code, flag, value=True, as_json=as_json)


def deactivate(code: Code, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(code, flag, value=False, as_json=as_json)


def _change_flag(code: str, flag: Flag, *, value: bool, as_json: bool) -> None:
    with calling() as api:
        path = f"/offerings/{find_offering(api, code)['id']}/activation"
        offering = api.put(path, {"flag": flag.value, "value": value})
    _tell(
        offering,
        f"The {flag.value} flag of {offering['identifier']} is {'set' if value else 'cleared'}.",
        as_json=as_json,
    )


def _tell(offering: dict[str, Any], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(offering)
        return
    say(words)
    say_missing(offering, f"inventiv offering activate {offering['code']}")


def find_offering(api: Api, code: str) -> dict[str, Any]:
    """Your organisation's offering of that code, id or public identifier.

    Raises:
        CommandError: there is none.
    """
    for offering in api.get("/offerings"):
        if code in {offering["code"], offering["id"], offering["identifier"]}:
            return dict(offering)
    message = f"Your organisation has no offering {code}."
    raise CommandError(ExitCode.NOT_FOUND, "offering_not_found", message, "`inventiv offering ls` lists them.")


def say_missing(resource: dict[str, Any], command: str) -> None:
    """What a person has to do before a resource of double activation works."""
    for flag in resource["activation"]["missing"]:
        say(f"It does not work before the {flag} flag is set: `{command} {flag}`.")


def price_text(price: dict[str, int] | None) -> str:
    """EUR per million tokens, read and written."""
    if price is None:
        return "-"
    micros = (price["input_eur_micros_per_million"], price["output_eur_micros_per_million"])
    return "/".join(f"{Decimal(one) / EUR_MICROS:f}" for one in micros)


def price_body(price_in: str | None, price_out: str | None) -> dict[str, int]:
    """The API's fields of the prices that were said; raises CommandError for what is no amount of money."""
    fields = {"input_eur_micros_per_million": price_in, "output_eur_micros_per_million": price_out}
    return {field: _micros(text) for field, text in fields.items() if text is not None}


def _micros(text: str) -> int:
    try:
        micros = Decimal(text) * EUR_MICROS
        if micros == micros.to_integral_value():
            return int(micros)
    except (InvalidOperation, ValueError, OverflowError):
        pass
    message = f"{text} is no price: EUR, with at most six digits after the point."
    raise CommandError(ExitCode.USAGE, "invalid_price", message, "For example: --price-in 0.15.")
