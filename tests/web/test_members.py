"""Members over HTTP: their names, their roles, their going; each refusal with its word, and with the next request."""

import httpx
import pytest
from uuid_utils import uuid7

from domain.ids import OrganizationId, UserId
from domain.roles import Role
from tests.web.test_sign_in import refusal
from tests.web.world import PERSON_PASSWORD, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBERS = "/organizations/current/members"


async def id_of(client: httpx.AsyncClient) -> str:
    return str((await client.get("/auth/me")).json()["user_id"])


async def test_every_member_sees_all_members_by_rank_and_by_name(world: World) -> None:
    async with world.team(ursula="user", maria="manager", ada="admin") as team:
        for client in team.values():
            found = (await client.get(MEMBERS)).json()
            assert [one["role"] for one in found] == ["owner", "admin", "manager", "user"]
            assert [one["username"].split("-")[0] for one in found] == ["founder", "ada", "maria", "ursula"]
            assert set(found[0]) == {
                "user_id",
                "username",
                "email",
                "first_name",
                "last_name",
                "role",
                "created_at",
            }


async def test_a_member_without_a_person_is_shown_without_a_name(world: World) -> None:
    """So is one who was forgotten and could not go, as the last owner of something."""
    nobody = UserId(str(uuid7()))
    async with world.team(olga="owner", ursula="user") as team:
        organization = (await team["olga"].get("/organizations")).json()[0]["id"]
        await world.join(OrganizationId(organization), nobody, "manager")
        await world.visible()
        found = (await team["ursula"].get(MEMBERS)).json()
        assert [(one["role"], one["username"].split("-")[0]) for one in found] == [
            ("owner", "founder"),
            ("owner", "olga"),
            ("manager", ""),
            ("user", "ursula"),
        ]


async def test_a_neighbour_sees_other_members(world: World) -> None:
    async with world.team(ann="user") as ours, world.team(eve="owner") as theirs:
        assert await id_of(ours["ann"]) not in (await theirs["eve"].get(MEMBERS)).text


async def test_in_the_personal_workspace_there_are_no_members(world: World) -> None:
    await world.person("lonely")
    async with world.signed_in("lonely", PERSON_PASSWORD) as client:
        assert refusal(await client.get(MEMBERS)) == (400, "no_current_organization")
        assert (await client.get("/organizations/current/role")).json() == {"organization_id": None, "role": None}


async def test_a_new_role_counts_from_the_next_request(world: World) -> None:
    async with world.team(olga="owner", ursula="user") as team:
        invitation = {"email": "somebody@example.org"}
        refused = await team["ursula"].post("/organizations/current/invitations", json=invitation)
        assert refusal(refused) == (403, "insufficient_permissions_to_invite")
        changed = await team["olga"].put(f"{MEMBERS}/{await id_of(team['ursula'])}", json={"role": "manager"})
        assert (changed.status_code, changed.json()["role"]) == (200, "manager")
        allowed = await team["ursula"].post("/organizations/current/invitations", json=invitation)
        assert allowed.status_code == 201
        assert (await team["ursula"].get("/organizations/current/role")).json()["role"] == "manager"


async def test_a_removed_member_is_outside_with_the_next_request(world: World) -> None:
    async with world.team(olga="owner", ursula="user") as team:
        assert (await team["ursula"].get("/instances")).status_code == 200
        assert (await team["olga"].delete(f"{MEMBERS}/{await id_of(team['ursula'])}")).status_code == 200
        assert refusal(await team["ursula"].get("/instances")) == (400, "no_current_organization")
        assert (await team["ursula"].get("/organizations")).json() == []
        assert (await team["olga"].delete(f"{MEMBERS}/{await id_of(team['ursula'])}")).status_code == 200


@pytest.mark.parametrize(
    ("by", "target", "role"), [("user", "user", "manager"), ("admin", "manager", "user"), ("manager", "user", "admin")]
)
async def test_nobody_gives_what_is_not_theirs_to_give(world: World, by: Role, target: Role, role: Role) -> None:
    async with world.team(by=by, target=target) as team:
        wanted = f"{MEMBERS}/{await id_of(team['target'])}"
        assert refusal(await team["by"].put(wanted, json={"role": role})) == (403, "role_change_not_allowed")


async def test_who_may_not_give_a_role_may_not_remove_it(world: World) -> None:
    async with world.team(ada="admin", maria="manager") as team:
        refused = await team["ada"].delete(f"{MEMBERS}/{await id_of(team['maria'])}")
        assert refusal(refused) == (403, "member_remove_not_allowed")


async def test_a_role_must_be_one(world: World) -> None:
    async with world.team(olga="owner", ursula="user") as team:
        wanted = f"{MEMBERS}/{await id_of(team['ursula'])}"
        assert refusal(await team["olga"].put(wanted, json={"role": "king"})) == (400, "invalid_role")


async def test_a_stranger_is_no_member_as_nobody_is(world: World) -> None:
    async with world.team(olga="owner") as ours, world.team(eve="user") as theirs:
        foreign, absent = await id_of(theirs["eve"]), str(uuid7())
        for wrong in (foreign, absent, "no-id"):
            refused = await ours["olga"].put(f"{MEMBERS}/{wrong}", json={"role": "user"})
            assert refusal(refused) == (404, "member_not_found")
        replies = [await ours["olga"].delete(f"{MEMBERS}/{wrong}") for wrong in (foreign, absent)]
        assert [(reply.status_code, reply.content) for reply in replies] == [(200, b"null")] * 2
        assert (await theirs["eve"].get("/instances")).status_code == 200


async def test_the_last_owner_stays(world: World) -> None:
    await world.person("single")
    async with world.signed_in("single", PERSON_PASSWORD) as client:
        await client.post("/organizations", json={"name": "Single"})
        me = await id_of(client)
        demoted = await client.put(f"{MEMBERS}/{me}", json={"role": "admin"})
        assert refusal(demoted) == (409, "last_owner_cannot_be_changed")
        for gone in (await client.delete(f"{MEMBERS}/{me}"), await client.post("/organizations/current/leave")):
            assert refusal(gone) == (409, "last_owner_cannot_be_removed")
        assert (await client.get("/organizations/current/role")).json()["role"] == "owner"


@pytest.mark.parametrize("way", ["leave", "delete"])
async def test_who_leaves_is_back_in_the_personal_workspace(world: World, way: str) -> None:
    async with world.team(ursula="user") as team:
        client = team["ursula"]
        gone = await (
            client.post("/organizations/current/leave")
            if way == "leave"
            else client.delete(f"{MEMBERS}/{await id_of(client)}")
        )
        assert gone.status_code == 200
        assert (await client.get("/auth/me")).json()["current_organization_id"] is None
        assert [one["current_organization_id"] for one in (await client.get("/auth/sessions")).json()] == [None]
