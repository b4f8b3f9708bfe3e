"""`inventiv audit log`, `show`, `state`, `download`: who did what to what, read through the API.

    log        rows in words, newest last, as many filters as wanted
    show       one row: what it changed, what led to it, what it led to
    state      a target as it was at a moment, folded by the platform
    download   the rows of the same filters as a file (CSV or JSON lines); the platform records that they were taken

An administrator sees every organisation's rows unless --organization names one. (`inventiv events` shows the same
events as they are stored.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from infra.cli import calling
from infra.cli.audit_evidence import new_file
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_fields, print_json, print_table, say
from infra.cli.progress import progress
from infra.client import Api, UnreachableError

PAGE_ROWS = 500
MAX_ROWS = 10_000
"""Of one `log`; whoever wants more downloads."""
LAST_ROWS = 50
MAX_VALUE_CHARACTERS = 60

_COLUMNS = {"position": "POSITION", "at": "AT", "who": "WHO", "verb": "DID", "what": "TO", "outcome": "OUTCOME"}

Text = Annotated[str, typer.Option(help="Sought in words, ids, names of things; or a whole username or e-mail.")]
Who = Annotated[str, typer.Option(metavar="KIND[:ID]", help="user:ID, key:ID, worker, system:handlers ...")]
What = Annotated[str, typer.Option(metavar="KIND[/ID]", help="The target, e.g. api_key or instance/0192...")]
Type = Annotated[str, typer.Option("--type", help="Only this event type, e.g. MemberInvited.")]
Action = Annotated[str, typer.Option(help="Only this action code, e.g. ORG_MEMBER_REMOVED.")]
OutcomeFlag = Annotated[Literal["", "success", "failed", "in_progress"], typer.Option(help="How it ended.")]
Intent = Annotated[str, typer.Option(help="Only what this intent led to.")]
Cause = Annotated[str, typer.Option(metavar="EVENT_ID", help="Only what this event led to directly.")]
Since = Annotated[str, typer.Option(metavar="TIME", help="From then on, e.g. 2026-11-21 or 2026-11-21T10:00:00Z.")]
Until = Annotated[str, typer.Option(metavar="TIME", help="Before then.")]
Organization = Annotated[str, typer.Option(metavar="ID", help="Of this organisation, for an administrator.")]
Position = Annotated[int, typer.Argument(min=1, help="As `inventiv audit log` shows it.")]


def register(group: typer.Typer) -> None:
    group.command("log", help="List who did what, newest last.")(log)
    group.command("show", help="Print one row: what it changed, its causes and effects.")(show)
    group.command("state", help="Print a target as it is, or as it was (--at).")(state)
    group.command("download", help="Write the rows of a filter to a file, CSV or JSON lines.")(download)


def log(
    *,
    text: Text = "",
    who: Who = "",
    what: What = "",
    event_type: Type = "",
    action: Action = "",
    outcome: OutcomeFlag = "",
    intent: Intent = "",
    cause: Cause = "",
    since: Since = "",
    until: Until = "",
    organization: Organization = "",
    last: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="How many.")] = LAST_ROWS,
    as_json: JsonFlag = False,
) -> None:
    equal = {"type": event_type, "action": action, "outcome": outcome, "correlation": intent, "cause": cause}
    filters = _filters(who, what, text=text, since=since, until=until, **equal)
    with calling.calling() as api:
        rows = _newest(api, last, {**filters, **_scope(api, organization)})
    if as_json:
        print_json({"rows": rows})
        return
    empty = "No such row. `inventiv audit log` without filters shows the newest ones."
    print_table([_line(row) for row in reversed(rows)], _COLUMNS, empty=empty)


def show(position: Position, *, organization: Organization = "", as_json: JsonFlag = False) -> None:
    with calling.calling() as api:
        row = api.get(f"/audit/{position}", **_scope(api, organization))
    if as_json:
        print_json(row)
        return
    line = _line(row)
    print(paint(f"{line['who']} {row['verb']}: {line['what']}", "bold"))
    print_fields(
        {**row, **line, "target_id": row["target"]["id"], "from": _origin(row)},
        {
            "at": "at",
            "outcome": "outcome",
            "type": "event",
            "event_id": "event id",
            "target_id": "target id",
            "organization_id": "organisation",
            "correlation": "intent",
            "from": "from",
        },
    )
    for change in row["changes"] or ():
        print(f"  {paint(change['field'], 'bold')}: {_short(change['before'])} -> {_short(change['after'])}")
    if row["changes_left_out"]:
        say(f"What it changed is not told: {row['changes_left_out']}.")
    for heading, links in (("because of", row["causes"]), ("led to", row["effects"])):
        for link in links:
            print(f"{heading}  {link['position']}  {link['verb']}  {link['aggregate']}/{link['id']}")
    if row["more_effects"]:
        say(f"It led to more: inventiv audit log --cause {row['event_id']}")


def state(
    aggregate: Annotated[str, typer.Argument(help="Its kind, e.g. instance, organization, api_key.")],
    aggregate_id: Annotated[str, typer.Argument(help="Its id.")],
    *,
    at: Annotated[str, typer.Option(help="A position, or a time such as 2026-11-21T10:00:00Z; default: now.")] = "",
    organization: Organization = "",
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        asked = {"aggregate": aggregate, "id": aggregate_id, "at": at or None}
        found = api.get("/audit/state", **asked, **_scope(api, organization))
    if as_json:
        print_json(found)
        return
    say(f"{aggregate}/{aggregate_id}, version {found['version']} (position {found['position']}, {found['at']}).")
    fields = {field: None if value in ([], {}, None) else str(value) for field, value in found["state"].items()}
    print_fields(fields, {field: field for field in fields})


def download(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file.")],
    *,
    file_format: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="One line a row.")] = "csv",
    text: Text = "",
    who: Who = "",
    what: What = "",
    event_type: Type = "",
    action: Action = "",
    outcome: OutcomeFlag = "",
    intent: Intent = "",
    cause: Cause = "",
    since: Since = "",
    until: Until = "",
    organization: Organization = "",
    as_json: JsonFlag = False,
) -> None:
    equal = {"type": event_type, "action": action, "outcome": outcome, "correlation": intent, "cause": cause}
    filters = _filters(who, what, text=text, since=since, until=until, **equal)
    size = 0
    with calling.calling() as api, new_file(out) as file:
        wanted = {**filters, **_scope(api, organization), "format": file_format}
        with progress("Downloaded", 0, unit="bytes", quiet=as_json) as advance:
            for chunk in _chunks(api, wanted):
                file.write(chunk)
                size += len(chunk)
                advance(len(chunk))
    if as_json:
        print_json({"file": str(out), "format": file_format, "bytes": size})
    else:
        say(f"{out} holds what was filtered. That it was taken stands in the log, too.")


def _chunks(api: Api, wanted: dict[str, str]) -> Iterator[bytes]:
    """The file's bytes; when they break off, the file is not kept, for half of an export looks like a whole one."""
    began = False
    try:
        for chunk in api.chunks("/audit/export", **wanted):
            began = True
            yield chunk
    except UnreachableError as error:
        if not began:
            raise
        message = "The download broke off; no file was kept."
        raise CommandError(ExitCode.UNREACHABLE, "download_broken_off", message, "Run it again.") from error


def _filters(who: str, what: str, **others: str) -> dict[str, str]:
    """The API's query parameters; empty ones do not restrict."""
    kind, _, actor_id = who.partition(":")
    if kind not in {"", "user", "key", "worker", "system"}:
        cure = "Say user, key, worker or system, and after a colon its id, if it shall be one alone."
        raise CommandError(ExitCode.USAGE, "invalid_actor", f"{who!r} is nobody who acts.", cure)
    aggregate, _, aggregate_id = what.partition("/")
    given = {"actor_kind": kind, "actor_id": actor_id, "aggregate": aggregate, "id": aggregate_id, **others}
    return {name: value for name, value in given.items() if value}


def _scope(api: Api, organization: str) -> dict[str, str]:
    if organization:
        return {"organization": organization}
    return {"all": "true"} if api.is_admin else {}


def _newest(api: Api, most: int, filters: dict[str, str]) -> list[dict[str, Any]]:
    """Newest first, asked for in pages."""
    rows: list[dict[str, Any]] = []
    before: int | None = None
    while len(rows) < most:  # bounded: each page moves on, and the last one says so
        limit = min(PAGE_ROWS, most - len(rows))
        page = api.get("/audit", **filters, before=before, limit=limit, changes="false")
        rows += page["rows"]
        before = page["older"]
        if before is None:
            break
    return rows


def _line(row: dict[str, Any]) -> dict[str, Any]:
    actor, target = row["actor"], row["target"]
    what = f"{target['kind']} {target['label'] or target['id']}"
    if row["type"] == "AttemptDenied":
        what = f"{row['data']['action']} ({row['data']['code']})"
    return {
        **row,
        "at": str(row["at"])[:19].replace("T", " "),
        "who": actor["name"] or f"{actor['kind']}:{actor['id']}",
        "what": what,
    }


def _origin(row: dict[str, Any]) -> str:
    origin = row["origin"]
    if origin is None:
        return ""
    seen = [f"{origin['kind']} {origin['id']}", origin["ip"], origin["browser"]]
    return ", ".join(one for one in seen if one)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"
