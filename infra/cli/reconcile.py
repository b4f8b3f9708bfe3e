"""`inventiv reconcile`: compares what providers have with what the records say, now."""

from typing import Annotated, Any

import typer

from infra.cli.accounts import Look, ask
from infra.cli.output import JsonFlag

WORDS = "Compare every provider's servers and volumes with the records, both ways, now."


def register(app: typer.Typer) -> None:
    app.command("reconcile", help=WORDS)(reconcile)


def reconcile(
    *,
    provider: Annotated[str, typer.Option("--provider", help="Code of one provider; all of them when left out.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Wait for the answers, or return at once.")] = True,
    as_json: JsonFlag = False,
) -> None:
    look = Look(path="/reconcile", part="reconciliation", says="Comparing {} with the records.", found=_found)
    ask(look, provider, wait=wait, as_json=as_json)


def _found(found: dict[str, Any]) -> str:
    parts = [f"{found['servers'] or 0} servers"]
    parts += [f"{found['volumes']} volumes"] if found["volumes"] is not None else []
    parts += [f"{found['strays']} that no record wants (they are deleted soon)"] if found["strays"] else []
    parts += [f"{found['missed']} missed at the provider"] if found["missed"] else []
    parts += [f"{found['unrecorded']} signed by us without a record (never deleted)"] if found["unrecorded"] else []
    clean = not (found["strays"] or found["missed"] or found["unrecorded"])
    return ", ".join(parts) + (": all as recorded." if clean else ".")
