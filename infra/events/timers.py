"""Durable wake-ups, kept by the server: whoever schedules may be gone when the time comes.

    schedule(key, at) ──> timer.<key> ── at its time, up to a quarter of a second late ──> due.<key> ──> a consumer

One timer a key: scheduling again moves it. It may wake somebody for nothing (the state moved on meanwhile), so the one
who wakes looks at the state first; and it carries no facts, only a reason to look.
"""

from datetime import UTC, datetime

import msgspec
import nats.errors
from nats.aio.client import Client

from infra.events.port import LogUnavailableError
from infra.events.streams import TIMERS

TIMEOUT_S = 5.0
DUE_KEPT = "168h"
"""A handler that was away for a week has other problems than a late wake-up."""


class _Reply(msgspec.Struct):
    class Fault(msgspec.Struct):
        description: str = ""

    error: Fault | None = None


class Timers:
    """Schedules and cancels wake-ups.

    Args:
        nc: from connect_writer.
    """

    def __init__(self, nc: Client, stream: str = TIMERS) -> None:
        self._nc = nc
        self._purge_api = f"$JS.API.STREAM.PURGE.{stream}"

    async def schedule(self, key: str, at: datetime, body: bytes = b"") -> None:
        """Has `due.<key>` published at the given time, or at once when it has passed; replaces the key's timer.

        Args:
            key: subject tokens, e.g. "instance.<id>.startup"; no wildcards, no personal data.
            at: with a time zone.
            body: handed over as it is.

        Raises:
            ValueError: `at` has no time zone, or the key is no literal subject.
            LogUnavailableError: not confirmed; schedule again, it replaces itself.
        """
        if at.tzinfo is None:
            raise ValueError("a wake-up needs a time with its zone")
        headers = {
            "Nats-Schedule": f"@at {at.astimezone(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')}",
            "Nats-Schedule-Target": f"due.{_checked(key)}",
            "Nats-Schedule-TTL": DUE_KEPT,
        }
        await self._request(f"schedule {key}", f"timer.{key}", body, headers)

    async def cancel(self, key: str) -> None:
        """Forgets the key's timer. What has fired already stays fired.

        Raises:
            ValueError: the key is no literal subject.
            LogUnavailableError: not confirmed; cancel again.
        """
        body = msgspec.json.encode({"filter": f"timer.{_checked(key)}"})
        await self._request(f"cancel {key}", self._purge_api, body, None)

    async def _request(self, operation: str, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        try:
            reply = await self._nc.request(subject, body, headers=headers, timeout=TIMEOUT_S)
        except (nats.errors.Error, OSError) as error:
            raise LogUnavailableError(f"{operation}: {error!r}") from error
        if fault := msgspec.json.decode(reply.data, type=_Reply).error:
            raise LogUnavailableError(f"{operation}: {fault.description}")


def _checked(key: str) -> str:
    if set(key) & set("*> \t\r\n") or "" in key.split("."):
        raise ValueError(f"not a literal key: {key!r}")
    return key
