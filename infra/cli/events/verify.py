"""`inventiv events verify`: is the log whole, does its second home agree, is anybody ahead of it.

Exit code 0: no damage (warnings are allowed). 1: damage; the table says where, and what to do.
"""

import asyncio
import importlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.at_stores import failures_explained, reader
from infra.cli.output import ExitCode, JsonFlag, print_json, print_table, say
from infra.cli.progress import progress
from infra.cli.stores import open_stores
from infra.environment import Environment

_COLUMNS = {"severity": "SEVERITY", "check": "CHECK", "position": "POSITION", "subject": "WHERE", "found": "FOUND"}


def register(group: typer.Typer) -> None:
    group.command("verify", help="Check the log, its copies and its readers against each other.")(verify)


def verify(
    *,
    full: Annotated[bool, typer.Option("--full", help="Every snapshot too, instead of a sample.")] = False,
    as_json: JsonFlag = False,
) -> None:
    report = asyncio.run(_verify(calling.environment(), full=full, quiet=as_json))
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.damaged:
        raise typer.Exit(ExitCode.FAILED)


async def _verify(environment: Environment, *, full: bool, quiet: bool) -> Any:
    verifying: Any = importlib.import_module("infra.replay.verify")
    with failures_explained():
        async with open_stores(environment) as stores, reader(environment, stores) as nc:
            return await verifying.verify(
                nc,
                stores.postgres_url,
                monitor_url=stores.nats_monitor_url,
                full=full,
                watch=partial(progress, quiet=quiet),
            )


def _print(report: Any) -> None:
    checked = report.checked
    say(
        f"Checked {checked.events:,} events of {checked.aggregates:,} aggregates, {checked.audit_rows:,} rows of the "
        f"audit log, {checked.checkpoints} checkpoints, {checked.snapshots:,} snapshots."
    )
    rows = [{field: getattr(finding, field) for field in _COLUMNS} for finding in report.findings]
    print_table(rows, _COLUMNS, empty="Nothing is wrong.")
    if report.findings_left_out:
        say(f"... and {report.findings_left_out:,} more.")
    _print_cures(report.findings)


def _print_cures(findings: Sequence[Any]) -> None:
    for check, cure in {finding.check: finding.cure for finding in findings}.items():
        say(f"{check}: {cure}")
