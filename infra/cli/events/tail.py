"""`inventiv events tail` and `show`: what happened, newest last; the whole story of one thing.

    position  time  type  aggregate/id  version  actor  its own fields, shortened

`tail --json` prints one envelope per line; `show --json` prints one document.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.events.reading import read_history, read_newest, read_pages, scope
from infra.cli.output import JsonFlag, paint, print_json, print_line, say
from infra.client import PATIENCE_S, Api, UnreachableError

LAST_EVENTS = 1000
RECONNECT_PAUSE_S = 0.5
SUMMARY_CHARACTERS = 100
VALUE_CHARACTERS = 40
TYPE_WIDTH = 24


def register(group: typer.Typer) -> None:
    group.command("tail", help="Print the newest events; --follow goes on with what comes.")(tail)
    group.command("show", help="Print the whole story of one thing.")(show)


def tail(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends.")] = False,
    last: Annotated[int, typer.Option(min=0, help="How many of the events that are there.")] = LAST_EVENTS,
    event_type: Annotated[str, typer.Option("--type", help="Only this type, e.g. InstanceReady.")] = "",
    aggregate: Annotated[str, typer.Option(help="Only of this kind of thing, e.g. instance.")] = "",
    organization: Annotated[str, typer.Option(help="Only of this organisation's id.")] = "",
    correlation: Annotated[str, typer.Option(help="Only what this intent led to.")] = "",
    start: Annotated[int | None, typer.Option("--from", min=1, help="From this position on, all of them.")] = None,
    as_json: JsonFlag = False,
) -> None:
    show_one = print_line if as_json else _print_envelope
    filters = {"type": event_type, "aggregate": aggregate, "organization": organization, "correlation": correlation}
    with calling.calling() as api:
        position = (start or 1) - 1
        nothing = True
        found = read_newest(api, last, **filters) if start is None else read_pages(api, after=position, **filters)
        for envelope in found:
            position, nothing = envelope["position"], False
            show_one(envelope)
        if follow:
            for envelope in _live(api, position, filters):
                show_one(envelope)
        elif nothing and last:
            say("No such event yet. `inventiv events tail --follow` waits for the next one.")


def show(
    aggregate: Annotated[str, typer.Argument(help="Its kind, e.g. instance, deployment, api_key.")],
    aggregate_id: Annotated[str, typer.Argument(help="Its id.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        envelopes = list(read_history(api, aggregate, aggregate_id))
    if as_json:
        print_json({"aggregate": aggregate, "id": aggregate_id, "events": envelopes})
        return
    for envelope in envelopes:
        _print_envelope(envelope, summary=False)
        print(f"         {msgspec.json.encode(envelope['data']).decode()}")


def _live(api: Api, after: int, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What comes after a position, for ever, through restarts of the platform (each bounded by the patience)."""
    silent_since = time.monotonic()
    while True:
        try:
            for name, data in api.server_sent_events("/events/stream", after=after, all=scope(api)):
                silent_since = time.monotonic()
                if name == "hello":
                    continue
                envelope = msgspec.json.decode(data)
                after = envelope["position"]
                if all(not wanted or envelope[field] == wanted for field, wanted in filters.items()):
                    yield envelope
        except UnreachableError:
            if time.monotonic() - silent_since > PATIENCE_S:
                raise
        time.sleep(RECONNECT_PAUSE_S)


def _print_envelope(envelope: dict[str, Any], *, summary: bool = True) -> None:
    at = str(envelope["at"])[:19].replace("T", " ")
    who = f"{envelope['aggregate']}/{envelope['id']} v{envelope['version']}"
    event_type = f"{envelope['type']:<{TYPE_WIDTH}}"
    words = f"  {summary_of(envelope['data'])}" if summary else ""
    print(
        f"{envelope['position']:>7}  {paint(at, 'dim')}  {paint(event_type, 'bold')}  {who}"
        f"  {paint(envelope['actor'], 'dim')}{words}".rstrip(),
        flush=True,
    )


def summary_of(data: Mapping[str, Any]) -> str:
    """`field=value` of what is not empty, shortened."""
    words = " ".join(f"{field}={_short(value)}" for field, value in data.items() if value or value == 0)
    return words if len(words) <= SUMMARY_CHARACTERS else words[: SUMMARY_CHARACTERS - 1] + "…"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"
