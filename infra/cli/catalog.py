"""`inventiv catalog ls|sync`: what can be rented, at what price, and whether there is any."""

from typing import Annotated, Any

import typer

from infra.cli.accounts import Look, ask
from infra.cli.calling import calling
from infra.cli.output import JsonFlag, age, print_json, print_table

_COLUMNS = {
    "provider": "PROVIDER",
    "zone": "ZONE",
    "type": "TYPE",
    "gpus": "GPUS",
    "vram": "VRAM GB",
    "price": "EUR/H",
    "stock": "STOCK",
    "source": "FROM",
}

Provider = Annotated[str, typer.Option("--provider", help="Code of one provider; all of them when left out.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What can be rented, at what price and stock.", no_args_is_help=True)
    group.command("ls", help="List types by provider and zone.")(list_catalogue)
    group.command("sync", help="Ask the providers now.")(sync)
    app.add_typer(group, name="catalog")


def list_catalogue(*, provider: Provider = "", as_json: JsonFlag = False) -> None:
    with calling() as api:
        types = [one for one in api.get("/instance_types") if provider in {"", one["provider_code"]}]
    if as_json:
        print_json({"instance_types": types})
    else:
        rows = [row for one in types for row in _rows(one)]
        print_table(
            rows, _COLUMNS, empty="Nothing is known to be for rent; `inventiv provider ls` lists the providers."
        )


def _rows(one: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each place; what has none is not for rent now."""
    return [
        {
            "provider": one["provider_code"],
            "zone": place["zone_code"],
            "type": one["code"],
            "gpus": one["gpu_count"],
            "vram": one["vram_per_gpu_gb"],
            "price": place["cost_per_hour"],
            "stock": place["stock"],
            "source": "provider" if one["source"] == "provider" else "built in",
        }
        for place in one["places"]
    ]


def sync(
    *,
    provider: Provider = "",
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Wait for the answers, or return at once.")] = True,
    as_json: JsonFlag = False,
) -> None:
    look = Look(path="/catalog/sync", part="catalogue", says="Asking {} what can be rented.", found=_synced)
    ask(look, provider, wait=wait, as_json=as_json)


def _synced(catalogue: dict[str, Any]) -> str:
    return f"synced {age(catalogue['synced_at']) or '0 s'} ago."
