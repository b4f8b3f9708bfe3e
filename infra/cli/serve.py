"""`inventiv serve <role>`: one role alone, against INVENTIV_NATS_URL and INVENTIV_POSTGRES_URL.

The same code runs under `inventiv up`; nothing else differs. It ends with 0 after SIGTERM or Ctrl-C, with 8 when a
server that it needs does not answer, and with 78 (the customary "configuration error") when its surroundings are unfit:
then starting it again is of no use before a person acted.
"""

import importlib
from enum import StrEnum
from typing import Annotated

import typer
import uvloop

from infra.cli.output import CommandError, ExitCode
from infra.environment import read_environment
from infra.processes.lean import leave_out


class RoleName(StrEnum):
    web = "web"
    gateway = "gateway"
    handlers = "handlers"
    projections = "projections"
    tunnel = "tunnel"


def register(app: typer.Typer) -> None:
    app.command("serve", help="Run one role alone: web, gateway, handlers, projections or tunnel.")(serve)


def serve(role: Annotated[RoleName, typer.Argument(help="Which role to run.")]) -> None:
    try:
        environment = read_environment()
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "invalid_environment", str(error)) from error
    if role in {RoleName.gateway, RoleName.tunnel}:
        leave_out()
    from infra.telemetry import configure_logging  # noqa: PLC0415 - only now: see lean.py

    configure_logging(role.value, environment.log_format)
    process = importlib.import_module(f"infra.processes.{role.value}")
    try:
        uvloop.run(process.run(environment))
    except OSError as error:
        cure = "Start what it needs, or correct INVENTIV_NATS_URL and INVENTIV_POSTGRES_URL."
        raise CommandError(ExitCode.UNREACHABLE, "unreachable", f"{role.value}: {error}", cure) from error
