"""`inventiv events ...`: the event log, read back, replayed and repaired. One file a command, or a pair of them.

    through the API:         tail show state diff why parked        what the caller may see, in its organisation
    at the stores:           effects rehearse rebuild verify export import restore        for who runs the platform

The surprising rule: commands at the stores need no running platform (stores.py); those that write need it stopped, or
say so.
"""

import importlib

import typer

COMMANDS = ("tail", "state", "why", "parked", "effects", "rehearse", "verify", "transfer", "restore", "rebuild")
"""Files here, in the order of --help."""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The event log: read it, replay it, check it, restore it.", no_args_is_help=True)
    for file in COMMANDS:
        importlib.import_module(f"infra.cli.events.{file}").register(group)
    app.add_typer(group, name="events")
