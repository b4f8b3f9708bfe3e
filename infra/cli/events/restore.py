"""`inventiv events restore`: a lost or shortened log, rebuilt from the audit log in Postgres, byte for byte.

    look at both stores ──> say what is missing, what can come back, what cannot ──> bring it back ──> checkpoints fit

The surprising rule: where events are lost for good, it stops and says how many; --accept-loss goes on, and the read
models that show them are built again without them.
"""

import asyncio
import importlib
from functools import partial
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.at_stores import Stopped, failures_explained, replicas_of, require_stopped, writer
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.cli.progress import progress
from infra.cli.stores import Stores, open_stores
from infra.environment import Environment


def register(group: typer.Typer) -> None:
    group.command("restore", help="Rebuild a lost log from the audit log; the platform must be stopped.")(restore)


def restore(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although events are lost for good.")
    ] = False,
    stopped: Stopped = False,
    as_json: JsonFlag = False,
) -> None:
    document = asyncio.run(
        _run(calling.environment(), dry_run=dry_run, accept_loss=accept_loss, stopped=stopped, quiet=as_json)
    )
    if as_json:
        print_json(document)


async def _run(
    environment: Environment, *, dry_run: bool, accept_loss: bool, stopped: bool, quiet: bool
) -> dict[str, Any]:
    restoring: Any = importlib.import_module("infra.replay.restore")
    with failures_explained():
        async with open_stores(environment) as stores, writer(environment, stores) as nc:
            if not dry_run:
                require_stopped(environment, stores, stopped=stopped)
            plan = await restoring.plan_restore(nc, stores.postgres_url)
            if not quiet:
                _say_plan(plan, restoring.ONLY_IN_POSTGRES)
            planned = _planned(plan)
            if dry_run or plan.nothing_to_do:
                return {"plan": planned, "done": None}
            _require_acceptable(plan, accept_loss=accept_loss)
            done = await _restore(environment, stores, nc, plan, quiet=quiet)
            if not quiet:
                _say_done(done)
            return {"plan": planned, "done": done}


async def _restore(environment: Environment, stores: Stores, nc: Any, plan: Any, *, quiet: bool) -> Any:
    restoring, refill, streams = (
        importlib.import_module(f"infra.{name}") for name in ("replay.restore", "replay.refill", "events.streams")
    )
    try:
        return await restoring.restore(
            nc,
            stores.postgres_url,
            plan,
            replicas=replicas_of(environment, stores),
            watch=partial(progress, quiet=quiet),
        )
    except refill.DifferentLogError as error:
        cure = "Two logs have parted: keep both stores, see `inventiv events verify`, and bring back the right one."
        raise CommandError(ExitCode.CONFLICT, "different_log", f"{error}. Nothing was written.", cure) from error
    except restoring.DamagedTableError as error:
        cure = "Nothing can be rebuilt from it beyond that; use a backup of the streams or of Postgres."
        raise CommandError(ExitCode.CONFLICT, "damaged_audit_log", f"{error}.", cure) from error
    except (refill.RefillError, streams.UnfitServerError) as error:
        raise CommandError(ExitCode.CONFLICT, "log_in_the_way", f"{error}.") from error


def _require_acceptable(plan: Any, *, accept_loss: bool) -> None:
    """Nothing that shows lost events is thrown away unasked."""
    if not plan.events_lost or accept_loss:
        return
    message = f"At least {plan.events_lost:,} events are in neither the log nor the audit log; nothing was written."
    cure = "Look for a backup of the streams first; --accept-loss goes on without them."
    raise CommandError(ExitCode.CONFLICT, "events_lost", message, cure)


def _planned(plan: Any) -> dict[str, Any]:
    names = ("events_missing", "usage_missing", "events_lost", "nothing_to_do", "tables_lost")
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    return fields | {name: getattr(plan, name) for name in names}


def _say_plan(plan: Any, only_in_postgres: tuple[str, ...]) -> None:
    say(f"EVENTS ends at {plan.events_there:,}; the audit log holds the events up to {plan.events_kept:,}.")
    if plan.events_missing:
        say(f"{plan.events_missing:,} events can be brought back, each at its position.")
    if plan.usage_missing:
        say(f"USAGE ends at {plan.usage_there:,}; {plan.usage_missing:,} records can be brought back.")
    if plan.events_lost:
        say(f"At least {plan.events_lost:,} events are lost: read models saw them before the audit log did.")
    if plan.ahead:
        say(f"Built again without them: {', '.join(plan.ahead)}.")
    if plan.events_missing:
        say("Not brought back: seals of the audit log (they are in a stream backup), timers, parked work, telemetry.")
    if plan.tables_lost:
        say("Postgres is empty: the projections role builds every read model again when the platform starts.")
        say(f"Only a pg_dump brings back: {'; '.join(only_in_postgres)}.")
    elif plan.nothing_to_do:
        say("Nothing to do: no reader is ahead of the log.")


def _say_done(done: Any) -> None:
    say(f"EVENTS ends at {done.events:,} again: {done.events_restored:,} events at {done.events_per_s:,.0f}/s.")
    if done.usage_restored:
        say(f"USAGE has {done.usage_restored:,} records again.")
    if done.snapshots_purged:
        say("Snapshots were dropped; they come again by themselves.")
    say("Start the platform; `inventiv events verify` checks it all.")
