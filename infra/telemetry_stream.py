"""Heartbeats into the stream TELEMETRY: published without waiting, since one lost is one sample less."""

import msgspec
import nats.errors
from nats.aio.client import Client

from domain.telemetry import WorkerSeen, heartbeat_subject


class TelemetryUnavailableError(OSError):
    """NATS is away; this sample is lost."""


class TelemetryStream:
    """Implements web.services.Telemetry.

    Args:
        nc: a writer's connection: one that fails at once while it is disconnected, rather than buffer stale figures.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def publish(self, seen: WorkerSeen) -> None:
        try:
            subject = heartbeat_subject(seen.organization_id, seen.instance_id)
            await self._nc.publish(subject, msgspec.json.encode(seen))
        except (nats.errors.Error, OSError) as error:
            raise TelemetryUnavailableError(f"heartbeat of {seen.instance_id} not published: {error!r}") from error
