"""The local provider in the suite: a folder of its own, and an agent that is quick."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.providers.local import LocalCloud
from tests.infra.providers.conformance.double import Double
from tests.infra.providers.local_clouds import IDLE_AGENT


@asynccontextmanager
async def local_double(folder: Path) -> AsyncIterator[Double]:
    archive, root, away = folder / "agent.pyz", folder / "servers", folder / "away"
    archive.write_text(IDLE_AGENT)

    async def lose_the_disk() -> None:
        root.rename(away)

    async def heal() -> None:
        if away.exists():
            away.rename(root)

    async def pass_time() -> None:
        """It has no states of passage; the loop gets a turn."""
        await asyncio.sleep(0)

    def new_cloud() -> LocalCloud:
        return LocalCloud(root, agent_archive=archive)

    first = new_cloud()
    try:
        yield Double(
            new_cloud=lambda: LocalCloud(root, agent_archive=archive) if root.exists() else first,
            zone="local",
            instance_type="mock-local-instance",
            no_server_id="local-0000000000000000",
            pass_time=pass_time,
            troubles={"unreachable": lose_the_disk},
            heal=heal,
        )
    finally:
        await heal()
        await first.stop_all()
        first.close()
