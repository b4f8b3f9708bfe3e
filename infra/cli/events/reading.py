"""Events through the API, for every command here that reads: pages of envelopes, and envelopes as the domain's struct.

An administrator sees every organisation's events, an API key those of its own; nothing here can ask for more.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from domain.message import Envelope
from infra.client import Api

PAGE_EVENTS = 500


class Shown(msgspec.Struct, frozen=True):
    """An event as the API shows it: its envelope and where it lies."""

    position: int
    envelope: Envelope


def scope(api: Api) -> str | None:
    """The value of `all`: the administrator sees every organisation's events; an API key, those of its own."""
    return "true" if api.is_admin else None


def read_pages(api: Api, *, after: int = 0, **filters: str | int | None) -> Iterator[dict[str, Any]]:
    """Everything after a position, page by page, up to the end as it is when reached; empty filters do not restrict."""
    following: int | None = after
    given = {name: value or None for name, value in filters.items()}
    while following is not None:  # ends with the log
        page = api.get("/events", all=scope(api), after=following, limit=PAGE_EVENTS, **given)
        yield from page["events"]
        following = page["next"]


def read_newest(api: Api, most: int, **filters: str | int | None) -> list[dict[str, Any]]:
    """The last `most` events, oldest first; asked for in pages from the end."""
    found: list[dict[str, Any]] = []
    before = None
    given = {name: value or None for name, value in filters.items()}
    while len(found) < most:
        limit = min(PAGE_EVENTS, most - len(found))
        page = api.get("/events", all=scope(api), last="true", before=before, limit=limit, **given)["events"]
        found = page + found
        if len(page) < limit:
            break
        before = page[0]["position"]
    return found


def read_history(api: Api, aggregate: str, aggregate_id: str) -> Iterator[dict[str, Any]]:
    """One aggregate's whole story.

    Raises:
        ApiError: 404, there is no such aggregate in sight.
    """
    after: int | None = 0
    while after is not None:  # ends with the aggregate's story
        page = api.get(f"/events/{aggregate}/{aggregate_id}", after=after, all=scope(api))
        yield from page["events"]
        after = page["next"]


def shown(event: dict[str, Any]) -> Shown:
    """The API's JSON as the domain's envelope."""
    return Shown(event["position"], msgspec.json.decode(msgspec.json.encode(event), type=Envelope))
