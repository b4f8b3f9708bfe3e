"""Tenants at the gateway's front door, over real sockets: scopes, offerings of others, flags, and a table too old."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from domain.api_key import ApiKeyRevoked
from domain.ids import OrganizationId
from domain.instance_events import InstanceDeactivated
from domain.network import networks_of
from domain.offering import Price, offering_id_of
from domain.share import ShareRevoked, share_id_of
from tests.examples import ACME, BOB, GLOBEX
from tests.gateway.routing import (
    CLEAR_KEY,
    MODEL,
    STRANGERS_KEY,
    Said,
    entries,
    founded,
    key,
    offered,
    ready,
    routing,
    scoped,
    shared,
)
from tests.gateway.scripted_engine import BOUND_S, ScriptedEngine, echo
from tests.gateway.served import Served, served

CHAT = "/v1/chat/completions"
OFFERING = offering_id_of(OrganizationId(ACME), "chat")
SHARE = share_id_of(OFFERING, OrganizationId(GLOBEX))
PRICE = Price(input_eur_micros_per_million=200_000, output_eur_micros_per_million=600_000)
CONSUMER = {"authorization": f"Bearer {STRANGERS_KEY}"}


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(echo) as running:
        yield running


def two_tenants(url: str, **terms: Any) -> list[Said]:
    """ACME offers its model as acme/chat; GLOBEX has a key of its own and nothing that runs."""
    globex = key(STRANGERS_KEY, organization=GLOBEX, key_id="k2")
    return [*key(), *globex, *ready("i1", url), *offered(price=PRICE, **terms)]


async def asked(gateway: Served, model: str = MODEL, headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, code and message of one chat; ("", "") for an answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    async with gateway.client() as client, client.post(CHAT, json=body, headers=headers) as reply:
        error = (await reply.json()).get("error", {"code": "", "message": ""})
        return reply.status, error["code"], error["message"]


def happens(gateway: Served, *said: Said) -> None:
    for entry in entries(said, after=gateway.table.position):
        gateway.table.apply(entry)


async def listed(gateway: Served, headers: dict[str, str]) -> list[str]:
    async with gateway.client() as client, client.get("/v1/models", headers=headers) as reply:
        return [model["id"] for model in (await reply.json())["data"]]


async def test_an_offering_is_answered_by_its_providers_workers_and_accounted_for(engine: ScriptedEngine) -> None:
    told = two_tenants(engine.url, access_policy="request_required")
    async with served(routing(told, shared(GLOBEX))) as gateway:
        assert await asked(gateway, "acme/chat", CONSUMER) == (200, "", "")
        assert engine.asked[0].json["model"] == MODEL
        record = (await gateway.recorded())[0]
        assert (record.organization_id, record.api_key_id, record.instance_id) == (GLOBEX, "k2", "i1")
        assert (record.provider_organization_id, record.offering_id, record.share_id) == (ACME, OFFERING, SHARE)
        assert record.input_eur_micros_per_million == PRICE.input_eur_micros_per_million
        assert record.output_eur_micros_per_million == PRICE.output_eur_micros_per_million


async def test_an_own_call_says_nothing_of_offerings(engine: ScriptedEngine) -> None:
    async with served(routing(two_tenants(engine.url))) as gateway:
        assert (await asked(gateway))[0] == 200
        record = (await gateway.recorded())[0]
    assert (record.provider_organization_id, record.offering_id, record.share_id) == ("", "", "")
    assert (record.input_eur_micros_per_million, record.output_eur_micros_per_million) == (0, 0)


async def test_a_revoked_share_routes_nothing_more_and_is_listed_no_more(engine: ScriptedEngine) -> None:
    told = two_tenants(engine.url, visibility="private")
    async with served(routing(told, shared(GLOBEX))) as gateway:
        assert (await asked(gateway, "acme/chat", CONSUMER))[0] == 200
        assert await listed(gateway, CONSUMER) == ["acme/chat"]
        happens(gateway, (ACME, SHARE, ShareRevoked()))
        status, code, message = await asked(gateway, "acme/chat", CONSUMER)
        assert (status, code) == (403, "offering_not_accessible")
        assert "revoked" in message
        assert await listed(gateway, CONSUMER) == []
    assert len(engine.asked) == 1


async def test_an_offering_is_retrieved_by_its_whole_name(engine: ScriptedEngine) -> None:
    async with served(routing(two_tenants(engine.url))) as gateway, gateway.client() as client:
        async with client.get("/v1/models/acme/chat", headers=CONSUMER) as reply:
            assert (reply.status, (await reply.json())["owned_by"]) == (200, "acme")
        async with client.get(f"/v1/models/{MODEL}", headers=CONSUMER) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (404, "model_not_found")


async def test_the_owner_is_told_which_flag_is_missing_and_a_stranger_is_not(engine: ScriptedEngine) -> None:
    async with served(routing(two_tenants(engine.url))) as gateway:
        happens(gateway, (ACME, "i1", InstanceDeactivated(flag="economic")))
        status, code, message = await asked(gateway)
        assert (status, code) == (503, "no_ready_worker")
        assert "economic activation" in message
        status, code, message = await asked(gateway, "acme/chat", CONSUMER)
        assert (status, code) == (503, "no_ready_worker")
        assert "activation" not in message
    assert engine.asked == []


SCOPES: list[tuple[dict[str, Any], int, str]] = [
    ({}, 200, ""),
    ({"models": (MODEL,)}, 200, ""),
    ({"models": ("other",)}, 403, "model_not_allowed"),
    ({"endpoints": ("chat",)}, 200, ""),
    ({"endpoints": ("models", "rest")}, 403, "endpoint_not_allowed"),
    ({"ip_ranges": ("127.0.0.0/8",)}, 200, ""),
    ({"ip_ranges": ("192.0.2.0/24",)}, 403, "ip_address_not_allowed"),
]


@pytest.mark.parametrize(("scope", "status", "code"), SCOPES)
async def test_a_scope_is_held_to(engine: ScriptedEngine, scope: dict[str, Any], status: int, code: str) -> None:
    async with served(routing(scoped(**scope), ready("i1", engine.url))) as gateway:
        assert (await asked(gateway))[:2] == (status, code)
    assert len(engine.asked) == (status == 200)


async def test_a_forwarded_address_counts_from_our_own_proxy_alone(engine: ScriptedEngine) -> None:
    told = [*scoped(ip_ranges=("192.0.2.0/24",)), *ready("i1", engine.url)]
    claims = {"x-forwarded-for": "192.0.2.7"}
    async with served(routing(told)) as gateway:
        assert (await asked(gateway, headers=claims))[:2] == (403, "ip_address_not_allowed")
    async with served(routing(told), trusted_proxies=networks_of(["127.0.0.1"])) as gateway:
        assert (await asked(gateway, headers=claims))[0] == 200
        forged = {"x-forwarded-for": "192.0.2.7, 203.0.113.9"}
        assert (await asked(gateway, headers=forged))[:2] == (403, "ip_address_not_allowed")


async def test_two_credentials_are_one_too_many(engine: ScriptedEngine) -> None:
    async with served(routing(key(), ready("i1", engine.url))) as gateway:
        assert (await asked(gateway, headers={"x-api-key": CLEAR_KEY}))[:2] == (400, "multiple_credentials")


async def test_a_key_that_is_revoked_while_its_body_comes_calls_nobody(engine: ScriptedEngine) -> None:
    revoked = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"model":"mock-echo-model","messages":[{"role":"user",'
        async with asyncio.timeout(BOUND_S):
            await revoked.wait()
        yield b'"content":"hi"}]}'

    async with served(routing(key(), ready("i1", engine.url))) as gateway, gateway.client() as client:
        asking = asyncio.ensure_future(client.post(CHAT, data=slow()))
        await _admitted(client)
        happens(gateway, (ACME, "k1", ApiKeyRevoked()))
        revoked.set()
        async with await asking as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (401, "revoked_api_key")
    assert engine.asked == []


async def _admitted(client: aiohttp.ClientSession) -> None:
    """Waits until the requests before this one have been looked at."""
    async with client.get("/v1/models") as reply:
        assert reply.status == 200


async def test_with_a_table_too_old_nobody_passes_until_it_is_young_again(engine: ScriptedEngine) -> None:
    async with served(routing(key(), ready("i1", engine.url))) as gateway, gateway.client() as client:
        for age_s, status, code in ((600.0, 200, ""), (600.1, 503, "key_table_too_old"), (0.0, 200, "")):
            gateway.age_s = age_s
            assert (await asked(gateway))[:2] == (status, code)
            async with client.get("/v1/models") as reply:
                assert reply.status == status
            async with client.get("/readyz") as reply:
                assert (reply.status, (await reply.json())["trusted"]) == (status, status == 200)
            async with client.get("/healthz") as reply:
                assert reply.status == 200


async def test_a_member_who_is_no_owner_of_the_key_changes_nothing(engine: ScriptedEngine) -> None:
    async with served(routing(key(), founded(member=BOB), ready("i1", engine.url))) as gateway:
        assert (await asked(gateway))[0] == 200
