"""Three organisations for tests of sharing: a provider, a consumer, and a stranger who must see nothing of the two.

async with a_market(world) as market:
    offering = await market.publish(code="chat")
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from domain.organization import ORGANIZATION
from domain.organization_commands import ChangeOrganizationPlan
from domain.values import Plan
from tests.web.test_deployments import MODEL
from tests.web.world import World

Team = Mapping[str, httpx.AsyncClient]


@dataclass(frozen=True)
class Market:
    """Each team has an owner "olga", an admin "adam", a manager "mia" and a user "uli"."""

    world: World
    provider: Team
    consumer: Team
    stranger: Team
    ids: Mapping[str, str]
    slugs: Mapping[str, str]

    async def publish(self, code: str, **body: Any) -> dict[str, Any]:
        """Public and free unless told otherwise; by the provider's owner, so that it works at once."""
        asked = {"model": MODEL, "visibility": "public", "code": code, **body}
        made: dict[str, Any] = ok(await self.provider["olga"].post("/offerings", json=asked), 201)
        return made

    async def share(self, offering: Mapping[str, Any], **body: Any) -> dict[str, Any]:
        asked = {"offering": offering["id"], "consumer": self.slugs["consumer"], **body}
        made: dict[str, Any] = ok(await self.provider["olga"].post("/shares", json=asked), 201)
        return made

    async def found(self, side: str = "consumer", **query: Any) -> dict[str, dict[str, Any]]:
        """What an organisation finds of the provider's offerings, by code."""
        team = self.consumer if side == "consumer" else self.stranger
        listed = ok(await team["uli"].get("/catalogue/offerings", params=query))
        return {one["code"]: one for one in listed if one["provider_id"] == self.ids["provider"]}

    async def subscribe(self, side: str = "consumer", plan: Plan = "subscriber") -> None:
        organization = self.ids[side]
        command = ChangeOrganizationPlan(plan=plan)
        await self.world.visible(await self.world.dispatch(ORGANIZATION, organization, organization, command))


def ok(reply: httpx.Response, status: int = 200) -> Any:
    assert reply.status_code == status, reply.text
    return reply.json()


@asynccontextmanager
async def a_market(world: World) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        sides = ("provider", "consumer", "stranger")
        teams = {
            side: await stack.enter_async_context(world.team(olga="owner", adam="admin", mia="manager", uli="user"))
            for side in sides
        }
        own = {side: ok(await team["olga"].get("/organizations"))[0] for side, team in teams.items()}
        yield Market(
            world,
            **teams,
            ids={side: own[side]["id"] for side in sides},
            slugs={side: own[side]["slug"] for side in sides},
        )
