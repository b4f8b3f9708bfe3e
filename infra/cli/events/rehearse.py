"""`inventiv events rehearse HANDLER`: what would this release's handler do with the events that it was told before?

Nothing is done: see infra/replay/dry_doors.py. Exit code 0: all the same; 1: something differs.
"""

import asyncio
import importlib
from collections import Counter
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.at_stores import failures_explained, reader
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_json, say
from infra.cli.progress import progress
from infra.cli.stores import open_stores
from infra.environment import Environment

MAX_SHOWN = 1000
"""Wakings printed or put into the document; all are counted."""


def register(group: typer.Typer) -> None:
    group.command("rehearse", help="Tell a handler its old events again, and compare; nothing is done.")(rehearse)


def rehearse(
    handler: Annotated[str, typer.Argument(help="A reaction, e.g. advance_instance.")],
    *,
    start: Annotated[int, typer.Option("--from", min=1, help="First position.")] = 1,
    end: Annotated[int | None, typer.Option("--to", min=1, help="Last position; default: the end.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    reaction = _find(handler)
    if end is not None and end < start:
        raise CommandError(ExitCode.USAGE, "empty_range", f"--to {end} is before --from {start}.")
    work = _rehearse(calling.environment(), reaction, start, end, everything=everything, quiet=as_json)
    verdicts, shown = asyncio.run(work)
    left_out = max(0, sum(n for verdict, n in verdicts.items() if everything or verdict != "same") - len(shown))
    if as_json:
        print_json(
            {"handler": handler, "from": start, "to": end, "verdicts": verdicts, "wakings": shown, "left_out": left_out}
        )
    else:
        _print(handler, verdicts, shown, left_out)
    if any(verdicts.get(verdict) for verdict in ("different", "new", "missing", "failed")):
        raise typer.Exit(ExitCode.FAILED)


def _find(handler: str) -> Any:
    subscriptions: Any = importlib.import_module("handlers.subscriptions")
    known = {reaction.name: reaction for reaction in subscriptions.REACTIONS}
    if handler not in known:
        message = f"There is no handler {handler}."
        raise CommandError(ExitCode.USAGE, "unknown_handler", message, f"Known: {', '.join(known)}.")
    return known[handler]


async def _rehearse(
    environment: Environment, reaction: Any, start: int, end: int | None, *, everything: bool, quiet: bool
) -> tuple[Counter[str], list[Any]]:
    """How many wakings came to which verdict, and those to be shown."""
    rehearsing: Any = importlib.import_module("infra.replay.rehearse")
    jetstream: Any = importlib.import_module("infra.events.jetstream")
    postgres: Any = importlib.import_module("infra.postgres")
    doors: Any = importlib.import_module("infra.doors")
    verdicts: Counter[str] = Counter()
    shown: list[Any] = []
    with failures_explained(), progress("Rehearsing", 0, unit="events and looks", quiet=quiet) as advance:
        async with open_stores(environment) as stores, reader(environment, stores) as nc:
            settings = {"autocommit": True, "default_transaction_read_only": "on"}
            async with await postgres.connect(stores.postgres_url, "rehearsal", **settings) as ledger:
                rehearsal = rehearsing.Rehearsal(
                    reaction,
                    jetstream.JetStreamLog(nc),
                    rehearsing.calls_on_record(ledger, reaction.name),
                    settings=doors.settings_of(environment),
                    providers=doors.PROVIDERS,
                )
                try:
                    async for waking in rehearsal.perform(first=start, last=end, advance=advance):
                        verdicts[waking.verdict] += 1
                        if (everything or waking.verdict != "same") and len(shown) < MAX_SHOWN:
                            shown.append(waking)
                except rehearsing.TooManyWakingsError as error:
                    cure = "Rehearse it in parts, with --from and --to."
                    raise CommandError(ExitCode.USAGE, "too_many", f"{error}.", cure) from error
    return verdicts, shown


def _print(handler: str, verdicts: Counter[str], shown: list[Any], left_out: int) -> None:
    for waking in shown:
        at = str(waking.at)[:19]
        who = f"{waking.aggregate}/{waking.id} v{waking.version}"
        verdict = paint(waking.verdict, "green" if waking.verdict == "same" else "yellow")
        print(f"{waking.position:>7}  {paint(at, 'dim')}  {paint('+'.join(waking.events), 'bold')}  {who}  {verdict}")
        for heading, deeds in (("would", waking.would), ("did", waking.did)):
            for deed in deeds:
                print(f"         {heading:<5}  {deed.name} {deed.on}")
        if waking.fault:
            print(f"         {paint(waking.fault, 'red')}")
    if left_out:
        say(f"... and {left_out:,} more.")
    if not verdicts:
        say(f"Nothing in this part of the log wakes {handler}; `inventiv events tail` shows what is there.")
        return
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts.most_common())
    say(f"Wakings of {handler}: {sum(verdicts.values()):,} ({counts}).")
