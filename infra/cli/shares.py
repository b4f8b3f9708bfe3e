"""`inventiv share ls|grant|approve|refuse|pause|resume|revoke|activate|deactivate`: who else may call your offerings.

A share is named by its id. What your organisation was given is listed by `ls --taken`.
"""

from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.offerings import FlagName, PriceIn, PriceOut, price_body, price_text, say_missing
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say

_COLUMNS = {
    "id": "ID",
    "identifier": "OFFERING",
    "other": "ORGANISATION",
    "status": "STATUS",
    "works": "OPEN",
    "price": "EUR IN/OUT",
    "ends_at": "UNTIL",
}

ShareId = Annotated[str, typer.Argument(help="The share's id, from `inventiv share ls`.")]
From = Annotated[str | None, typer.Option("--from", help="ISO time with offset; now, if not said.")]
Until = Annotated[str | None, typer.Option("--until", help="ISO time with offset; without end, if not said.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Who else may call your offerings.", no_args_is_help=True)
    group.command("ls", help="List what you give and are asked for.")(list_shares)
    group.command("grant", help="Let another organisation call an offering.")(grant)
    group.command("approve", help="Give what was asked for.")(approve)
    group.command("refuse", help="Do not give what was asked for; they may ask again.")(refuse)
    group.command("pause", help="Stop a share for now.")(pause)
    group.command("resume", help="Go on with a paused share.")(resume)
    group.command("revoke", help="End a share at once.")(revoke)
    group.command("activate", help="Set a flag; a share opens nothing before both are set.")(activate)
    group.command("deactivate", help="Clear a flag; the share opens nothing any more.")(deactivate)
    app.add_typer(group, name="share")


def list_shares(
    *,
    taken: Annotated[bool, typer.Option("--taken", help="What you were given and asked for, instead.")] = False,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        shares = api.get("/shares", side="consumer" if taken else "provider")
    if as_json:
        print_json({"shares": shares})
        return
    given = "Nobody has a share of your offerings; `inventiv share grant OFFERING ORGANISATION` gives one."
    asked = "Nothing is shared with you; `inventiv access ls` shows what can be asked for."
    print_table([_row(share) for share in shares], _COLUMNS, empty=asked if taken else given)


def _row(share: dict[str, Any]) -> dict[str, Any]:
    other = share["provider" if share["side"] == "consumer" else "consumer"]
    price = "the offering's" if share["price"] is None else price_text(share["price"])
    return {**share, "other": other["slug"] or other["id"], "works": share["gives_access"], "price": price}


def grant(
    offering: Annotated[str, typer.Argument(help="The offering's code, from `inventiv offering ls`.")],
    organization: Annotated[str, typer.Argument(help="The other organisation's slug or id.")],
    *,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    starts: From = None,
    until: Until = None,
    as_json: JsonFlag = False,
) -> None:
    body = {"offering": offering, "consumer": organization, **_terms(price_in, price_out, starts, until)}
    with calling() as api:
        share = api.post("/shares", body)
    _tell(share, as_json=as_json)


def approve(
    share_id: ShareId,
    *,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    starts: From = None,
    until: Until = None,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        status = api.get(f"/shares/{share_id}")["status"]
        if status != "requested":
            message = f"Nobody waits for an answer here: share {share_id} is {status}."
            raise CommandError(
                ExitCode.CONFLICT, "access_not_requested", message, "`inventiv share ls` lists requests."
            )
        share = api.put(f"/shares/{share_id}", _terms(price_in, price_out, starts, until))
    _tell(share, as_json=as_json)


def _terms(price_in: str | None, price_out: str | None, starts: str | None, until: str | None) -> dict[str, Any]:
    fields = {"price": price_body(price_in, price_out) or None, "starts_at": starts, "ends_at": until}
    return {field: value for field, value in fields.items() if value is not None}


def refuse(share_id: ShareId, *, as_json: JsonFlag = False) -> None:
    _step(share_id, "refuse", as_json=as_json)


def pause(share_id: ShareId, *, as_json: JsonFlag = False) -> None:
    _step(share_id, "pause", as_json=as_json)


def resume(share_id: ShareId, *, as_json: JsonFlag = False) -> None:
    _step(share_id, "resume", as_json=as_json)


def revoke(share_id: ShareId, *, as_json: JsonFlag = False) -> None:
    _step(share_id, "revoke", as_json=as_json)


def _step(share_id: str, step: str, *, as_json: bool) -> None:
    with calling() as api:
        share = api.post(f"/shares/{share_id}/{step}")
    _tell(share, as_json=as_json)


def activate(share_id: ShareId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(share_id, flag.value, value=True, as_json=as_json)


def deactivate(share_id: ShareId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(share_id, flag.value, value=False, as_json=as_json)


def _change_flag(share_id: str, flag: str, *, value: bool, as_json: bool) -> None:
    with calling() as api:
        share = api.put(f"/shares/{share_id}/activation", {"flag": flag, "value": value})
    _tell(share, as_json=as_json)


def _tell(share: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(share)
        return
    say(f"Share {share['id']} of {share['identifier']} with {share['consumer']['slug']} is {share['status']}.")
    if share["status"] == "active":
        say_missing(share, f"inventiv share activate {share['id']}")
