"""Foreign upstreams over HTTP: what may be connected, who may, and that their key is shown to nobody."""

from typing import Any

import httpx
import pytest

from domain.outbound import rules_of
from infra.master_key import read_master_key
from infra.upstream_sealing import sealer_of
from infra.vault_tables import vault_pool
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-canary-Aa1-of-an-upstream"
OTHER_KEY = "sk-canary-aA1-of-an-upstream"
URL = "https://api.example.com/v1"


def wish(url: str = URL, *, model: str = "large", key: str | None = KEY, **more: Any) -> dict[str, Any]:
    upstream = {"url": url, "model": model, **({"api_key": key} if key is not None else {})}
    return {"model": "chat", "upstream": upstream, **more}


async def connected(client: httpx.AsyncClient, **changes: Any) -> str:
    reply = await client.post("/deployments", json=wish(**changes))
    assert reply.status_code == 202, reply.text
    client.headers["event-position"] = reply.headers["event-position"]
    return str(reply.json()["deployment_id"])


async def kept(world: World, deployment_id: str) -> dict[str, bytes]:
    """What the vault holds for a deployment: id -> sealed."""
    query = "SELECT credential_id, sealed FROM vault.upstream_keys WHERE deployment_id = %s"
    async with vault_pool(world.environment.postgres_url) as pool, pool.connection() as connection:
        rows = await (await connection.execute(query, [deployment_id])).fetchall()
    return {row[0]: bytes(row[1]) for row in rows}


async def test_an_upstream_is_connected_and_shown_without_its_key(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"])
        shown = (await team["ann"].get(f"/deployments/{deployment_id}")).json()
        assert (shown["status"], shown["engine"], shown["model_code"]) == ("ready", "upstream", "chat")
        assert (shown["instances"], shown["instance_ids"], shown["provider_id"]) == (0, [], "")
        upstream = shown["upstream"]
        assert (upstream["url"], upstream["model"], upstream["activation"]["operational"]) == (URL, "large", True)
        assert len(upstream["key_fingerprint"]) == 12
        assert shown in (await team["ann"].get("/deployments")).json()


async def test_the_key_opens_for_a_gateway_and_stands_nowhere_else(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"])
        organization = (await team["ann"].get("/auth/me")).json()["current_organization_id"]
        [(credential_id, sealed)] = (await kept(world, deployment_id)).items()
        sealer = sealer_of(read_master_key(world.environment.secrets_dir))
        assert sealer.open(organization, credential_id, sealed) == KEY
        for path in ("/deployments", f"/deployments/{deployment_id}", "/events", "/audit", "/action_logs"):
            assert KEY not in (await team["ann"].get(path)).text
        assert KEY.encode() not in world.everything_written()
        assert KEY.encode() not in sealed


async def test_the_audit_log_names_the_host_and_hides_the_digest(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"])
        [event] = [e for e in (await team["ann"].get("/events")).json()["events"] if e["id"] == deployment_id]
        assert (event["type"], event["data"]["url"]) == ("UpstreamConnected", URL)


async def test_only_who_may_deploy_connects(world: World) -> None:
    async with world.team(ann="admin", mia="manager", uwe="user") as team:
        for name in ("mia", "uwe"):
            reply = await team[name].post("/deployments", json=wish())
            assert refusal(reply) == (403, "insufficient_permissions")
        assert (await team["ann"].post("/deployments", json=wish())).status_code == 202


async def test_an_admins_upstream_waits_for_somebody_who_may_spend(world: World) -> None:
    async with world.team(ann="admin", mia="manager") as team:
        deployment_id = await connected(team["ann"])
        shown = (await team["ann"].get(f"/deployments/{deployment_id}")).json()
        assert (shown["status"], shown["upstream"]["activation"]["missing"]) == ("starting", ["economic"])
        path, flag = f"/deployments/{deployment_id}/activation", {"flag": "economic", "value": True}
        assert refusal(await team["ann"].put(path, json=flag)) == (403, "activation_not_allowed")
        reply = await team["mia"].put(path, json=flag)
        assert (reply.status_code, reply.json()["activation"]["operational"]) == (200, True)
        again = await team["mia"].get(
            f"/deployments/{deployment_id}", headers={"event-position": reply.headers["event-position"]}
        )
        assert again.json()["status"] == "ready"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://user:pass@api.example.com/v1", "invalid_upstream_url"),
        ("https://api.example.com/v1?x=1", "invalid_upstream_url"),
        ("ftp://api.example.com", "invalid_upstream_url"),
        ("https://nowhere.test/v1", "upstream_host_not_found"),
        ("http://api.example.com/v1", "upstream_address_not_allowed"),
        ("https://inside.test/v1", "upstream_address_not_allowed"),
        ("https://half-inside.test/v1", "upstream_address_not_allowed"),
        ("https://metadata.test/v1", "upstream_address_not_allowed"),
    ],
)
async def test_a_refused_url_leaves_no_event_and_no_key(world: World, url: str, code: str) -> None:
    world.hosts.addresses |= {
        "inside.test": ["127.0.0.1"],
        "half-inside.test": ["93.184.215.14", "10.0.0.1"],
        "metadata.test": ["169.254.169.254"],
    }
    async with world.team(ann="owner") as team:
        before = await world.log.head()
        reply = await team["ann"].post("/deployments", json=wish(url))
        assert refusal(reply) == (400, code)
        assert "user:pass" not in reply.text
        assert await world.log.head() == before


async def test_what_the_operator_lists_may_be_connected_in_clear(world: World) -> None:
    world.hosts.addresses["llm-d.internal"] = ["10.0.0.9"]
    settings = world.services.settings
    object.__setattr__(settings, "outbound", rules_of(["10.0.0.9:8000"]))
    try:
        async with world.team(ann="owner") as team:
            await connected(team["ann"], url="http://llm-d.internal:8000", key=None)
            reply = await team["ann"].post("/deployments", json=wish("http://llm-d.internal:5432"))
            assert refusal(reply) == (400, "upstream_address_not_allowed")
    finally:
        object.__setattr__(settings, "outbound", rules_of([]))


@pytest.mark.parametrize(
    "body",
    [
        wish(instances=2),
        wish(zone="local"),
        {**wish(), "model_id": "x"},
        wish(key=""),
        wish(key="a b"),
        wish(key="a\r\nx: y"),
        wish(key="\u00e9"),
        wish(key="x" * 5000),
        {"model": "chat", "upstream": {}},
        {"model": "chat", "upstream": "https://api.example.com"},
        {"model": "", "upstream": {"url": URL, "model": "m"}},
        {"model": "chat", "upstream": {"url": URL, "headers": {}}},
    ],
)
async def test_a_wish_that_is_none_is_refused_without_repeating_it(world: World, body: dict[str, Any]) -> None:
    async with world.team(ann="owner") as team:
        reply = await team["ann"].post("/deployments", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"] in {"invalid_request", "upstream_takes_no_machines", "invalid_model_code"}
        assert KEY not in reply.text


async def test_an_upstream_without_a_key_keeps_none(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"], key=None)
        assert await kept(world, deployment_id) == {}
        shown = (await team["ann"].get(f"/deployments/{deployment_id}")).json()
        assert shown["upstream"]["key_fingerprint"] == ""


async def test_a_replaced_key_has_a_place_and_a_fingerprint_of_its_own(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"])
        first = set(await kept(world, deployment_id))
        before = (await team["ann"].get(f"/deployments/{deployment_id}")).json()["upstream"]["key_fingerprint"]
        path = f"/deployments/{deployment_id}/upstream/key"
        same = await team["ann"].put(path, json={"api_key": KEY})
        assert (same.json()["key_fingerprint"], set(await kept(world, deployment_id))) == (before, first)
        other = await team["ann"].put(path, json={"api_key": OTHER_KEY})
        assert other.json()["key_fingerprint"] != before
        assert len(await kept(world, deployment_id)) == 2  # the old one serves until gateways have heard
        assert OTHER_KEY not in other.text


async def test_one_key_has_another_fingerprint_in_another_organisation(world: World) -> None:
    prints = set()
    for _ in range(2):
        async with world.team(ann="owner") as team:
            deployment_id = await connected(team["ann"])
            shown = (await team["ann"].get(f"/deployments/{deployment_id}")).json()
            prints.add(shown["upstream"]["key_fingerprint"])
    assert len(prints) == 2


async def test_a_request_that_is_repeated_connects_once(world: World) -> None:
    async with world.team(ann="owner") as team:
        headers = {"idempotency-key": "connect-once"}
        first = await team["ann"].post("/deployments", json=wish(), headers=headers)
        again = await team["ann"].post("/deployments", json=wish(), headers=headers)
        assert first.json() == again.json()
        assert again.headers["idempotent-replayed"] == "true"
        changed = await team["ann"].post("/deployments", json=wish(key=OTHER_KEY), headers=headers)
        assert refusal(changed) == (422, "idempotency_key_reused")


async def test_a_neighbours_upstream_is_as_one_that_does_not_exist(world: World) -> None:
    async with world.team(ann="owner") as ours, world.team(bob="owner") as theirs:
        deployment_id = await connected(ours["ann"])
        for method, path, body in (
            ("PUT", "/upstream/key", {"api_key": OTHER_KEY}),
            ("PUT", "/activation", {"flag": "technical", "value": False}),
            ("DELETE", "", None),
            ("GET", "", None),
        ):
            reply = await theirs["bob"].request(method, f"/deployments/{deployment_id}{path}", json=body)
            assert refusal(reply) == (404, "deployment_not_found"), path
        assert len(await kept(world, deployment_id)) == 1


async def test_a_stopped_upstream_takes_no_key_any_more(world: World) -> None:
    async with world.team(ann="owner") as team:
        deployment_id = await connected(team["ann"])
        reply = await team["ann"].delete(f"/deployments/{deployment_id}")
        shown = await team["ann"].get(
            f"/deployments/{deployment_id}", headers={"event-position": reply.headers["event-position"]}
        )
        assert shown.json()["status"] == "stopped"
        late = await team["ann"].put(f"/deployments/{deployment_id}/upstream/key", json={"api_key": OTHER_KEY})
        assert refusal(late) == (409, "deployment_stopped")
        assert len(await kept(world, deployment_id)) == 1


async def test_machines_have_no_upstream(world: World) -> None:
    async with world.team(ann="owner") as team:
        made = (await team["ann"].post("/deployments", json={"model": "mock-echo-model"})).json()
        path = f"/deployments/{made['deployment_id']}"
        assert refusal(await team["ann"].put(f"{path}/upstream/key", json={"api_key": KEY})) == (
            409,
            "deployment_has_no_upstream",
        )
        flag = {"flag": "technical", "value": True}
        assert refusal(await team["ann"].put(f"{path}/activation", json=flag)) == (409, "deployment_has_no_upstream")


async def test_while_names_cannot_be_looked_up_nothing_is_connected(world: World) -> None:
    world.hosts.away = True
    try:
        async with world.team(ann="owner") as team:
            before = await world.log.head()
            reply = await team["ann"].post("/deployments", json=wish())
            assert refusal(reply) == (503, "unavailable")
            assert await world.log.head() == before
    finally:
        world.hosts.away = False
