"""Foreign upstreams through the gateway, on real sockets: their key is ours alone, and their word about it too."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from domain.outbound import PUBLIC_ONLY, rules_of
from gateway.foreign import address_allowed
from infra.upstream_keys import UpstreamKeys
from infra.upstream_sealing import write_upstream_key
from projections.routing_snapshot import encode_snapshot
from projections.routing_table import RoutingTable
from tests.examples import ACME, GLOBEX
from tests.gateway.routing import CLEAR_KEY, MODEL, connected, founded, key, offered, ready, routing
from tests.gateway.scripted_engine import Line, ScriptedEngine, echo
from tests.gateway.served import Served, served
from tests.given import NOON
from tests.infra.test_upstream_keys import MASTER, Vault

KEY = "sk-canary-of-the-upstream"
CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


async def guarded(line: Line) -> None:
    """A provider: it lets in who has the key, and repeats the wrong one, as providers do."""
    if line.asked.headers.get("authorization") == f"bearer {KEY}":
        await echo(line)
    else:
        words = {"error": {"message": f"Incorrect API key provided: {line.asked.headers.get('authorization')}"}}
        await line.answer(json.dumps(words).encode(), 401)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(guarded) as running:
        yield running


def table_of(upstream: ScriptedEngine, *, path: str = "/v1") -> RoutingTable:
    return routing(key(), connected(url=f"{upstream.url}{path}"))


async def keys_of(table: RoutingTable, folder: Path, clear: str = KEY) -> UpstreamKeys:
    """A gateway's keys after one look, with what an API sealed for it."""
    vault = Vault()
    for credential_id in table.credentials:
        vault.keep(credential_id, clear, ACME)
    write_upstream_key(folder / "secrets", MASTER)
    keys = UpstreamKeys(folder / "secrets", folder / "upstream_keys.json", vault.fetch, lambda: 0.0)
    await keys.look(table.credentials, forget=True)
    return keys


@dataclass(frozen=True)
class Told:
    """What a client sees of an answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, str(json.loads(self.text)["error"]["code"])


async def told(gateway: Served, path: str = CHAT, *, method: str = "POST", **changes: Any) -> Told:
    body = {**ASK, **changes} if method == "POST" else None
    async with (
        gateway.client() as client,
        client.request(method, path, json=body, allow_redirects=False) as reply,
    ):
        return Told(reply.status, reply.headers, await reply.text())


async def test_an_upstream_answers_under_the_organisations_own_name(upstream: ScriptedEngine, tmp_path: Path) -> None:
    table = table_of(upstream)
    keys = await keys_of(table, tmp_path)
    async with served(table, secret_of=keys.find) as gateway:
        listed = await told(gateway, "/v1/models", method="GET")
        assert [model["id"] for model in json.loads(listed.text)["data"]] == [MODEL]
        reply = await told(gateway)
        [record] = await gateway.recorded()
    assert (reply.status, json.loads(reply.text)["usage"]["completion_tokens"]) == (200, 3)
    [asked] = upstream.asked
    assert (asked.path, asked.json["model"], asked.headers["x-request-id"]) == (
        CHAT,
        "large",
        reply.headers["x-request-id"],
    )
    assert (asked.headers["authorization"], asked.headers["host"]) == (f"bearer {KEY}", upstream.url.split("//")[1])
    assert CLEAR_KEY.lower() not in f"{asked.headers}{asked.body!r}".lower()
    assert (record.instance_id, record.deployment_id, record.organization_id) == ("", "u1", ACME)
    assert (record.prompt_tokens, record.completion_tokens, record.counted_by) == (11, 3, "engine")


async def test_a_stream_of_an_upstream_is_counted_to_its_end(upstream: ScriptedEngine, tmp_path: Path) -> None:
    table = table_of(upstream, path="/openai/v1")
    keys = await keys_of(table, tmp_path)
    async with served(table, secret_of=keys.find) as gateway:
        reply = await told(gateway, stream=True)
        [record] = await gateway.recorded()
    assert reply.text.endswith("data: [DONE]\n\n")
    assert "usage" not in reply.text
    assert upstream.asked[0].path == "/openai/v1/chat/completions"
    assert "continuous_usage_stats" not in str(upstream.asked[0].json)  # vLLM's own word; a provider may refuse it
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == ("completed", 11, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_the_upstream_refuses_is_not_told_as_the_clients_own(
    upstream: ScriptedEngine, tmp_path: Path, *, stream: bool
) -> None:
    table = table_of(upstream)
    keys = await keys_of(table, tmp_path, "sk-wrong-but-secret")
    async with served(table, secret_of=keys.find) as gateway:
        reply = await told(gateway, stream=stream)
        assert reply.refusal == (502, "upstream_refused_us")
        assert "sk-wrong" not in f"{reply.text}{reply.headers}"
        [record] = await gateway.recorded()
    assert (record.status_code, record.completion_tokens) == (502, 0)
    assert len(upstream.asked) == 1  # the control: it was asked, and said no


async def test_an_upstreams_rate_limit_passes_with_its_seconds_and_not_with_its_words(tmp_path: Path) -> None:
    async def limited(line: Line) -> None:
        body = b'{"error": {"message": "Rate limit reached in organization org-of-acme"}}'
        head = b"HTTP/1.1 429 X\r\nretry-after: 17\r\nset-cookie: a=b\r\ncontent-length: %d\r\n\r\n" % len(body)
        line.writer.write(head + body)
        await line.writer.drain()

    async with ScriptedEngine(limited) as upstream:
        table = table_of(upstream)
        keys = await keys_of(table, tmp_path)
        async with served(table, secret_of=keys.find) as gateway:
            reply = await told(gateway)
    assert reply.refusal == (429, "upstream_rate_limited")
    assert (reply.headers["retry-after"], "set-cookie" in reply.headers) == ("17", False)
    assert "org-of-acme" not in reply.text


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with ScriptedEngine(echo) as inside:

        async def elsewhere(line: Line) -> None:
            line.writer.write(f"HTTP/1.1 307 X\r\nlocation: {inside.url}/v1\r\ncontent-length: 0\r\n\r\n".encode())
            await line.writer.drain()

        async with ScriptedEngine(elsewhere) as upstream:
            table = table_of(upstream)
            keys = await keys_of(table, tmp_path)
            async with served(table, secret_of=keys.find) as gateway:
                reply = await told(gateway)
        assert reply.refusal == (502, "upstream_refused_us")
        assert "location" not in reply.headers
        assert (len(upstream.asked), inside.asked) == (1, [])


async def test_nothing_is_sent_without_the_key_that_is_needed(upstream: ScriptedEngine) -> None:
    async with served(table_of(upstream), secret_of=lambda _: None) as gateway:
        assert (await told(gateway)).refusal == (502, "upstream_key_unavailable")
    assert upstream.asked == []


async def test_machines_answer_while_a_key_cannot_be_had(upstream: ScriptedEngine) -> None:
    async with ScriptedEngine(echo) as machine:
        table = routing(key(), connected(url=f"{upstream.url}/v1"), ready("i1", machine.url))
        async with served(table, secret_of=lambda _: None) as gateway:
            assert [(await told(gateway)).status for _ in range(4)] == [200] * 4
    assert (len(machine.asked), upstream.asked) == (4, [])


async def test_an_upstream_that_needs_no_key_is_sent_none() -> None:
    async with ScriptedEngine(echo) as upstream:
        table = routing(key(), connected(url=f"{upstream.url}/v1", key_digest=""))
        async with served(table) as gateway:
            assert (await told(gateway)).status == 200
        assert "authorization" not in upstream.asked[0].headers


async def test_another_organisation_calls_it_as_an_offering_and_its_key_stays_its_own(
    upstream: ScriptedEngine, tmp_path: Path
) -> None:
    table = routing(key(organization=GLOBEX), founded(ACME), connected(url=f"{upstream.url}/v1"), offered())
    keys = await keys_of(table, tmp_path)
    async with served(table, secret_of=keys.find) as gateway:
        reply = await told(gateway, model="acme/chat")
        [record] = await gateway.recorded()
    assert (reply.status, upstream.asked[0].json["model"]) == (200, "large")
    assert (record.organization_id, record.provider_organization_id, record.deployment_id) == (GLOBEX, ACME, "u1")


async def test_an_address_is_judged_again_when_it_is_called(upstream: ScriptedEngine, tmp_path: Path) -> None:
    """Its name may mean another address by now; here it was allowed once, and is not any more."""
    table = table_of(upstream)
    keys = await keys_of(table, tmp_path)
    closed, opened = address_allowed(PUBLIC_ONLY), address_allowed(rules_of(["127.0.0.1"]))
    async with served(table, secret_of=keys.find, address_allowed=closed) as gateway:
        assert (await told(gateway)).refusal == (502, "upstream_unreachable")
    assert (upstream.asked, upstream.accepted) == ([], 0)
    async with served(table, secret_of=keys.find, address_allowed=opened) as gateway:
        assert (await told(gateway)).status == 200


async def test_no_connection_of_our_own_engine_is_lent_to_an_upstream(tmp_path: Path) -> None:
    """Both name one address; what is allowed for the engine is not for the upstream."""
    async with ScriptedEngine(echo) as engine:
        table = routing(key(), ready("i1", engine.url), connected("other", url=f"{engine.url}/v1"))
        keys = await keys_of(table, tmp_path)
        async with served(table, secret_of=keys.find, address_allowed=address_allowed(PUBLIC_ONLY)) as gateway:
            assert (await told(gateway)).status == 200
            assert (await told(gateway, model="other")).refusal == (502, "upstream_unreachable")
        assert len(engine.asked) == 1


async def test_the_key_is_in_no_answer_log_record_spool_or_snapshot(upstream: ScriptedEngine, tmp_path: Path) -> None:
    table = table_of(upstream)
    with structlog.testing.capture_logs() as logs:
        keys = await keys_of(table, tmp_path)
        async with served(table, secret_of=keys.find) as gateway:
            answers = [await told(gateway), await told(gateway, stream=True), await told(gateway, model="nobody")]
            answers += [await told(gateway, path, method="GET") for path in ("/readyz", "/metrics", "/v1/models")]
            records = list(await gateway.recorded(2))
    seen = repr((logs, answers, records, gateway.refusals, gateway.accounts, list(table.rows()), keys))
    snapshot = b"".join(encode_snapshot(table.snapshot(NOON)))
    assert KEY not in seen
    assert KEY.encode() not in snapshot + everything_in(tmp_path)
    assert any(KEY in line.asked.headers["authorization"] for line in upstream.lines)  # the control: it was used


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
