"""`inventiv events why ID`: the tree of causes and effects in which something happened.

    an event id, a position ──> its intent        an aggregate's id ──> every intent that touched it
    a correlation           ──> itself

What was asked for is marked; times are seconds since the intent began.
"""

import importlib
from collections import Counter
from typing import Annotated, Any

import typer

from infra.cli import calling
from infra.cli.events.reading import Shown, read_newest, read_pages, scope, shown
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_json, say
from infra.client import Api

MAX_STORIES = 10
"""Of an aggregate that many intents touched, the newest."""
NAMED_AGGREGATES = 4
MAX_STORY_EVENTS = 5000
MAX_AGGREGATE_EVENTS = 5000


def register(group: typer.Typer) -> None:
    group.command("why", help="Print what led to an event, and what it led to, as a tree.")(why)


def why(
    asked: Annotated[str, typer.Argument(metavar="ID", help="An event id, a position, an aggregate's id, an intent.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    causes: Any = importlib.import_module("infra.replay.causes")
    with calling.calling() as api:
        found = _find(api, asked)
        correlations = list(dict.fromkeys(event.envelope.correlation for event in found))
        stories = [_story(api, correlation, found) for correlation in correlations[-MAX_STORIES:]]
    marked = set() if correlations == [asked] else {event.envelope.event_id for event in found}
    told = [causes.story_of(events, marked) for events in stories if events]
    if as_json:
        print_json({"asked": asked, "stories": told, "stories_left_out": len(correlations) - len(stories)})
        return
    if len(correlations) > len(stories):
        say(f"{len(correlations)} intents touched it; the newest {len(stories)} follow.")
    for number, story in enumerate(told):
        if number:
            print()
        _print(causes, story)


def _find(api: Api, asked: str) -> list[Shown]:
    """What the words name, the narrowest meaning first.

    Raises:
        CommandError: nothing in sight has this name.
    """
    if asked.isascii() and asked.isdigit():
        page = api.get("/events", after=int(asked) - 1, limit=1, all=scope(api))["events"] if int(asked) else []
        found = [event for event in page if event["position"] == int(asked)]
    else:
        found = (
            read_newest(api, 1, event_id=asked)
            or read_newest(api, 1, correlation=asked)
            or read_newest(api, MAX_AGGREGATE_EVENTS, id=asked)
        )
    if not found:
        message = f"No event, aggregate or intent is called {asked!r} in what you may see."
        cure = "`inventiv events tail` lists positions and ids; `--json` shows every field."
        raise CommandError(ExitCode.NOT_FOUND, "nothing_found", message, cure)
    return [shown(event) for event in found]


def _story(api: Api, correlation: str, found: list[Shown]) -> list[Shown]:
    if not correlation:  # an event without an intent is a story by itself
        return [event for event in found if not event.envelope.correlation]
    events = []
    for event in read_pages(api, correlation=correlation):
        events.append(shown(event))
        if len(events) == MAX_STORY_EVENTS:
            say(f"Intent {correlation} has more than {MAX_STORY_EVENTS:,} events; these are its first.")
            break
    return events


def _print(causes: Any, story: Any) -> None:
    began = f"{story.began_at:%Y-%m-%d %H:%M:%S} UTC"
    print(f"{paint('Intent ' + (story.correlation or '(none)'), 'bold')}  {began}, {story.took_s:.1f} s")
    print(paint(f"{story.events} events on {_things(story.aggregates)}", "dim"))
    rows = list(causes.rows_of(story.roots))
    words = "  <── asked" if sum(effect.asked for _, effect in rows) == 1 else "  *"
    for branches, effect in rows:
        mark = paint(words, "yellow") if effect.asked else ""
        elsewhere = f"  caused by {effect.cause}" if effect.cause and not branches else ""
        print(
            f"{branches}{paint(effect.type, 'bold')}  +{effect.after_s:.1f} s  {effect.aggregate}/{effect.id}"
            f" v{effect.version}  {paint(effect.actor, 'dim')}  #{effect.position}{elsewhere}{mark}"
        )


def _things(touched: Any) -> str:
    """Each by its id while they are few; else how many there are of each kind."""
    if len(touched) <= NAMED_AGGREGATES:
        return ", ".join(f"{one.aggregate}/{one.id} ({one.events})" for one in touched)
    kinds = Counter(one.aggregate for one in touched)
    return f"{len(touched)} things: " + ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
