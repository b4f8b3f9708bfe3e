"""`inventiv events rebuild`: builds read models anew from the log, beside the living ones, and swaps them in.

    rebuild NAME...|all              swap                exit 0, or 1 when one of them failed
    rebuild NAME...|all --compare    look, change nothing      exit 1 when rows differ
    rebuild --list, --prune          what is there; away with superseded versions

The platform may run or not. Readers go on meanwhile and never see half of it.
"""

import asyncio
import importlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.at_stores import failures_explained, reader
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.cli.progress import progress
from infra.cli.stores import Stores, open_stores
from infra.environment import Environment

ALL = "all"

Names = Annotated[list[str] | None, typer.Argument(help="Read models, e.g. instances; or `all`. See --list.")]
Compare = Annotated[bool, typer.Option("--compare", help="Compare with the living rows; change nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted rebuild has left.")]
List = Annotated[bool, typer.Option("--list", help="Show read models, older versions, interrupted rebuilds.")]
Prune = Annotated[bool, typer.Option("--prune", help="Drop older versions whose successor has caught up.")]

_COLUMNS = {"projection": "READ MODEL", "result": "RESULT", "position": "POSITION", "events_per_s": "EVENTS/S"}
_LISTED = {"schema": "SCHEMA", "position": "POSITION", "state": "STATE"}


def register(group: typer.Typer) -> None:
    group.command("rebuild", help="Build read models anew from the log and swap them in; --compare only looks.")(
        rebuild
    )


def rebuild(
    names: Names = None,
    *,
    compare: Compare = False,
    resume: Resume = False,
    listing: List = False,
    prune: Prune = False,
    as_json: JsonFlag = False,
) -> None:
    if listing or prune:
        _show_leftovers(asyncio.run(_leftovers(calling.environment(), prune=prune)), as_json=as_json)
        return
    wanted = _projections(names or [])
    results = asyncio.run(_rebuild_all(calling.environment(), wanted, compare=compare, resume=resume, quiet=as_json))
    if as_json:
        print_json({"rebuilt": results})
    else:
        print_table(results, _COLUMNS, empty="Nothing to do.")
        _explain(results)
    if any(result["result"] not in {"swapped", "same"} for result in results):
        raise typer.Exit(ExitCode.FAILED)


def _projections(names: Sequence[str]) -> list[Any]:
    registry: Any = importlib.import_module("projections.registry")
    known = {projection.name: projection for projection in registry.PROJECTIONS}
    if not names:
        message = "Which read models? Name them, or say `all`."
        raise CommandError(ExitCode.USAGE, "no_read_model", message, f"Known: {', '.join(known)}.")
    if ALL in names:
        return list(known.values())
    for name in names:
        if name not in known:
            message = f"There is no read model {name!r}."
            raise CommandError(ExitCode.NOT_FOUND, "read_model_not_found", message, f"Known: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


async def _rebuild_all(
    environment: Environment, wanted: Sequence[Any], *, compare: bool, resume: bool, quiet: bool
) -> list[dict[str, Any]]:
    """All at once: those that read the same stream share one reading of it."""
    rebuilding: Any = importlib.import_module("infra.replay.rebuild")
    async with AsyncExitStack() as stack:
        stores: Stores = await stack.enter_async_context(open_stores(environment))
        stack.enter_context(failures_explained())
        sources = await _sources(stack, environment, stores)
        heads = {stream: await source.head() for stream, source in sources.items()}
        total = sum(heads[projection.stream] for projection in wanted)
        words = "Comparing" if compare else "Rebuilding"
        advance = stack.enter_context(progress(words, total, quiet=quiet))
        options: dict[str, Any] = {"advance": advance} if compare else {"advance": advance, "resume": resume}
        act = rebuilding.compare if compare else rebuilding.rebuild
        tasks = [act(p, sources[p.stream], stores.postgres_url, **options) for p in wanted]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [_result(projection, end, compare=compare) for projection, end in zip(wanted, ends, strict=True)]


async def _sources(stack: AsyncExitStack, environment: Environment, stores: Stores) -> dict[str, Any]:
    aggregates: Any = importlib.import_module("domain.aggregates")
    codec: Any = importlib.import_module("infra.events.codec")
    jetstream: Any = importlib.import_module("infra.events.jetstream")
    projecting: Any = importlib.import_module("infra.projecting")
    nc = await stack.enter_async_context(reader(environment, stores))
    events = projecting.EventSource(jetstream.JetStreamLog(nc), codec.Codec(aggregates.AGGREGATES))
    return {"EVENTS": events, "USAGE": projecting.UsageSource(nc)}


def _result(projection: Any, end: Any, *, compare: bool) -> dict[str, Any]:
    if isinstance(end, BaseException):
        if not isinstance(end, Exception):
            raise end
        return {"projection": projection.name, "result": "failed", "reason": str(end).strip() or type(end).__name__}
    differences = [
        {field: getattr(difference, field) for field in difference.__struct_fields__} for difference in end.differences
    ]
    return {
        "projection": projection.name,
        "result": "different" if differences else "same" if compare else "swapped",
        "position": end.position,
        "messages": end.messages,
        "took_s": round(end.took_s, 3),
        "events_per_s": round(end.messages / max(end.took_s, 1e-9)),
        "differences": differences,
    }


def _explain(results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        if result["result"] == "failed":
            say(f"{result['projection']}: {result['reason']}. The living one is as it was; run the command again.")
        for difference in result.get("differences", ()):
            say(
                f"{result['projection']}.{difference['table']}: {difference['only_living']} rows only in the living "
                f"one, {difference['only_rebuilt']} only in the rebuilt one, e.g. {', '.join(difference['keys'])}."
            )
    if any(result["result"] == "different" for result in results):
        say("The log is the truth: `inventiv events rebuild NAME` replaces the living rows.")


async def _leftovers(environment: Environment, *, prune: bool) -> dict[str, Any]:
    rebuilding: Any = importlib.import_module("infra.replay.rebuild")
    superseded: Any = importlib.import_module("infra.replay.superseded")
    checkpoints: Any = importlib.import_module("infra.replay.checkpoints")
    postgres: Any = importlib.import_module("infra.postgres")
    async with AsyncExitStack() as stack:
        stores: Stores = await stack.enter_async_context(open_stores(environment))
        stack.enter_context(failures_explained())
        connecting = postgres.connect(stores.postgres_url, "rebuild", autocommit=True, lock_timeout="10s")
        connection = await stack.enter_async_context(await connecting)
        known = await checkpoints.known_checkpoints(connection)
        left = await superseded.find_leftovers(connection)
        for checkpoint in left.droppable if prune else ():
            await rebuilding.drop_schema(connection, checkpoint)
    done = "dropped" if prune else "superseded"
    states = {c.schema: done for c in left.droppable}
    states |= {c.schema: "older, still needed" for c in left.needed}
    states |= {c.schema: "interrupted rebuild, or one under way" for c in left.unfinished}
    return {"read_models": [_listed(checkpoint, states) for checkpoint in known]}


def _listed(checkpoint: Any, states: dict[str, str]) -> dict[str, Any]:
    percent = checkpoint.built_percent
    state = states.get(checkpoint.schema, "living" if percent == 100 else f"being built: {percent} %")
    return {"schema": checkpoint.schema, "position": checkpoint.position, "state": state}


def _show_leftovers(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(found["read_models"], _LISTED, empty="No projection has run on this Postgres yet.")
