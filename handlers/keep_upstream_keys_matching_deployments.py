"""Destroys keys of foreign upstreams that no deployment names: what a request left behind that died half-way.

    list those kept an hour ago or longer ──> does their deployment name them? ──no──> destroyed

A key is stored before the event that names it, so that whoever reads the event can use it; the hour is for the event.
"""

from collections.abc import Sequence

import structlog

from domain.deployment import DEPLOYMENT
from domain.upstream import credential_id_of
from handlers.person_ports import KeptKey
from handlers.ports import Doors, Waking

PERIOD_S = 600.0
AGE_S = 3600.0
"""Far longer than a request can be on its way, or be repeated by its client."""
MAX_PAGES = 100

_log = structlog.get_logger(__name__)


async def keep_upstream_keys_matching_deployments(doors: Doors) -> Sequence[Waking]:
    after = ""
    for _ in range(MAX_PAGES):
        page = await doors.upstream_keys.list_older(after, age_s=AGE_S)
        if not page:
            break
        after = page[-1].credential_id
        for kept in page:
            if not await _is_named(kept, doors):
                await doors.upstream_keys.destroy_older(kept.credential_id, age_s=AGE_S)
                _log.info("left_upstream_key_destroyed", deployment_id=kept.deployment_id)
    return ()


async def _is_named(kept: KeptKey, doors: Doors) -> bool:
    loaded = await doors.load(DEPLOYMENT, kept.organization, kept.deployment_id)
    standing = loaded.state.standing_upstream
    return standing is not None and credential_id_of(kept.deployment_id, standing.key_digest) == kept.credential_id
