"""The same requests to a real vLLM, directly and through the gateway. Prepare it with `just engine`.

The surprising rule: a real engine is not always equal to itself. It joins tokens into one chunk when its own front is
slower than its generation, so a case is tried again when the two recordings differ; a difference that we make stays.
"""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from domain.instance_events import ModelLoaded
from domain.key_scope import ENGINE_PATHS, endpoints_of
from gateway.relay import Relay
from infra.engine.locate import prepared_engine
from infra.engine.recipe import DEFAULT_FOLDER
from tests.agent.stand_in import ROOT, free_port
from tests.examples import ACME
from tests.gateway.differential.cases import CONVERSATIONS, OWN_WORDS, POOLING, REFUSALS, Case, recorded
from tests.gateway.differential.recorded import differences
from tests.gateway.routing import MODEL, key, ready, routing
from tests.gateway.served import Served, served

ENGINE = prepared_engine(ROOT / DEFAULT_FOLDER)
STARTUP_S = 240.0
STOP_S = 30.0
TRIES = 5
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(STARTUP_S + 120),
    pytest.mark.skipif(ENGINE is None, reason="the real engine is not prepared; run `just engine`"),
]


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    """Its URL, once it lists its model."""
    assert ENGINE is not None
    port = free_port()
    command = [str(ENGINE.vllm_command), "serve", str(ENGINE.model_path), "--served-model-name", MODEL]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *ENGINE.args, *TOOLS],
        env={**os.environ, **ENGINE.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _until_it_answers(process, url)
        yield url
    finally:
        process.terminate()
        process.wait(STOP_S)


def _until_it_answers(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "vLLM ended while it started"
        try:
            if httpx2.get(f"{url}/v1/models", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError("vLLM did not start in time")


@pytest.fixture
async def gateway(vllm: str) -> AsyncIterator[Served]:
    """Its table knows what the engine says of itself, as the agent reports it."""
    async with httpx2.AsyncClient() as client:
        described = (await client.get(f"{vllm}/openapi.json")).json()["paths"]
    offered = endpoints_of(path for path, methods in described.items() if "post" in methods)
    loaded = ModelLoaded(endpoints=offered, context_tokens=1024)
    async with served(routing(key(), ready("i1", vllm), [(ACME, "i1", loaded)])) as running:
        yield running


@pytest.mark.parametrize("name", [*CONVERSATIONS, *REFUSALS])
async def test_every_byte_is_the_engines_own(vllm: str, gateway: Served, name: str) -> None:
    case: Case = {**CONVERSATIONS, **REFUSALS}[name]
    found: list[str] = []
    for _ in range(TRIES):
        direct = await recorded(vllm, MODEL, case)
        through = await recorded(gateway.url, MODEL, case)
        assert {answer.status < 400 for answer in direct} == {name in CONVERSATIONS}
        if not (found := differences(direct, through)):
            return
    assert found == []


@pytest.mark.parametrize("name", OWN_WORDS)
async def test_what_the_gateway_refuses_itself_has_the_engines_status(vllm: str, gateway: Served, name: str) -> None:
    direct = await recorded(vllm, MODEL, OWN_WORDS[name])
    through = await recorded(gateway.url, MODEL, OWN_WORDS[name])
    assert [one.status for one in direct] == [one.status for one in through] == [404]


@pytest.mark.parametrize("name", ["embeddings", "rerank", "transcription"])
async def test_what_the_engine_does_not_offer_is_refused_clearly(gateway: Served, name: str) -> None:
    (answer,) = await recorded(gateway.url, MODEL, POOLING[name])
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "model_does_not_support")


async def test_the_engine_says_what_it_offers(vllm: str) -> None:
    async with httpx2.AsyncClient() as client:
        described = (await client.get(f"{vllm}/openapi.json")).json()["paths"]
    offered = set(endpoints_of(described))
    assert offered <= set(ENGINE_PATHS.values())
    assert {"chat", "completions", "responses", "messages", "tokenize"} <= offered


async def test_one_changed_byte_is_found(vllm: str, gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Relay.receive

    def planted(relay: Relay, data: bytes, *, ended: bool) -> bytes:
        return honest(relay, data, ended=ended).replace(b"assistant", b"assistanT", 1)

    monkeypatch.setattr(Relay, "receive", planted)
    for _ in range(TRIES):
        direct = await recorded(vllm, MODEL, CONVERSATIONS["streamed chat"])
        assert differences(direct, await recorded(gateway.url, MODEL, CONVERSATIONS["streamed chat"])) != []
