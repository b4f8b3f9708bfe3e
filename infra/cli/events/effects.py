"""`inventiv events effects`: what was done to the outside world, because of which event, and what nobody is sure of."""

import asyncio
import importlib
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.at_stores import failures_explained
from infra.cli.output import JsonFlag, print_json, print_table
from infra.cli.stores import open_stores
from infra.environment import Environment

LISTED = 100
_COLUMNS = {
    "intended_at": "BEGUN",
    "state": "STATE",
    "attempts": "TRIES",
    "reaction": "HANDLER",
    "name": "WHAT",
    "key": "WHICH",
    "event_id": "BECAUSE OF",
    "detail": "DETAIL",
}


def register(group: typer.Typer) -> None:
    group.command("effects", help="List what was done to the outside world, newest first.")(effects)


def effects(
    *,
    event_id: Annotated[str, typer.Option("--event", help="Only because of this event.")] = "",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only what may or may not have happened.")] = False,
    last: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = LISTED,
    as_json: JsonFlag = False,
) -> None:
    rows = asyncio.run(_effects(calling.environment(), event_id, unfinished=unfinished, limit=last))
    shown = [_shown(row) for row in rows]
    if as_json:
        print_json({"effects": shown})
    else:
        empty = "Nothing is unfinished." if unfinished else "Nothing was done to the outside world yet."
        print_table(shown, _COLUMNS, empty=empty)


async def _effects(environment: Environment, event_id: str, *, unfinished: bool, limit: int) -> list[Any]:
    tables: Any = importlib.import_module("infra.effect_tables")
    postgres: Any = importlib.import_module("infra.postgres")
    settings = {"autocommit": True, "default_transaction_read_only": "on"}
    with failures_explained():
        async with (
            open_stores(environment) as stores,
            await postgres.connect(stores.postgres_url, "effects", **settings) as connection,
        ):
            if not event_id:
                return list(await tables.list_effects(connection, unfinished=unfinished, limit=limit))
            found = await tables.effects_of(connection, [event_id])
            return [row for row in found if not unfinished or row.state in {"intended", "unknown"}][:limit]


def _shown(row: Any) -> dict[str, Any]:
    return {
        "reaction": row.effect.reaction,
        "event_id": row.effect.event_id,
        "name": row.effect.name,
        "key": row.effect.key,
        "subject": row.effect.subject,
        "state": row.state,
        "attempts": row.attempts,
        "intended_at": row.intended_at.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
        "detail": row.detail,
    }
