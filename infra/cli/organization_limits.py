"""`inventiv org limits`: how much of the platform one organisation may use; changed by platform administrators."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json
from infra.client import Api

EUR_MICROS = 1_000_000
_FIELDS_OF = {
    "requests-per-minute": "requests_per_minute",
    "tokens-per-minute": "tokens_per_minute",
    "concurrency": "concurrency",
    "spend-limit": "spend_limit_eur_micros_per_month",
    "max-tokens": "max_completion_tokens",
}
"""What --lift takes -> the API's field."""
_SHOWN = {
    "slug": "SLUG",
    "requests_per_minute": "REQUESTS/MIN",
    "tokens_per_minute": "TOKENS/MIN",
    "concurrency": "AT A TIME",
    "spend_limit": "SPEND/MONTH",
    "max_completion_tokens": "TOKENS/ANSWER",
}

Wanted = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id; the slug does for your own.")]
Count = int | None


def organization_limits(
    wanted: Wanted,
    *,
    requests_per_minute: Annotated[Count, typer.Option("--requests-per-minute", min=1)] = None,
    tokens_per_minute: Annotated[
        Count, typer.Option("--tokens-per-minute", min=1, help="Prompt and completion together.")
    ] = None,
    concurrency: Annotated[Count, typer.Option("--concurrency", min=1, help="Requests at the same time.")] = None,
    spend_limit_eur: Annotated[
        float | None, typer.Option("--spend-limit-eur", help="In a calendar month, UTC.")
    ] = None,
    max_tokens: Annotated[
        Count, typer.Option("--max-tokens", min=1, help="Of one answer; who asks for more is given this many.")
    ] = None,
    lift: Annotated[
        list[str] | None, typer.Option("--lift", help=f"Take a limit away: {', '.join(_FIELDS_OF)}; repeat for more.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the limits, or change those that are named."""
    said = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrency": concurrency,
        "spend_limit_eur_micros_per_month": None if spend_limit_eur is None else round(spend_limit_eur * EUR_MICROS),
        "max_completion_tokens": max_tokens,
    }
    changes = {name: limit for name, limit in said.items() if limit is not None} | _lifted(lift or [])
    with calling() as api:
        found = _changed(api, wanted, changes) if changes else _shown(api, wanted)
    if as_json:
        print_json({name: found[name] for name in ("id", "name", "slug", "limits")})
    else:
        _tell(found)


def _lifted(names: list[str]) -> dict[str, None]:
    if unknown := [name for name in names if name not in _FIELDS_OF]:
        message = f"{unknown[0]} is no limit; there are {', '.join(_FIELDS_OF)}."
        raise CommandError(ExitCode.USAGE, "unknown_restriction", message)
    return {_FIELDS_OF[name]: None for name in names}


def _shown(api: Api, wanted: str) -> Mapping[str, Any]:
    """Of one's own organisation as every member sees it, of others as the platform does."""
    own = [one for one in api.get("/organizations") if wanted in (one["id"], one["slug"])]
    found: Mapping[str, Any] = own[0] if own else api.get(f"/organizations/{wanted}/limits")
    return found


def _changed(api: Api, wanted: str, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    own = [one["id"] for one in api.get("/organizations") if one["slug"] == wanted]
    changed: Mapping[str, Any] = api.patch(f"/organizations/{own[0] if own else wanted}/limits", changes)
    return changed


def _tell(found: Mapping[str, Any]) -> None:
    limits = found["limits"]
    spend = limits["spend_limit_eur_micros_per_month"]
    shown = {name: "no limit" if limit is None else limit for name, limit in limits.items()}
    shown["spend_limit"] = "no limit" if spend is None else f"{spend / EUR_MICROS:.2f} EUR"
    print_fields({**shown, "slug": found["slug"]}, _SHOWN)
