"""`inventiv simulate-cloud scaleway`: Scaleway's API on this machine, with real agents behind its servers, for free.

    terminal 1: inventiv simulate-cloud scaleway      terminal 2: INVENTIV_SCALEWAY_URL=... inventiv up, then deploy

It says what to do next, and serves until Ctrl-C. What was rented in it ends with it.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_line, say
from infra.simulated_clouds.scaleway import DEFAULT_PORT, DEFAULT_SPEED

MAX_SPEED = 100_000.0


def register(app: typer.Typer) -> None:
    clouds = typer.Typer(help="A cloud of your own, for trying things out.", no_args_is_help=True)
    clouds.callback()(_clouds)
    clouds.command("scaleway", help="Scaleway's API on this machine, with agents behind its servers.")(scaleway)
    app.add_typer(clouds, name="simulate-cloud")


def _clouds() -> None:
    """Keeps `simulate-cloud <name>` a group while there is only one."""


def scaleway(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = DEFAULT_PORT,
    speed: Annotated[
        float, typer.Option(min=0.1, max=MAX_SPEED, help="Simulated seconds in a real one.")
    ] = DEFAULT_SPEED,
    folder: Annotated[Path | None, typer.Option(help="For its account and its machines.")] = None,
    as_json: JsonFlag = False,
) -> None:
    from infra.simulated_clouds.scaleway.serving import Card, serve  # noqa: PLC0415 - its web server takes 0.2 s

    place = folder or calling.environment().data_dir / "simulated" / "scaleway"

    def show(card: Card) -> None:
        if as_json:
            print_line(msgspec.structs.asdict(card))
            return
        for name, value in msgspec.structs.asdict(card).items():
            print(f"{name:<16} {value}", flush=True)
        say(f"Serving, {speed:g} times as fast as real time; Ctrl-C ends it and everything in it.")
        say(f"Start the platform with INVENTIV_SCALEWAY_URL={card.api_url}, give it these credentials, then deploy.")

    try:
        asyncio.run(serve(port=port, speed=speed, folder=place.absolute(), show=show))
    except OSError as error:
        cure = "Choose another port with --port (0 takes a free one) or another folder with --folder."
        raise CommandError(ExitCode.CONFLICT, "cannot_serve", str(error), cure) from error
