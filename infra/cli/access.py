"""`inventiv access ls|request|trial`: what other organisations offer, and asking for it."""

from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.offerings import price_text
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.client import Api

_COLUMNS = {
    "identifier": "OFFERING",
    "name": "NAME",
    "model_code": "MODEL",
    "access_policy": "ACCESS",
    "price": "EUR IN/OUT",
    "callable": "CALLABLE",
    "refusal_code": "WHY NOT",
}

Identifier = Annotated[str, typer.Argument(help="Its public name, e.g. acme/chat; unlisted ones have one too.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What other organisations offer to yours.", no_args_is_help=True)
    group.command("ls", help="List what you may know of, and whether you may call it.")(list_offered)
    group.command("request", help="Ask for access; its provider answers.")(request_access)
    group.command("trial", help="Begin your organisation's one trial.")(start_trial)
    app.add_typer(group, name="access")


def list_offered(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        offered = api.get("/catalogue/offerings")
    if as_json:
        print_json({"offerings": offered})
        return
    rows = [{**one, "price": price_text(one["price"])} for one in offered]
    print_table(
        rows, _COLUMNS, empty="Nobody offers anything yet; `inventiv offering publish` offers a model of yours."
    )


def request_access(identifier: Identifier, *, as_json: JsonFlag = False) -> None:
    _ask(identifier, "access", as_json=as_json)


def start_trial(identifier: Identifier, *, as_json: JsonFlag = False) -> None:
    _ask(identifier, "trial", as_json=as_json)


def _ask(identifier: str, step: str, *, as_json: bool) -> None:
    with calling() as api:
        share = api.post(f"/offerings/{_find(api, identifier)['id']}/{step}")
    if as_json:
        print_json(share)
    elif share["status"] == "requested":
        say(f"Access to {identifier} is asked for; `inventiv share ls --taken` shows the answer.")
    else:
        say(f"{identifier} is open to your organisation until {share['ends_at'] or 'further notice'}.")


def _find(api: Api, identifier: str) -> dict[str, Any]:
    for one in api.get("/catalogue/offerings", name=identifier):
        return dict(one)
    message = f"There is no offering {identifier}."
    raise CommandError(ExitCode.NOT_FOUND, "offering_not_found", message, "`inventiv access ls` lists what there is.")
