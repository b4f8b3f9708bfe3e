"""`inventiv events parked [retry|skip ID]`: work that handlers gave up on."""

from typing import Annotated

import typer

from infra.cli import calling
from infra.cli.output import JsonFlag, print_json, print_table, say

_PARKED_COLUMNS = {
    "id": "ID",
    "reaction": "REACTION",
    "aggregate": "AGGREGATE",
    "aggregate_id": "AGGREGATE ID",
    "attempts": "ATTEMPTS",
    "parked_at": "SINCE",
    "reason": "REASON",
}

ParkedId = Annotated[str, typer.Argument(help="From `inventiv events parked`.")]


def register(group: typer.Typer) -> None:
    parked = typer.Typer(help="Work that handlers gave up on: list, retry, skip.", invoke_without_command=True)
    parked.callback()(list_parked)
    parked.command("retry", help="Try it again now.")(retry_parked)
    parked.command("skip", help="Give it up; the aggregate's later events go on.")(skip_parked)
    group.add_typer(parked, name="parked")


def list_parked(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    if context.invoked_subcommand is not None:
        return
    with calling.calling() as api:
        parked = api.get("/parked")
    if as_json:
        print_json({"parked": parked})
    else:
        print_table(parked, _PARKED_COLUMNS, empty="Nothing is parked.")


def retry_parked(parked_id: ParkedId, *, as_json: JsonFlag = False) -> None:
    _resolve(parked_id, "retry", as_json=as_json)


def skip_parked(parked_id: ParkedId, *, as_json: JsonFlag = False) -> None:
    _resolve(parked_id, "skip", as_json=as_json)


def _resolve(parked_id: str, verb: str, *, as_json: bool) -> None:
    with calling.calling() as api:
        api.post(f"/parked/{parked_id}/{verb}")
    if as_json:
        print_json({"id": parked_id, "resolution": verb})
    else:
        say(f"{parked_id}: {verb} asked for.")
