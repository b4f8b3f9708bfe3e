"""An organisation in which something has happened: what the audit log's specifications look at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.web.world import World

NOBODY = "0192aaaa-0000-7000-8000-00000000beef"
"""An id that nothing has."""


@dataclass
class Office:
    """An organisation whose owner issued a key, renamed it and revoked it."""

    owner: httpx.AsyncClient
    member: httpx.AsyncClient
    key_id: str
    positions: list[int]

    async def rows(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.owner.get(f"/audit?{query}")
        assert reply.status_code == 200, reply.text
        rows: list[dict[str, Any]] = reply.json()["rows"]
        return rows


@asynccontextmanager
async def an_office(world: World) -> AsyncIterator[Office]:
    async with world.team(olga="owner", uma="user") as team:
        owner = team["olga"]
        issued = await owner.post("/api_keys", json={"name": "first"})
        key_id = issued.json()["key"]["id"]
        renamed = await owner.put(f"/api_keys/{key_id}", json={"name": "=staging, 100%"})
        revoked = await owner.delete(f"/api_keys/{key_id}")
        replies = [issued, renamed, revoked]
        assert all(reply.is_success for reply in replies), [reply.text for reply in replies]
        positions = [int(reply.headers["event-position"]) for reply in replies]
        await world.visible()
        yield Office(owner, team["uma"], key_id, positions)
