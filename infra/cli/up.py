"""`inventiv up`: everything on this machine, in the foreground, until Ctrl-C.

Steps and warnings go to stderr, the card to stdout. A second `up` on the same data folder prints the first one's card
and ends with 0. It imports lightly: the machinery is loaded only by the `up` that starts something.
"""

import asyncio
import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.card import card_document, print_card
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_json, say
from infra.environment import Environment
from infra.processes.running import read_platform

ATTACH_WAIT_S = 60.0
"""The other `up` may be making its first data folder right now."""
ATTACH_POLL_S = 0.1

NatsNodes = Annotated[
    int,
    typer.Option(
        min=0,
        max=5,
        show_default=False,
        help="nats-servers that hold the log: 1 (default), 3 or 5; fixed at first start.",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("up", help="Start everything on this machine; Ctrl-C stops it, its data stay.")(up)


def up(
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder; INVENTIV_DATA_DIR otherwise.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all data first.")] = False,
    nats_nodes: NatsNodes = 0,
    as_json: JsonFlag = False,
) -> None:
    environment = _environment(data_dir, nats_nodes)
    with _failures_explained():
        folder: Any = importlib.import_module("infra.processes.data_folder")
        claimed = folder.claim(environment.data_dir)
        if claimed is None and fresh:
            message = f"`inventiv up` runs on {environment.data_dir}: its data cannot be forgotten now."
            raise CommandError(
                ExitCode.CONFLICT, "already_running", message, "Stop it first, with Ctrl-C where it runs."
            )
        if claimed is None:
            _attach(environment, as_json=as_json)
            return
        everything: Any = importlib.import_module("infra.processes.everything")
        if fresh:
            asyncio.run(everything.stop_local_servers(environment))
            say("Forgot everything." if folder.forget(claimed) else "There was nothing to forget.")
        asyncio.run(everything.run(claimed, environment, _Voice(environment, as_json=as_json)))
        say("Stopped.")


class _Voice:
    """How the run speaks on this terminal (everything.Voice). A terminal that went away must not stop the platform."""

    def __init__(self, environment: Environment, *, as_json: bool) -> None:
        self._environment = environment
        self._as_json = as_json
        self._began = time.monotonic()

    def step(self, words: str, took_s: float) -> None:
        self.say(f"{paint('✓', 'green', stderr=True)} {words} {paint(f'{took_s:.1f} s', 'dim', stderr=True)}")

    def say(self, words: str) -> None:
        try:
            say(words)
        except OSError:
            return

    def card(self, platform: Any, keys: Any) -> None:
        self.step("Everything is ready", time.monotonic() - self._began)
        document = card_document(platform, admin_password=keys.admin_password, api_key=keys.api_key)
        try:
            (print_json if self._as_json else print_card)(document)
        except OSError:
            return


def _environment(data_dir: Path | None, nats_nodes: int) -> Environment:
    environment = calling.environment()
    environment = msgspec.structs.replace(environment, nats_nodes=nats_nodes or environment.nats_nodes)
    if data_dir is None:
        return environment
    wanted = data_dir.expanduser().resolve()
    own_secrets = environment.secrets_dir == environment.data_dir / "secrets"
    secrets_dir = wanted / "secrets" if own_secrets else environment.secrets_dir
    return msgspec.structs.replace(environment, data_dir=wanted, secrets_dir=secrets_dir)


def _attach(environment: Environment, *, as_json: bool) -> None:
    deadline = time.monotonic() + ATTACH_WAIT_S
    while (platform := read_platform(environment.data_dir)) is None or platform.state != "running":
        if time.monotonic() > deadline:
            message = (
                f"Another `inventiv up` holds {environment.data_dir}, and was not ready within {ATTACH_WAIT_S:.0f} s."
            )
            raise CommandError(ExitCode.TIMED_OUT, "not_ready", message, "See the logs folder in there.")
        time.sleep(ATTACH_POLL_S)
    say(f"Already running on {environment.data_dir} (pid {platform.pid}); Ctrl-C where it was started stops it.")
    (print_json if as_json else print_card)(card_document(platform))


@contextmanager
def _failures_explained() -> Iterator[None]:
    child: Any = importlib.import_module("infra.embedded.child")
    try:
        with calling.failures_explained():
            yield
    except child.EmbeddedServerError as error:
        cure = "`inventiv doctor` checks this machine; each process logs to <data folder>/logs."
        raise CommandError(ExitCode.FAILED, "start_failed", str(error), cure) from error
