"""Two organisations with one of everything, and nine who call: what the matrix asks about, and who asks.

    A: owner, admin, manager, user, an API key with role user, and a platform administrator among its owners
    B: an owner, who is the stranger to A            nowhere: a person without an organisation, and nobody at all

Whatever has a name carries its organisation's word, and whatever has an id is known by it: where either of B turns up
in a reply to A, something leaks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import httpx
import msgspec

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OrganizationId, UserId
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import RecordOffers, RecordReconciliationFailed
from domain.roles import Role
from domain.usage import UsageRecord
from infra.postgres import connect
from projections.projection import UsageEntry
from projections.usage import USAGE
from tests.examples import L4
from tests.given import NOON
from tests.web.test_deployments import MODEL, READY, instance_in
from tests.web.world import ADMIN_PASSWORD, PERSON_PASSWORD, World
from web.services import Parked

Home = Literal["a", "b", ""]

WORDS: Mapping[Home, str] = {"a": "aardvark", "b": "bandicoot"}
"""In every name of that organisation, and nowhere else."""


@dataclass(frozen=True)
class Principal:
    """Who asks. `home` "": of no organisation; `own`: objects that are this person's alone."""

    name: str
    home: Home = ""
    role: Role | None = None
    is_admin: bool = False
    is_key: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_somebody(self) -> bool:
        return bool(self.headers)


@dataclass(frozen=True)
class Planted:
    """`objects`: home -> kind -> id (or whatever a path names it by)."""

    principals: tuple[Principal, ...]
    objects: Mapping[Home, Mapping[str, str]]


async def plant(world: World) -> Planted:
    third = await world.organization("third", await world.person("owner-of-third"))
    await world.visible()
    sides: dict[Home, dict[str, str]] = {home: await _side(world, home, third) for home in WORDS}
    people = [
        await _principal(world, f"{role}-{WORDS['a']}", home="a", role=role)
        for role in ("owner", "admin", "manager", "user")
    ]
    stranger = replace(await _principal(world, f"owner-{WORDS['b']}", home="b", role="owner"), name="stranger")
    await world.person("loner")
    await world.join(OrganizationId(sides["a"]["organization"]), UserId(await _id_of_admin(world)), "owner")
    admin = await _principal(world, "admin", home="a", role="owner", password=ADMIN_PASSWORD)
    admin = replace(admin, name="platform-admin", is_admin=True)
    key = Principal("key-of-a", "a", "user", is_key=True, headers={"x-api-key": sides["a"]["key_secret"]})
    loner = await _principal(world, "loner")
    await _use(world.environment.postgres_url, sides)
    world.parking.parked = [_parked(world, home, side) for home, side in sides.items()]
    objects: dict[Home, dict[str, str]] = {
        home: {**side, "session": stranger.own["session"]} for home, side in sides.items()
    }
    objects["a"]["session"] = people[0].own["session"]
    await world.visible()
    return Planted((*people, admin, key, loner, stranger, Principal("nobody")), objects)


async def _side(world: World, home: Home, third: OrganizationId) -> dict[str, str]:
    """One organisation with one of everything; its owner does it over the API."""
    word = WORDS[home]
    names = {role: f"{role}-{word}" for role in ("owner", "admin", "manager", "user")}
    people = {role: await world.person(name) for role, name in names.items()}
    organization = await world.organization(word, people["owner"])
    for role in ("admin", "manager", "user"):
        await world.join(organization, people[role], role)
    await world.visible()
    async with world.signed_in(names["owner"], PERSON_PASSWORD) as owner:
        found = {
            "organization": organization,
            "organization_slug": word,
            "member": people["user"],
            "user": people["user"],
            "owner": people["owner"],
            "instance": await instance_in(world, owner, READY),
        }
        found |= await _made(owner, word, third)
        await _looked_at(world, organization, word)
        await world.visible()
        events = (await owner.get("/events", params={"limit": 500})).json()["events"]
    [found["position"]] = [str(event["position"]) for event in events if event["type"] == "InstanceReady"]
    [found["event"]] = [event["event_id"] for event in events if event["type"] == "InstanceReady"]
    found["actor"] = str(people["owner"])
    found["parked"] = f"advance_instance.instance.{found['instance']}"
    return {kind: str(id_) for kind, id_ in found.items()}


async def _looked_at(world: World, organization: OrganizationId, word: str) -> None:
    """Its account at a provider, whose words and zones carry its own."""
    account_id = provider_account_id_of(organization, "scaleway")
    denied = f"project {word} is locked"
    failed = RecordReconciliationFailed(
        provider="scaleway", asked_at=None, call="list_servers", kind="auth", message=denied
    )
    offers = RecordOffers(provider="scaleway", offers=(msgspec.structs.replace(L4, zone=f"{word}-1"),))
    for command in (failed, offers):
        await world.dispatch(PROVIDER_ACCOUNT, organization, account_id, command)


async def _made(owner: httpx.AsyncClient, word: str, third: OrganizationId) -> dict[str, str]:
    """What the API makes, in an order in which each one finds what it needs."""

    async def made(path: str, method: str = "POST", **body: Any) -> Any:
        reply = await owner.request(method, path, json=body)
        assert reply.status_code in {200, 201, 202, 204}, (path, reply.text)
        owner.headers["event-position"] = reply.headers.get("event-position", "0")
        return reply.json() if reply.content else {}

    key = await made("/api_keys", name=f"key {word}")
    invitation = await made("/organizations/current/invitations", email=f"guest@{word}.example", role="user")
    model = await made(
        "/models", model_id=f"{word}/model", name=f"model {word}", required_vram_gb=1, context_length=2048
    )
    offering = await made("/offerings", model=f"{word}/model", code=f"offering-{word}", name=f"offering {word}")
    share = await made("/shares", offering=offering["id"], consumer=str(third))
    host = await made(
        "/hosts",
        address="192.0.2.7",
        name=f"host-{word}",
        host_key_fingerprint="SHA256:" + "k" * 43,
        gpu_count=1,
        vram_per_gpu_gb=24,
    )
    await made("/providers/local/params", "PUT", worker_vllm_image=f"registry.example/{word}:1")
    deployment = await made("/deployments", model=MODEL)
    upstream = await made(
        "/deployments",
        model=f"{word}/chat",
        upstream={"url": f"https://{word}.example.com/v1", "api_key": f"sk-{word}"},
    )
    return {
        "api_key": key["key"]["id"],
        "key_secret": key["api_key"],
        "invitation": invitation["id"],
        "invitation_token": invitation["token"],
        "model": model["id"],
        "model_code": f"{word}/model",
        "offering": offering["id"],
        "share": share["id"],
        "host": host["id"],
        "deployment": deployment["deployment_id"],
        "upstream": upstream["deployment_id"],
    }


async def _principal(
    world: World, name: str, *, home: Home = "", role: Role | None = None, password: str = PERSON_PASSWORD
) -> Principal:
    token = await world.token(name, password)
    headers = {"authorization": f"Bearer {token}"}
    async with world.client(headers=headers) as client:
        if home:
            mine = (await client.get("/organizations")).json()
            [organization] = [one["id"] for one in mine if one["slug"] == WORDS[home]]
            moved = await client.put("/organizations/current", json={"organization_id": organization})
            assert moved.status_code == 200, moved.text
            made = await client.post("/api_keys", json={"name": f"key of {name}"})
            key = {"api_key": made.json()["key"]["id"]}
        else:
            key = {}
        sessions = (await client.get("/auth/sessions")).json()
        profile = (await client.get("/auth/me")).json()
    own = {"session": sessions[0]["session_id"], "self": profile["user_id"], **key}
    return Principal(name.split("-", maxsplit=1)[0] if home else name, home, role, headers=headers, own=own)


async def _id_of_admin(world: World) -> str:
    async with world.signed_in() as client:
        return str((await client.get("/auth/me")).json()["user_id"])


def _parked(world: World, home: Home, side: Mapping[str, str]) -> Parked:
    return Parked(
        id=side["parked"],
        reaction="advance_instance",
        aggregate="instance",
        aggregate_id=side["instance"],
        organization=side["organization"],
        position=int(side["position"]),
        event_id=side["event"],
        reason=f"gave up on {WORDS[home]}",
        attempts=8,
        parked_at=world.clock(),
    )


async def _use(postgres_url: str, sides: Mapping[Home, Mapping[str, str]]) -> None:
    """A request of each organisation, as the gateway accounts for it; no process of this world folds USAGE."""
    entries = [
        UsageEntry(
            position,
            UsageRecord(
                request_id=f"request-{WORDS[home]}",
                organization_id=OrganizationId(side["organization"]),
                api_key_id=ApiKeyId(side["api_key"]),
                deployment_id=DeploymentId(side["deployment"]),
                instance_id=InstanceId(side["instance"]),
                model_code=side["model_code"],
                endpoint="/v1/chat/completions",
                at=NOON,
                streamed=False,
                outcome="completed",
                status_code=200,
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
                cached_tokens=0,
                counted_by="engine",
                ttft_ms=1.0,
                duration_ms=1.0,
            ),
        )
        for position, (home, side) in enumerate(sides.items(), start=1)
    ]
    async with await connect(postgres_url, "test", search_path=USAGE.schema) as connection:
        await USAGE.apply(entries, connection)
