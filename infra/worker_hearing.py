"""Who was heard when, and whether a silent one answers: the ears of the duty keep_workers_watched.

    heartbeats ──(a subscription)──> noted in memory ──fresh──> that moment
                                          └──not fresh──> the newest one on the stream TELEMETRY

A thousand workers cost no request as long as they are heard. The surprising rule: memory alone never makes silence, for
a connection that was lost has missed what others stored.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.ids import OrganizationId
from domain.ports import Clock
from domain.telemetry import WorkerSeen, heartbeat_subject
from infra.events.reads import ApiError, leader_last
from infra.events.streams import TELEMETRY

FRESH_S = 10.0
"""Heard within this time: no need to look into the stream."""
MAX_REMEMBERED = 10_000
"""Above this number, who is not fresh is forgotten: the stream remembers."""
REPLY_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 3.0
"""SPEC 2.4."""
OK = 200

_heartbeats = msgspec.json.Decoder(WorkerSeen)


class TelemetryUnreadableError(OSError):
    """NATS does not answer: nothing is known of anybody."""


class HeardWorkers:
    """Implements LastHeard.

    Args:
        nc: may subscribe to heartbeats and read TELEMETRY.
        clock: of this process; what is heard is dated by it.
    """

    def __init__(self, nc: Client, clock: Clock) -> None:
        self._nc = nc
        self._clock = clock
        self._heard: dict[str, datetime] = {}
        self._listening = asyncio.Lock()
        self._is_listening = False

    async def __call__(self, organization: OrganizationId, instance_id: str, /) -> datetime | None:
        """See the port."""
        await self._listen()
        subject = heartbeat_subject(organization, instance_id)
        heard = self._heard.get(subject)
        if heard is not None and self._clock() - heard < timedelta(seconds=FRESH_S):
            return heard
        stored = await self._stored(subject)
        return max((at for at in (heard, stored) if at is not None), default=None)

    async def _listen(self) -> None:
        async with self._listening:
            if not self._is_listening:
                try:
                    await self._nc.subscribe(heartbeat_subject("*", "*"), cb=self._hear)
                except (nats.errors.Error, OSError) as error:
                    raise TelemetryUnreadableError(f"cannot listen to heartbeats: {error!r}") from error
                self._is_listening = True

    async def _hear(self, message: Msg) -> None:
        now = self._clock()
        self._heard[message.subject] = now
        if len(self._heard) > MAX_REMEMBERED:
            fresh = timedelta(seconds=FRESH_S)
            self._heard = {subject: at for subject, at in self._heard.items() if now - at < fresh}

    async def _stored(self, subject: str) -> datetime | None:
        try:
            stored = await leader_last(self._nc, TELEMETRY, subject, timeout_s=REPLY_TIMEOUT_S)
            return _heartbeats.decode(stored.payload).at.astimezone(UTC) if stored else None
        except (nats.errors.Error, ApiError, OSError) as error:
            raise TelemetryUnreadableError(f"cannot read {subject}: {error!r}") from error
        except msgspec.MsgspecError:
            return None  # of another release: it tells nothing


async def probe_agent(agent_url: str, /) -> bool:
    """Implements WorkerProbe. No redirect is followed: only the address on record is asked."""
    import aiohttp  # noqa: PLC0415 - half a second, which only silent workers cost

    try:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{agent_url.rstrip('/')}/readyz", allow_redirects=False) as reply,
        ):
            return reply.status == OK
    except (aiohttp.ClientError, OSError, ValueError):
        return False
