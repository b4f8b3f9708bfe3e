"""What commands say, and where: data on stdout, words on stderr, one exit code for each kind of end.

    --json: one document on stdout        otherwise: a table or a few lines        failures: what, why, what to do

Scripts may rely on it: field names are the API's, colours appear on a terminal only (and never with NO_COLOR or a dumb
one), and a failure with --json is a document too, {"error", "message", "exit_code"}.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Any

import msgspec
import typer

from infra.environment import wants_colour


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    NO_CAPACITY = 6
    UNREACHABLE = 8
    TIMED_OUT = 124
    INTERRUPTED = 130


class CommandError(Exception):
    """A command's failure for a person and for a script.

    Attributes:
        exit_code: one of ExitCode.
        code: the platform's word for it, e.g. "instance_not_found".
        cure: what to do now; may be empty.
    """

    def __init__(self, exit_code: ExitCode, code: str, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.message = message
        self.cure = cure


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def paint(text: str, colour: str, *, stderr: bool = False) -> str:
    stream = sys.stderr if stderr else sys.stdout
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if stream.isatty() and wants_colour() else text


def say(words: str) -> None:
    """Progress and advice, on stderr."""
    print(words, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode(), flush=True)


def print_line(document: Any) -> None:
    """One document on one line, for commands that print many."""
    print(msgspec.json.encode(document).decode(), flush=True)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """Aligned columns without frames, so that cut and awk can read them.

    Args:
        rows: the API's objects.
        columns: field -> heading.
        empty: said on stderr instead of an empty table.
    """
    if not rows:
        say(empty)
        return
    lines = [[_cell(row.get(field)) for field in columns] for row in rows]
    widths = [max(len(line[n]) for line in (list(columns.values()), *lines)) for n in range(len(columns))]
    print(paint(_aligned(columns.values(), widths), "bold"))
    for line in lines:
        print(_aligned(line, widths))


def print_fields(item: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """One object as `heading  value` lines; fields without value are left out."""
    width = max(len(heading) for heading in fields.values())
    for field, heading in fields.items():
        if item.get(field) not in {None, ""}:
            print(f"{heading:<{width}}  {_cell(item[field])}")


def age(moment: str | None, *, now: datetime | None = None) -> str:
    """How long ago an ISO moment was, in one unit: "12 s", "3 min", "5 h", "2 d"; empty for none."""
    if not moment:
        return ""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit}"
    return f"{max(0, int(seconds))} s"


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if not isinstance(value, (list, dict)) else msgspec.json.encode(value).decode()
