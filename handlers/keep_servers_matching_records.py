"""Deletes servers that carry our signature although no record wants them: the leak that nobody else would notice.

    list ──> signed by us? ──> does its instance own it? ──no──> stray ──> seen twice, older than GRACE_S ──> delete

It starts from the provider's list, never from our own. Three locks guard it: an instance without any record is
reported and never deleted (a lost log must not cost a fleet), a failed listing changes nothing, a breaker stops mass
deletion.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from domain.instance import INSTANCE
from domain.instance_state import Instance
from handlers.cloud_ports import Cloud, Server
from handlers.ports import Doors, Waking
from handlers.server_tags import Owner, owner_of

PERIOD_S = 60.0
GRACE_S = 120
"""A stray is left alone this long after it was first seen; longer than any record lags behind its server."""
BREAKER_WINDOW_S = 600
BREAKER_SHARE = 0.1
"""Within one window at most this share of a provider's listed servers is deleted, and always one."""

_log = structlog.get_logger(__name__)


@dataclass
class Sightings:
    """What one process remembers between two looks. A restart forgets it, and so only waits longer."""

    first_seen: dict[tuple[str, str], datetime] = field(default_factory=dict)
    deletions: dict[str, deque[datetime]] = field(default_factory=dict)


@dataclass
class ServerSweep:
    """The duty `keep_servers_matching_records` with its memory."""

    sightings: Sightings = field(default_factory=Sightings)

    async def __call__(self, doors: Doors) -> Sequence[Waking]:
        for account in await doors.clouds.accounts():
            provider, cloud = account.provider, await doors.clouds.of(account.organization, account.provider)
            if cloud is None:
                continue
            try:
                servers = await cloud.list_servers()
            except OSError as unknown:
                _log.warning("servers_not_listed", provider=provider, reason=str(unknown))
                continue
            await self._sweep(provider, cloud, servers, doors)
        return ()

    async def _sweep(self, provider: str, cloud: Cloud, servers: Sequence[Server], doors: Doors) -> None:
        strays = {(provider, s.provider_instance_id) for s in servers if await _is_stray(s, doors)}
        seen = self.sightings.first_seen
        for gone in [key for key in seen if key[0] == provider and key not in strays]:
            del seen[gone]
        now = doors.clock()
        for key in sorted(strays):
            if key not in seen:
                seen[key] = now
                _log.warning("stray_server_seen", provider=provider, server=key[1])
            elif now - seen[key] >= timedelta(seconds=GRACE_S) and self._breaker_allows(provider, len(servers), now):
                _log.warning("stray_server_deleted", provider=provider, server=key[1])
                await cloud.delete_server(key[1])

    def _breaker_allows(self, provider: str, listed: int, now: datetime) -> bool:
        recent = self.sightings.deletions.setdefault(provider, deque())
        while recent and now - recent[0] >= timedelta(seconds=BREAKER_WINDOW_S):
            recent.popleft()
        if len(recent) >= max(1, int(listed * BREAKER_SHARE)):
            _log.error("stray_deletion_stopped", provider=provider, cure="look at the strays, then delete by hand")
            return False
        recent.append(now)
        return True


async def _is_stray(server: Server, doors: Doors) -> bool:
    owner = owner_of(server.tags, doors.signer)
    if owner is None:
        return False
    loaded = await doors.load(INSTANCE, owner.organization, owner.instance_id)
    if loaded.version == 0:
        _log.error("signed_server_without_record", server=server.provider_instance_id, instance=owner.instance_id)
        return False
    return not _owns(loaded.state, server, owner)


def _owns(instance: Instance, server: Server, owner: Owner) -> bool:
    if not instance.may_own_a_server:
        return False
    if instance.provider_instance_id:
        return instance.provider_instance_id == server.provider_instance_id
    return instance.attempt == owner.attempt
