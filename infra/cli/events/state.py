"""`inventiv events state` and `diff`: one thing as it was at a moment, and what changed between two moments.

    events of the aggregate (through the API) ──folded here with today's laws──> its state, or the fields that differ

Nothing is asked of the platform but the events, so an aggregate can be looked at that no read model shows.
"""

import importlib
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.events.reading import Shown, read_history, shown
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_fields, print_json, say

MAX_VALUE_CHARACTERS = 60
MAX_EVENTS_NAMED = 3

Aggregate = Annotated[str, typer.Argument(help="Its kind, e.g. instance, deployment, api_key.")]
AggregateId = Annotated[str, typer.Argument(help="Its id.")]


def register(group: typer.Typer) -> None:
    group.command("state", help="Print one thing as it is, or as it was (--at).")(state)
    group.command("diff", help="Print what changed in one thing between two moments, and by which events.")(diff)


def state(
    aggregate: Aggregate,
    aggregate_id: AggregateId,
    *,
    at: Annotated[str, typer.Option(help="A position, or a time such as 2026-11-21T10:00:00Z; default: now.")] = "",
    as_json: JsonFlag = False,
) -> None:
    history: Any = importlib.import_module("infra.replay.history")
    decider, until = _decider(aggregate), _until(at)
    events = _events(aggregate, aggregate_id)
    moment = _folded(lambda decode: history.fold_until(decider, decode, events, until))
    if moment.last is None:
        first = events[0]
        message = f"{aggregate}/{aggregate_id} did not exist then; its first event is at position {first.position}."
        raise CommandError(ExitCode.NOT_FOUND, "not_begun", message, f"It began at {_time(first.envelope.at)}.")
    fields = history.as_json(moment.state)
    if as_json:
        print_json({"aggregate": aggregate, "id": aggregate_id, **_moment(moment), "state": fields})
        return
    say(f"{aggregate}/{aggregate_id}, {_words(moment)}; {len(events)} events in all.")
    print_fields({field: _plain(value) for field, value in fields.items()}, {field: field for field in fields})


def diff(
    aggregate: Aggregate,
    aggregate_id: AggregateId,
    *,
    since: Annotated[str, typer.Option("--from", help="A position or a time; the state after it is the first.")],
    until: Annotated[str, typer.Option("--to", help="A position or a time; default: now.")] = "",
    as_json: JsonFlag = False,
) -> None:
    history: Any = importlib.import_module("infra.replay.history")
    decider, start, end = _decider(aggregate), _until(since), _until(until)
    events = _events(aggregate, aggregate_id)
    try:
        before, after, changes = _folded(lambda decode: history.compare(decider, decode, events, start, end))
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "invalid_moments", f"--from and --to: {error}.") from error
    if as_json:
        moments = {"from": _moment(before), "to": _moment(after)}
        found = [_change(change) for change in changes]
        print_json({"aggregate": aggregate, "id": aggregate_id, **moments, "changes": found})
        return
    say(f"{aggregate}/{aggregate_id}, from {_words(before)} to {_words(after)}.")
    if not changes:
        say("Nothing differs.")
    for change in changes:
        print(
            f"{paint(change.field, 'bold')}: {_short(change.before)} -> {_short(change.after)}"
            f"  {paint(_by(change.by), 'dim')}"
        )


def _decider(aggregate: str) -> Any:
    history: Any = importlib.import_module("infra.replay.history")
    try:
        return history.decider_of(aggregate)
    except history.UnknownAggregateError as error:
        cure = f"There are: {', '.join(error.known)}."
        raise CommandError(ExitCode.USAGE, "unknown_aggregate", f"{error}.", cure) from error


def _until(words: str) -> Any:
    history: Any = importlib.import_module("infra.replay.history")
    try:
        return history.read_until(words) if words else None
    except ValueError as error:
        message = f"{words!r} is neither a position nor a time."
        cure = "Say 41, 2026-11-21 or 2026-11-21T10:00:00Z (UTC where it names no zone)."
        raise CommandError(ExitCode.USAGE, "invalid_moment", message, cure) from error


def _events(aggregate: str, aggregate_id: str) -> list[Shown]:
    with calling.calling() as api:
        return [shown(event) for event in read_history(api, aggregate, aggregate_id)]


def _folded(fold: Any) -> Any:
    """What the fold answers, its failures explained."""
    codec: Any = importlib.import_module("infra.events.codec")
    aggregates: Any = importlib.import_module("domain.aggregates")
    history: Any = importlib.import_module("infra.replay.history")
    try:
        return fold(codec.Codec(aggregates.AGGREGATES).decode_event)
    except (codec.UnknownEventError, msgspec.ValidationError) as error:
        message = f"This release cannot read it: {error}."
        raise CommandError(ExitCode.FAILED, "unknown_event", message, "Use the release that wrote it.") from error
    except history.MissingVersionError as error:
        cure = "`inventiv events verify` tells how far the damage goes."
        raise CommandError(ExitCode.FAILED, "log_damaged", f"{error}.", cure) from error


def _moment(moment: Any) -> dict[str, Any]:
    last = moment.last
    return {
        "version": moment.version,
        "position": last.position if last else 0,
        "at": last.envelope.at if last else None,
        "type": last.envelope.type if last else None,
    }


def _words(moment: Any) -> str:
    if moment.last is None:
        return "before its first event"
    last = moment.last
    at = _time(last.envelope.at)
    return f"version {moment.version} (position {last.position}, {at}, after {last.envelope.type})"


def _change(change: Any) -> dict[str, Any]:
    by = [{"position": e.position, "type": e.envelope.type, "event_id": e.envelope.event_id} for e in change.by]
    return {"field": change.field, "from": change.before, "to": change.after, "by": by}


def _by(events: Any) -> str:
    named = [f"{event.envelope.type} at {event.position}" for event in events[-MAX_EVENTS_NAMED:]]
    earlier = len(events) - len(named)
    return ", ".join([f"{earlier} earlier events", *named] if earlier else named)


def _plain(value: Any) -> Any:
    """Objects and lists as JSON; empty ones, like other empty values, are not worth a line."""
    return (
        msgspec.json.encode(value).decode()
        if value and isinstance(value, (dict, list))
        else (None if value in ({}, []) else value)
    )


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
