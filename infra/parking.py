"""Work that a reaction gave up on: one subject of PARKED for each pair of reaction and aggregate.

    parked ──retry──> retrying ──done──> (removed)          retry wakes the handlers by itself: they follow this stream
       └────skip────> skipped ──a newer event──> (looked at again, removed)

The newest message of the subject is the truth, and each change expects the one it was made from, so two people who
press two buttons do not both win. The surprising rule: what is parked is a wake-up, not a message. Later events of the
same aggregate are acknowledged while it is parked, because a retry loads the whole truth anyway.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from domain.ports import Clock
from infra.events.reads import ApiError, PageReader, Stored, leader_last
from infra.events.streams import PARKED
from web.services import Parked

TIMEOUT_S = 2.0
MAX_LISTED = 1000
MAX_CHANGES = 5
"""Tries to park one thing; each lost race is a person's press of a button."""
PARKED_SUBJECTS = "park.>"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"

State = Literal["parked", "retrying", "skipped"]


class ParkingUnavailableError(OSError):
    """PARKED cannot be reached; nothing was changed, or it is unknown."""


class ParkedWork(msgspec.Struct, frozen=True, kw_only=True):
    """As stored. No secret and no personal data: `reason` is an exception's text.

    Attributes:
        version, event_id, position: of the newest event that the reaction had been told.
        attempts: looks that failed before it was parked.
    """

    state: State
    reaction: str
    aggregate: str
    aggregate_id: str
    organization: str
    version: int
    event_id: str
    position: int
    reason: str
    attempts: int
    at: datetime

    @property
    def id(self) -> str:
        return f"{self.reaction}.{self.aggregate}.{self.aggregate_id}"

    def holds_back(self, version: int | None) -> bool:
        """Whether a wake-up waits: for an event of this version, or (None) for a timer or a sweep."""
        if self.state == "skipped":
            return version is None or version <= self.version
        return self.state == "parked"


class Parking:
    """PARKED as handlers and the API use it."""

    def __init__(self, nc: Client, clock: Clock) -> None:
        self._nc = nc
        self._clock = clock
        self._pages = PageReader(nc, PARKED)

    async def park(self, work: ParkedWork) -> None:
        """Stores it as the subject's newest state, unless a person has skipped it while it was tried once more.

        Raises:
            ParkingUnavailableError: not stored, or unknown; the look will be repeated.
        """
        for _ in range(MAX_CHANGES):
            found = await self._last(work.id)
            if found is not None and _decode(found).holds_back(work.version) and _decode(found).state == "skipped":
                return
            if await self._publish(work, {_EXPECTED: str(found.position if found else 0)}):
                return
        raise ParkingUnavailableError(f"park {work.id}: changed {MAX_CHANGES} times meanwhile")

    async def find(self, parked_id: str) -> ParkedWork | None:
        """What is stored for `<reaction>.<aggregate>.<id>`, in whatever state."""
        found = await self._last(parked_id)
        return _decode(found) if found else None

    async def retry(self, parked_id: str) -> bool:
        """Lets the handlers look again, once, now; False when nothing of this id is parked."""
        return await self._change(parked_id, "retrying")

    async def skip(self, parked_id: str) -> bool:
        """Leaves the aggregate alone until its next event; False when nothing of this id is parked."""
        return await self._change(parked_id, "skipped")

    async def remove(self, parked_id: str) -> None:
        """The work was done after all."""
        request = msgspec.json.encode({"filter": f"park.{parked_id}"})
        try:
            await self._nc.request(f"$JS.API.STREAM.PURGE.{PARKED}", request, timeout=TIMEOUT_S)
        except (nats.errors.Error, OSError) as error:
            raise ParkingUnavailableError(f"remove {parked_id} from {PARKED}: {error!r}") from error

    async def _change(self, parked_id: str, state: State) -> bool:
        found = await self._last(parked_id)
        work = _decode(found) if found else None
        if found is None or work is None or work.state == "skipped":
            return False
        if work.state == state:
            return True
        changed = msgspec.structs.replace(work, state=state, at=self._clock())
        return await self._publish(changed, {_EXPECTED: str(found.position)})

    async def _publish(self, work: ParkedWork, headers: dict[str, str]) -> bool:
        """False when another change came first."""
        try:
            await self._nc.jetstream().publish(
                f"park.{work.id}", msgspec.json.encode(work), timeout=TIMEOUT_S, headers=headers
            )
        except nats.js.errors.BadRequestError:
            return False
        except (nats.errors.Error, OSError) as error:
            raise ParkingUnavailableError(f"{work.state} {work.id}: {error!r}") from error
        return True

    async def _last(self, parked_id: str) -> Stored | None:
        if not _is_literal(parked_id):
            return None
        try:
            return await leader_last(self._nc, PARKED, f"park.{parked_id}", timeout_s=TIMEOUT_S)
        except (nats.errors.Error, ApiError, OSError) as error:
            raise ParkingUnavailableError(f"look for {parked_id} in {PARKED}: {error!r}") from error

    async def _newest(self) -> Sequence[ParkedWork]:
        """The newest state of each subject, in the order of those states."""
        newest: dict[str, Stored] = {}
        position, more = 1, True
        while more:  # bounded: each page moves on by at least one message
            page, more = await self._page(position)
            for stored in page:
                newest.pop(stored.subject, None)
                newest[stored.subject] = stored
                position = stored.position + 1
            more = more and bool(page)
        return [_decode(stored) for stored in newest.values()]

    async def _page(self, position: int) -> tuple[list[Stored], bool]:
        try:
            return await self._pages.page(PARKED_SUBJECTS, position, timeout_s=TIMEOUT_S)
        except (nats.errors.Error, ApiError, OSError) as error:
            raise ParkingUnavailableError(f"list {PARKED}: {error!r}") from error

    async def list(self) -> Sequence[Parked]:
        """What waits for a person or for its retry, oldest first; at most MAX_LISTED."""
        waiting = [work for work in await self._newest() if work.state != "skipped"]
        return [_shown(work) for work in waiting[:MAX_LISTED]]


def decode_parked(payload: bytes) -> ParkedWork:
    return msgspec.json.decode(payload, type=ParkedWork)


def _decode(stored: Stored) -> ParkedWork:
    return decode_parked(stored.payload)


def _is_literal(parked_id: str) -> bool:
    """An id comes from a URL: it may name one subject, never a pattern."""
    tokens = parked_id.split(".")
    return all(tokens) and not set(parked_id) & set("*> \t\r\n")


def _shown(work: ParkedWork) -> Parked:
    return Parked(
        id=work.id,
        reaction=work.reaction,
        aggregate=work.aggregate,
        aggregate_id=work.aggregate_id,
        organization=work.organization,
        position=work.position,
        event_id=work.event_id,
        reason=work.reason,
        attempts=work.attempts,
        parked_at=work.at,
    )
