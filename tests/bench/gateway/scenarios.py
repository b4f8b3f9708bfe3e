"""What clients do to a gateway while its costs are counted, and how one such run is made.

    plain_c64            64 connections, each asks again at once               us of CPU per request
    stream_64, _256      100 tokens each, one every 10 ms (20 ms), starts spread out    ... per token
    flood                the same without pace                                 ... per token
    first_byte           100 streams a second, whatever happens; through the gateway and directly

Windows begin when the ramp is over and every stream has been asked for again once, so that ends and starts are as
frequent within as they are in the long run.
"""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import msgspec

from tests.bench.gateway.contenders import MODEL, Running
from tests.bench.gateway.figures import Outcome, Per
from tests.bench.gateway.processes import family, on_core

TOKENS = 100
PLAIN_TOKENS = 16
FINISH_S = 60.0
"""A run ends by itself within 30 s of its window."""


@dataclass(frozen=True)
class Scenario:
    """Times in milliseconds, the engine's pace in microseconds.

    Attributes:
        per: what the cost is divided by.
        rate: requests a second; 0: as fast as they are answered.
        requests: so many, and no window.
    """

    per: Per = "request"
    connections: int = 64
    stream: bool = False
    tokens: int = PLAIN_TOKENS
    rate: int = 0
    requests: int = 0
    first_us: int = 0
    each_us: int = 0
    ramp_ms: int = 0
    warm_ms: int = 0
    window_ms: int = 0

    @property
    def takes_s(self) -> float:
        stream_ms = (self.first_us + self.tokens * self.each_us) / 1000
        return (self.warm_ms + self.window_ms + stream_ms) / 1000


_STREAM = Scenario(per="token", stream=True, tokens=TOKENS)
COSTS: Mapping[str, Scenario] = {
    "plain_c64": Scenario(warm_ms=700, window_ms=3000),
    "stream_64": replace(_STREAM, first_us=10_000, each_us=10_000, ramp_ms=1000, warm_ms=2200, window_ms=3000),
    "stream_256": replace(
        _STREAM, connections=256, first_us=20_000, each_us=20_000, ramp_ms=2000, warm_ms=4200, window_ms=4000
    ),
    "flood": replace(_STREAM, warm_ms=700, window_ms=2500),
}
FIRST_BYTE = Scenario(per="token", stream=True, tokens=5, rate=100, each_us=1000, warm_ms=500, window_ms=6000)
REST = Scenario(connections=16, requests=1000)
OPEN_STREAMS = 1000
HELD = Scenario(
    per="token",
    stream=True,
    connections=OPEN_STREAMS,
    tokens=60,
    requests=OPEN_STREAMS,
    first_us=100_000,
    each_us=250_000,
    ramp_ms=2000,
)
"""A thousand streams of fifteen seconds, each once."""


def shortened(scenario: Scenario, share: float) -> Scenario:
    """With a shorter window; the warm-up is what the scenario needs."""
    return replace(scenario, window_ms=int(scenario.window_ms * share))


async def run(scenario: Scenario, gateway: Running, *, programs: Path, core: int, engine: int) -> Outcome:
    """One run.

    Args:
        scenario: what to do.
        gateway: whom to ask, and whose CPU time is counted.
        programs: the folder that holds `load`.
        core: where the load runs.
        engine: port of the engine, to set its pace.

    Raises:
        RuntimeError: the load generator failed.
    """
    set_pace(engine, scenario)
    pids = ",".join(map(str, family(gateway.pid)))
    command = [programs / "load", *_options(scenario, gateway), "--pids", pids]
    with on_core(core):
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(scenario.takes_s + FINISH_S):
        told, trouble = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"load ended with {process.returncode}: {trouble.decode(errors='replace')}")
    return msgspec.json.decode(told, type=Outcome)


def _options(scenario: Scenario, gateway: Running) -> list[str]:
    numbers = {
        "port": gateway.port,
        "connections": scenario.connections,
        "tokens": scenario.tokens,
        "rate": scenario.rate,
        "requests": scenario.requests,
        "ramp-ms": scenario.ramp_ms,
        "warm-ms": scenario.warm_ms,
        "window-ms": scenario.window_ms,
    }
    words = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    return [*words, "--key", gateway.key, "--model", MODEL, *(["--stream"] if scenario.stream else [])]


class Counts(msgspec.Struct, frozen=True):
    """What the engine did since its start."""

    requests: int
    finished: int
    abandoned: int
    tokens: int
    streams_open: int


def set_pace(engine: int, scenario: Scenario) -> None:
    url = f"http://127.0.0.1:{engine}/pace"
    httpx.get(url, params={"first_us": scenario.first_us, "each_us": scenario.each_us}, trust_env=False)


def counts_of(engine: int) -> Counts:
    reply = httpx.get(f"http://127.0.0.1:{engine}/counts", trust_env=False)
    return msgspec.json.decode(reply.content, type=Counts)
