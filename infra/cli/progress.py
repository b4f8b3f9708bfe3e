"""Progress of long work, on stderr: a bar on a terminal, one line at the end anywhere else, nothing with --json."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from infra.cli.output import say


@contextmanager
def progress(words: str, total: int, *, unit: str = "events", quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Lends `advance(n)`; says at the end how many it were, and how fast.

    Args:
        words: what is being done, e.g. "Verifying".
        total: of units; 0 when unknown.
        unit: plural noun.
        quiet: with --json.
    """
    done, began = 0, time.monotonic()

    def count(n: int) -> None:
        nonlocal done
        done += n

    if quiet:
        yield count
        return
    if sys.stderr.isatty() and total > 0:
        with typer.progressbar(length=total, label=words, file=sys.stderr) as bar:

            def advance(n: int) -> None:
                count(n)
                bar.update(n)

            yield advance
    else:
        yield count
    took_s = max(time.monotonic() - began, 1e-9)
    say(f"{words}: {done:,} {unit} in {took_s:.1f} s ({done / took_s:,.0f}/s).")
