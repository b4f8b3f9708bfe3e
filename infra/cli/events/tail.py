"""`inventiv events tail` and `show`: what happened, newest last; the whole story of one thing.

`tail --json` prints one envelope per line; `show --json` prints one document.
"""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.output import JsonFlag, paint, print_json, print_line
from infra.client import PATIENCE_S, Api, UnreachableError

LAST_EVENTS = 1000
PAGE_EVENTS = 500
RECONNECT_PAUSE_S = 0.5


def register(group: typer.Typer) -> None:
    group.command("tail", help="Print the newest events; --follow goes on with what comes.")(tail)
    group.command("show", help="Print the whole story of one thing.")(show)


def tail(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends.")] = False,
    last: Annotated[int, typer.Option(min=0, help="How many of the events that are there.")] = LAST_EVENTS,
    event_type: Annotated[str, typer.Option("--type", help="Only this type, e.g. InstanceReady.")] = "",
    start: Annotated[int | None, typer.Option("--from", min=1, help="From this position on, all of them.")] = None,
    as_json: JsonFlag = False,
) -> None:
    show_one = print_line if as_json else _print_envelope
    with calling.calling() as api:
        position = 0
        found = _newest(api, last, event_type) if start is None else _pages(api, start - 1, event_type)
        for envelope in found:
            position = envelope["position"]
            show_one(envelope)
        if follow:
            for envelope in _live(api, max(position, (start or 1) - 1), event_type):
                show_one(envelope)


def show(
    aggregate: Annotated[str, typer.Argument(help="Its kind, e.g. instance, deployment, api_key.")],
    aggregate_id: Annotated[str, typer.Argument(help="Its id.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        envelopes = list(_story(api, f"/events/{aggregate}/{aggregate_id}"))
    if as_json:
        print_json({"aggregate": aggregate, "id": aggregate_id, "events": envelopes})
        return
    for envelope in envelopes:
        _print_envelope(envelope)
        print(f"         {msgspec.json.encode(envelope['data']).decode()}")


def _newest(api: Api, last: int, event_type: str) -> list[dict[str, Any]]:
    """The last `last` events, oldest first; asked for in pages from the end."""
    found: list[dict[str, Any]] = []
    before = None
    while len(found) < last:
        limit = min(PAGE_EVENTS, last - len(found))
        query = {"last": "true", "before": before, "limit": limit, "type": event_type or None}
        page = api.get("/events", all=_scope(api), **query)["events"]
        found = page + found
        if len(page) < limit:
            break
        before = page[0]["position"]
    return found


def _scope(api: Api) -> str | None:
    """The administrator sees every organisation's events; an API key, those of its own."""
    return "true" if api.is_admin else None


def _story(api: Api, path: str) -> Iterator[dict[str, Any]]:
    after: int | None = 0
    while after is not None:
        page = api.get(path, after=after, all=_scope(api))
        yield from page["events"]
        after = page["next"]


def _pages(api: Api, after: int, event_type: str) -> Iterator[dict[str, Any]]:
    """Everything after a position, page by page, up to the end as it is when reached."""
    following: int | None = after
    while following is not None:
        query = {"after": following, "limit": PAGE_EVENTS, "type": event_type or None}
        page = api.get("/events", all=_scope(api), **query)
        yield from page["events"]
        following = page["next"]


def _live(api: Api, after: int, event_type: str) -> Iterator[dict[str, Any]]:
    """What comes after a position, for ever, through restarts of the platform (each bounded by the patience)."""
    silent_since = time.monotonic()
    while True:
        try:
            for name, data in api.server_sent_events("/events/stream", after=after, all=_scope(api)):
                silent_since = time.monotonic()
                if name == "hello":
                    continue
                envelope = msgspec.json.decode(data)
                after = envelope["position"]
                if event_type in {"", envelope["type"]}:
                    yield envelope
        except UnreachableError:
            if time.monotonic() - silent_since > PATIENCE_S:
                raise
        time.sleep(RECONNECT_PAUSE_S)


def _print_envelope(envelope: dict[str, Any]) -> None:
    at = str(envelope["at"])[:19].replace("T", " ")
    who = f"{envelope['aggregate']}/{envelope['id']} v{envelope['version']}"
    print(
        f"{envelope['position']:>7}  {paint(at, 'dim')}  {paint(envelope['type'], 'bold'):<24}  {who}"
        f"  {paint(envelope['actor'], 'dim')}",
        flush=True,
    )
