"""`inventiv gateway restart`: a new gateway process takes over from the running one; no request fails.

    ask `up` (a signal) ──> new process ready, has the socket ──> old process finishes its requests ──> ends

The command waits for the new process, and then for the old one's last request. Ctrl-C ends the waiting alone.
"""

import os
import signal
import time
from typing import Annotated

import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.environment import Environment
from infra.finishing import finishing_requests
from infra.processes.running import ChildView, Platform, is_alive, read_platform

READY_TIMEOUT_S = 45.0
"""`inventiv up` gives a new process 30 s."""
POLL_S = 0.1
END_SLACK_S = 30.0
"""Beyond INVENTIV_DRAIN_S: cutting what is left, and sending the last usage records."""


def register(app: typer.Typer) -> None:
    gateway = typer.Typer(help="The gateway's process.", no_args_is_help=True)
    gateway.command("restart", help="Replace the gateway by a new process; no request fails.")(restart)
    app.add_typer(gateway, name="gateway")


def restart(
    *,
    wait: Annotated[bool, typer.Option(help="Wait until the old process has finished its requests.")] = True,
    as_json: JsonFlag = False,
) -> None:
    environment = calling.environment()
    platform = _running(environment)
    old, began = platform.roles["gateway"], time.monotonic()
    os.kill(platform.pid, signal.SIGUSR1)
    new = _replaced(environment, platform)
    if not as_json:
        say(f"New process ready (pid {new.pid}): it takes every new request.")
    if wait:
        _wait_for_the_end(environment, old, quiet=as_json)
    is_finished = not is_alive(old.pid, old.created_at)
    if as_json:
        took_s = round(time.monotonic() - began, 1)
        print_json({"pid": new.pid, "old_pid": old.pid, "old_finished": is_finished, "took_s": took_s})
    elif is_finished:
        say(f"Old process (pid {old.pid}) has finished.")


def _running(environment: Environment) -> Platform:
    platform = read_platform(environment.data_dir)
    if platform is None or platform.state != "running":
        cure = "Start it with `inventiv up`; a gateway on its own is replaced by a second `inventiv serve gateway`."
        message = f"No `inventiv up` is ready on {environment.data_dir}."
        raise CommandError(ExitCode.UNREACHABLE, "not_running", message, cure)
    if platform.gateway_roll is None:
        message = "The running `inventiv up` is of an older version and cannot replace its gateway."
        raise CommandError(ExitCode.CONFLICT, "not_supported", message, "Restart `inventiv up` once.")
    if "gateway" not in platform.roles or platform.roles["gateway"].state != "running":
        message = "The gateway does not run at the moment; it is being restarted already."
        raise CommandError(ExitCode.CONFLICT, "gateway_not_running", message, "See `inventiv status`.")
    return platform


def _replaced(environment: Environment, before: Platform) -> ChildView:
    """The new process, once it has the socket."""
    asked = before.gateway_roll.number if before.gateway_roll else 0
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        platform = read_platform(environment.data_dir)
        if platform is None or platform.gateway_roll is None:
            break
        roll = platform.gateway_roll
        if roll.number > asked and roll.state == "done":
            return platform.roles["gateway"]
        if roll.number > asked and roll.state == "failed":
            message = f"The new process did not start, and the old one serves on: {roll.reason}"
            cure = f"See {environment.data_dir / 'logs' / 'gateway.log'}."
            raise CommandError(ExitCode.FAILED, "restart_failed", message, cure)
        time.sleep(POLL_S)
    message = f"`inventiv up` did not replace the gateway within {READY_TIMEOUT_S:.0f} s."
    raise CommandError(ExitCode.TIMED_OUT, "not_replaced", message, "See `inventiv status`.")


def _wait_for_the_end(environment: Environment, old: ChildView, *, quiet: bool) -> None:
    deadline = time.monotonic() + environment.drain_s + END_SLACK_S
    said = -1
    while is_alive(old.pid, old.created_at):
        if time.monotonic() > deadline:
            message = f"The old process (pid {old.pid}) has not ended, although its time to finish is over."
            raise CommandError(ExitCode.TIMED_OUT, "not_finished", message, "See `inventiv status`.")
        left = finishing_requests(environment.data_dir)
        if not quiet and left not in {0, said}:
            said = left
            say(f"Old process finishing {left} request{'s' if left > 1 else ''}.")
        time.sleep(POLL_S)
