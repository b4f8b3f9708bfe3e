"""Looks at provider accounts that somebody wants now: asks, waits for the answers, and says what they were.

POST (an intent for each account) ──> GET /provider_accounts until none is pending ──> a line for each
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, paint, print_json, say
from infra.client import Api

WAIT_S = 180.0
"""A look at an account is given up after 120 s by the platform itself."""
POLL_S = 0.5
PAGE = "/provider_accounts"

Side = Literal["reconciliation", "catalogue"]


def trigger(api: Api, path: str, provider: str) -> list[str]:
    """Asks; the providers whose accounts are looked at.

    Raises:
        CommandError: there is no account to look at.
    """
    triggered = api.post(path, provider=provider or None)
    providers: list[str] = triggered["providers"]
    if not providers:
        message = "No provider has credentials, so there is nothing to look at."
        cure = "`inventiv provider ls` shows what is missing; `inventiv provider credentials CODE` gives it."
        raise CommandError(ExitCode.CONFLICT, "provider_not_configured", message, cure)
    return providers


def wait_for(api: Api, providers: Sequence[str], side: Side) -> list[dict[str, Any]]:
    """The accounts of these providers, when none is pending any more.

    Raises:
        CommandError: they still are after WAIT_S.
    """
    deadline = time.monotonic() + WAIT_S
    told: set[str] = set()
    while True:
        accounts = accounts_of(api, providers)
        pending = [one["provider_code"] for one in accounts if one[side]["requested_at"]]
        for code in sorted(set(providers) - set(pending) - told):
            told.add(code)
            say(f"  {code}: {'looked at' if side == 'reconciliation' else 'asked'}")
        if not pending:
            return accounts
        if time.monotonic() > deadline:
            message = f"No answer yet for {', '.join(pending)} after {WAIT_S:g} s."
            cure = "It goes on by itself: `inventiv provider ls`. Do the handlers run? `inventiv status`."
            raise CommandError(ExitCode.TIMED_OUT, "timed_out", message, cure)
        time.sleep(POLL_S)


def accounts_of(api: Api, providers: Sequence[str]) -> list[dict[str, Any]]:
    return [one for one in api.get(PAGE) if one["provider_code"] in providers]


def tell(accounts: Sequence[dict[str, Any]], side: Side, words: dict[str, str], *, as_json: bool) -> None:
    """One document, or a line for each account.

    Raises:
        CommandError: the provider of one of them could not be asked.
    """
    failed = [one for one in accounts if one[side]["failure_kind"]]
    if as_json:
        print_json({"accounts": list(accounts)})
    for one in accounts:
        if not as_json and one not in failed:
            say(f"{paint('✓', 'green', stderr=True)} {one['provider_name']}: {words[one['provider_code']]}")
    if failed and not as_json:
        said = "; ".join(
            f"{one['provider_name']}: {one[side]['failure']} ({one[side]['failure_kind']})" for one in failed
        )
        cure = "These are the provider's own words; `inventiv provider ls` shows how each account is."
        raise CommandError(ExitCode.FAILED, "provider_failed", said, cure)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


class Look(NamedTuple):
    """What an account can be asked for.

    Attributes:
        part: of an account's state, where the answer stands.
        says: a sentence with {} for the providers.
        found: that part in words.
    """

    path: str
    part: Side
    says: str
    found: Callable[[Any], str]


def ask(look: Look, provider: str, *, wait: bool, as_json: bool) -> None:
    """Asks for it, and tells what was found; without `wait`, that it was asked for."""
    with calling() as api:
        providers = trigger(api, look.path, provider)
        say(look.says.format(", ".join(providers)))
        accounts = wait_for(api, providers, look.part) if wait else accounts_of(api, providers)
    asked = dict.fromkeys(providers, "asked")
    words = {one["provider_code"]: look.found(one[look.part]) for one in accounts} if wait else asked
    tell(accounts, look.part, words, as_json=as_json)
