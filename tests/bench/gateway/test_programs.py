"""The load generator notices whatever makes a cheap answer a wrong one; the engine does what it is asked."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.bench.gateway import scenarios
from tests.bench.gateway.contenders import MODEL, Running
from tests.bench.gateway.figures import Outcome, failure_of
from tests.bench.gateway.measuring import engine
from tests.bench.gateway.scenarios import Scenario
from tests.bench.gateway.toolbox import FOLDER, build_programs

STREAM = Scenario(per="token", connections=4, stream=True, tokens=7, requests=20)
PLAIN = Scenario(connections=4, requests=20)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"delta":{"content":" 1"}}]}\n\n'
DONE = b"data: [DONE]\n\n"

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here; the measurement itself fetches one"
)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[int]:
    """A port of the fake engine."""
    await build_programs()
    async with engine(tmp_path, 0) as ports:
        yield ports[0]


async def asked(scenario: Scenario, port: int, worker: int) -> Outcome:
    return await scenarios.run(scenario, Running(port), programs=FOLDER, core=0, engine=worker)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def answering(answer: bytes, *, closes: bool = False) -> AsyncIterator[int]:
    """A server that gives this answer to everyone; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            await reader.readexactly(length)
            assert head.startswith(b"POST /v1/chat/completions")
            writer.write(answer)
            if closes:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_every_stream_and_token_is_counted(worker: int) -> None:
    outcome = await asked(STREAM, worker, worker)
    assert (outcome.answered, outcome.errors, outcome.tokens, outcome.usage_shown) == (20, 0, 140, 0)
    counts = scenarios.counts_of(worker)
    assert (counts.requests, counts.finished, counts.abandoned, counts.tokens) == (20, 20, 0, 140)


async def test_plain_answers_are_counted_too(worker: int) -> None:
    outcome = await asked(PLAIN, worker, worker)
    assert (outcome.answered, outcome.errors, outcome.unfinished) == (20, 0, 0)


async def test_the_engine_sends_usage_only_to_who_asks(worker: int) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": MODEL, "stream": True, "max_tokens": 3, "messages": []}
    for asks, usages in ((None, 0), (options, 5)):
        more = {"stream_options": asks} if asks else {}
        reply = await _post(worker, {**body, **more})
        events = [json.loads(line[6:]) for line in reply.splitlines() if line.startswith("data: {")]
        assert sum("usage" in event for event in events) == usages
        assert reply.endswith("data: [DONE]\n\n")
        content = [event for event in events if event["choices"] and event["choices"][0]["delta"]["content"]]
        assert len(content) == 3


async def _post(port: int, body: dict[str, object]) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)).text


async def test_a_paced_stream_takes_its_time(worker: int) -> None:
    began_s = asyncio.get_running_loop().time()
    scenario = Scenario(per="token", connections=1, stream=True, tokens=10, requests=1, first_us=5000, each_us=10_000)
    assert (await asked(scenario, worker, worker)).tokens == 10
    assert asyncio.get_running_loop().time() - began_s >= 0.095


WRONG: dict[str, tuple[bytes, bool]] = {
    "of 7 tokens": (HEAD + chunk(TOKEN * 6 + DONE) + chunk(b""), False),
    "[DONE]: 0": (HEAD + chunk(TOKEN * 7) + chunk(b""), False),
    "ended in the middle": (HEAD + chunk(TOKEN * 7 + DONE), True),
    "an error event": (HEAD + chunk(TOKEN + b'data: {"error":{"code":"upstream"}}\n\n' + DONE) + chunk(b""), False),
    "status 503": (b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}", False),
    "neither a length": (b"HTTP/1.1 200 OK\r\n\r\n" + TOKEN * 7 + DONE, True),
}


@pytest.mark.parametrize("trouble", WRONG)
async def test_an_answer_that_is_not_whole_is_an_error(trouble: str, worker: int) -> None:
    answer, closes = WRONG[trouble]
    async with answering(answer, closes=closes) as port:
        outcome = await asked(STREAM, port, worker)
    assert outcome.answered == 0
    assert trouble in failure_of(outcome)


async def test_a_whole_answer_of_any_cut_is_none(worker: int) -> None:
    """The control of the specification above: the same bytes, whole, in chunks that cut events in two."""
    events = TOKEN * 7 + DONE
    pieces = b"".join(chunk(events[at : at + 5]) for at in range(0, len(events), 5))
    async with answering(HEAD + pieces + chunk(b"")) as port:
        outcome = await asked(STREAM, port, worker)
    assert (outcome.answered, outcome.errors, outcome.tokens) == (20, 0, 140)


async def test_usage_that_nobody_asked_for_is_seen(worker: int) -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
    async with answering(HEAD + chunk(TOKEN * 7 + usage + DONE) + chunk(b"")) as port:
        assert (await asked(STREAM, port, worker)).usage_shown == 20


async def test_where_nobody_listens_the_load_gives_up(worker: int) -> None:
    async with answering(b"") as port:
        pass
    assert "refused" in failure_of(await asked(PLAIN, port, worker))
