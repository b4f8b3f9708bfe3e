"""Asking a person before something is done that cannot be undone. A script says --yes instead."""

import sys
from typing import Annotated

import typer

from infra.cli.output import CommandError, ExitCode

YesFlag = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]


def require_yes(question: str, *, yes: bool) -> None:
    """Returns when the answer is yes.

    Raises:
        CommandError: it was no (not_confirmed), or nobody is there to answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(ExitCode.USAGE, "not_confirmed", "Nobody is there to be asked.", "Add --yes to go ahead.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError(ExitCode.FAILED, "not_confirmed", "Nothing was done.")
