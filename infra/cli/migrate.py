"""`inventiv migrate`: creates the streams that a NATS server of your own lacks; `inventiv up` sees to its own.

Services may not create streams (their permissions withhold it), so this is the one command for which INVENTIV_NATS_URL
names an administrator, or INVENTIV_NATS_NKEY_FILE the key of the identity `migration`. It changes nothing that exists:
a stream with other settings is reported, not corrected.
"""

import asyncio
import importlib
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.cli.stores import logs_to_stderr
from infra.environment import Environment

CONNECT_TIMEOUT_S = 5.0

Replicas = Annotated[int, typer.Option(min=1, max=5, help="Copies of each stream; 3 on a cluster.")]


def register(app: typer.Typer) -> None:
    app.command("migrate", help="Create the streams that INVENTIV_NATS_URL lacks (as an administrator).")(migrate)


def migrate(*, replicas: Replicas = 1, as_json: JsonFlag = False) -> None:
    created = asyncio.run(_migrate(calling.environment(), replicas))
    if as_json:
        print_json({"created": created})
        return
    say(f"Created {', '.join(created)}." if created else "Nothing to do: every stream is there.")


async def _migrate(environment: Environment, replicas: int) -> list[str]:
    logs_to_stderr()
    connection: Any = importlib.import_module("infra.events.connection")
    streams: Any = importlib.import_module("infra.events.streams")
    try:
        login = (environment.nats_url, "migration", environment.nats_login)
        nc = await connection.connect_reader(*login, budget_s=CONNECT_TIMEOUT_S)
    except OSError as error:
        cure = "Correct INVENTIV_NATS_URL, and INVENTIV_NATS_NKEY_FILE or _CA_FILE where the servers ask for them."
        raise CommandError(ExitCode.UNREACHABLE, "unreachable", f"Cannot {error}.", cure) from error
    try:
        created: list[str] = await streams.ensure_streams(nc, replicas=replicas)
        await streams.verify_server(nc, environment.nats_monitor_url, replicas=replicas)
    except streams.UnfitServerError as error:
        raise CommandError(ExitCode.FAILED, "unfit_server", str(error)) from error
    finally:
        await connection.disconnect(nc)
    return created
