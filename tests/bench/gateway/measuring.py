"""The whole measurement: contenders take turns, each started fresh; what they cost goes into figures.Measured.

    for each repeat:  ours, vllm-router, nginx, nginx-again, litellm   (backwards in every second one)
        start ──> plain, streams, flood ──> stop
    then: first byte through ours and directly, in turns; memory at rest and with a thousand streams; accounts; choice

One engine of two workers and one nats-server serve the whole measurement. The surprising rule: our cost of a run is the
dearer of two, what the window shows and what the whole run cost until USAGE held every record, so that work which is
put off is paid for as well.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from infra.embedded.child import EmbeddedServerError, stop, wait_until
from infra.embedded.ports import free_port
from infra.environment import surroundings
from tests.bench.gateway import choice, scenarios
from tests.bench.gateway.contenders import FIRST_PORT, Running, running
from tests.bench.gateway.figures import OURS, Measured, Outcome, cost_us, failure_of
from tests.bench.gateway.ours import COMMAND, Platform, UnaccountedError, platform, running_ours
from tests.bench.gateway.processes import busy_s, cores, cpu_ns, family, on_core, others_cores, resident_mb, start
from tests.bench.gateway.scenarios import COSTS, Scenario
from tests.bench.gateway.toolbox import FOLDER, HERE, MissingError, build_programs, is_prepared, python_like_ours

ONLY_PLAIN = ("nginx-again", "litellm")
LITELLM = replace(COSTS["plain_c64"], warm_ms=4000, window_ms=8000)
"""A hundred requests a second want a longer look, and its first ones are dearer."""
QUICK_SHARE = 0.5
REPEATS = 3
START_S = {"nginx": 1.0, "nginx-again": 1.0, "vllm-router": 4.0, "litellm": 25.0, OURS: 4.0}
TIMED_TOO = ("vllm-router", "nginx")
"""Whose added time to first byte is told beside ours, to compare."""
ENGINE_S = 5.0
COUNT_S = 10.0
HELD_S = 20.0
POLL_S = 0.05
STEADY_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        contenders: besides ours.
        share: of each window.
        variables: of our gateway's process.
        python: interpreter of our gateway, with the same distributions as ours; None: our own.
        arguments: of that interpreter.
        parts: of PARTS, and choice.
    """

    contenders: Sequence[str]
    costs: Mapping[str, Scenario]
    repeats: int = REPEATS
    share: float = 1.0
    parts: Sequence[str] = ("costs", "first_byte", "memory", "choice")
    variables: Mapping[str, str] = field(default_factory=dict)
    python: Path | None = None
    arguments: Sequence[str] = COMMAND

    def costs_of(self, contender: str) -> Mapping[str, Scenario]:
        """The scenarios that this contender goes through."""
        if contender in ONLY_PLAIN:
            wanted = {name: one for name, one in self.costs.items() if name == "plain_c64"}
            return {name: LITELLM if contender == "litellm" else one for name, one in wanted.items()}
        return self.costs


def quick(plan: Plan) -> Plan:
    """One repeat with shorter windows; LiteLLM only if it is there already."""
    contenders = [one for one in plan.contenders if one != "litellm" or is_prepared(one)]
    return replace(plan, contenders=contenders, repeats=1, share=QUICK_SHARE)


def profiled(plan: Plan, out: Path) -> Plan:
    """Ours alone, once, under the sampler; its figures are worth nothing."""
    arguments = (str(HERE / "sampling.py"), str(out))
    return replace(plan, contenders=(), repeats=1, parts=("costs",), arguments=arguments)


class Progress:
    """Says what runs, and how long the rest will take.

    Args:
        say: takes one line.
        total_s: of the whole plan, roughly.
    """

    def __init__(self, say: Callable[[str], None], total_s: float) -> None:
        self._say = say
        self._left_s = total_s

    def step(self, what: str, takes_s: float) -> None:
        self._say(f"{what:44} about {max(self._left_s, takes_s):4.0f} s left")
        self._left_s -= takes_s


@dataclass(frozen=True)
class Ground:
    """What every run stands on; `engines` are the ports of the workers."""

    plan: Plan
    folder: Path
    gateway_core: int
    load_core: int
    engines: Sequence[int]
    on: Platform
    measured: Measured
    progress: Progress
    python: Path

    async def run(self, scenario: Scenario, gateway: Running) -> Outcome:
        wanted = scenarios.shortened(scenario, self.plan.share)
        return await scenarios.run(wanted, gateway, programs=FOLDER, core=self.load_core, engine=self.engines[0])

    async def run_ours(self, scenario: Scenario, gateway: Running) -> tuple[Outcome, float]:
        """Also: microseconds of CPU for each request or token, until USAGE held all records.

        Raises:
            UnaccountedError: requests failed, clients saw usage that they had not asked for, or records are missing.
        """
        before_ns = cpu_ns(family(gateway.pid))
        outcome = await self.run(scenario, gateway)
        if failure := failure_of(outcome) if scenario.window_ms else "":
            raise UnaccountedError(failure)
        if outcome.usage_shown:
            raise UnaccountedError(f"{outcome.usage_shown} chunks of usage shown to clients who had not asked for them")
        self.on.answered += outcome.answered
        self.on.tokens += outcome.answered * scenario.tokens
        await self.on.until_settled()
        whole_us = (cpu_ns(family(gateway.pid)) - before_ns) / 1000
        return outcome, whole_us / (outcome.answered if scenario.per == "request" else outcome.tokens)

    def ours(self, name: str) -> AbstractAsyncContextManager[Running]:
        return running_ours(self.on, self.folder / name, self.gateway_core, (self.python, *self.plan.arguments))


async def measure(plan: Plan, say: Callable[[str], None]) -> Measured:
    """Everything in the plan.

    Raises:
        MissingError: the harness itself cannot be built here.
        RuntimeError: the machine has too few cores.
    """
    gateway_core, load_core = cores()
    await build_programs()
    python = Path(sys.executable) if plan.python is None else await python_like_ours(plan.python)
    measured, began_s, busy_before_s = Measured(), time.monotonic(), busy_s()
    with tempfile.TemporaryDirectory(prefix="inventiv-bench-") as name, on_core(load_core):
        folder = Path(name)
        async with engine(folder, load_core) as engines, platform(folder, load_core, engines) as on:
            on.variables.update(plan.variables)
            progress = Progress(say, _takes_s(plan))
            ground = Ground(plan, folder, gateway_core, load_core, engines, on, measured, progress, python)
            for part, measure_part in PARTS.items():
                if part in plan.parts:
                    try:
                        await measure_part(ground)
                    except (UnaccountedError, EmbeddedServerError) as error:
                        measured.fail(OURS if part == "costs" else f"{OURS}: {part}", str(error))
    measured.note("others_cores", others_cores(began_s, busy_before_s))
    if "choice" in plan.parts:
        _measure_choice(measured, say)
    return measured


async def _costs(ground: Ground) -> None:
    """Everybody in turn, each started fresh; and every usage record that this made."""
    for repeat in range(ground.plan.repeats):
        turn = [OURS, *ground.plan.contenders]
        for contender in turn if repeat % 2 == 0 else reversed(turn):
            if contender == OURS:
                await _costs_of_ours(ground, repeat)
            elif contender not in ground.measured.missing:
                await _costs_of(ground, contender, repeat)
    ground.progress.step("reading every usage record", COUNT_S)
    await ground.on.count()
    ground.measured.note("usage_records", ground.on.answered)


async def _costs_of(ground: Ground, contender: str, repeat: int) -> None:
    ground.progress.step(f"{contender}: start", START_S[contender])
    place = ground.folder / f"{contender}-{repeat}"
    try:
        async with running(contender, place, ground.gateway_core, ground.engines) as gateway:
            for name, scenario in ground.plan.costs_of(contender).items():
                ground.progress.step(f"{contender}: {name}", scenario.takes_s)
                outcome = await ground.run(scenario, gateway)
                if failure := failure_of(outcome):
                    ground.measured.fail(contender, f"{name}: {failure}")
                    return
                ground.measured.add(name, contender, scenario.per, outcome)
    except MissingError as error:
        ground.measured.fail(contender, str(error))


async def _costs_of_ours(ground: Ground, repeat: int) -> None:
    ground.progress.step(f"{OURS}: start", START_S[OURS])
    async with ground.ours(f"{OURS}-{repeat}") as gateway:
        for name, scenario in ground.plan.costs.items():
            ground.progress.step(f"{OURS}: {name}", scenario.takes_s)
            outcome, whole_us = await ground.run_ours(scenario, gateway)
            window_us = cost_us(outcome, scenario.per)
            ground.measured.add(name, OURS, scenario.per, outcome, max(window_us, whole_us))
            ground.measured.note(f"{name}_window_us", window_us)


async def _first_byte(ground: Ground) -> None:
    """What a gateway adds to the time until the first byte, at a hundred streams a second."""
    scenario = scenarios.FIRST_BYTE
    for repeat in range(ground.plan.repeats):
        ground.progress.step("directly: first byte", scenario.takes_s)
        direct = await ground.run(scenario, Running(ground.engines[0]))
        ground.progress.step(f"{OURS}: first byte", scenario.takes_s + START_S[OURS])
        async with ground.ours(f"first-byte-{repeat}") as gateway:
            outcome, _ = await ground.run_ours(scenario, gateway)
        _note_added(ground.measured, "", outcome, direct)
        for contender in (one for one in TIMED_TOO if one in ground.plan.contenders):
            ground.progress.step(f"{contender}: first byte", scenario.takes_s + START_S[contender])
            place = ground.folder / f"{contender}-first-byte-{repeat}"
            try:
                async with running(contender, place, ground.gateway_core, ground.engines) as gateway:
                    outcome = await ground.run(scenario, gateway)
            except MissingError as error:
                ground.measured.fail(contender, str(error))
                continue
            if failure := failure_of(outcome):
                ground.measured.fail(contender, f"first byte: {failure}")
            else:
                _note_added(ground.measured, f"_{contender}", outcome, direct)


def _note_added(measured: Measured, suffix: str, through: Outcome, direct: Outcome) -> None:
    measured.note(f"ttfb_added_p50_ms{suffix}", (through.first_byte_us_p50 - direct.first_byte_us_p50) / 1000)
    measured.note(f"ttfb_added_p99_ms{suffix}", (through.first_byte_us_p99 - direct.first_byte_us_p99) / 1000)


async def _memory(ground: Ground) -> None:
    """At rest after a thousand requests, and with a thousand streams open."""
    ground.progress.step("memory", HELD_S + START_S[OURS])
    async with ground.ours("memory") as gateway:
        await ground.run_ours(scenarios.REST, gateway)
        rest_mb = resident_mb(family(gateway.pid))
        held = asyncio.create_task(ground.run_ours(scenarios.HELD, gateway))
        try:
            held_mb = await _held_mb(ground.engines[0], gateway)
        finally:
            await held
    ground.measured.note("rest_mb", rest_mb)
    ground.measured.note("kb_per_stream", (held_mb - rest_mb) * 1000 / scenarios.OPEN_STREAMS)


async def _held_mb(engine: int, gateway: Running) -> float:
    """Memory while all streams are open.

    Raises:
        UnaccountedError: they never were, or did not stay so.
    """
    most = 0

    async def all_open() -> bool:
        nonlocal most
        most = max(most, scenarios.counts_of(engine).streams_open)
        return most == scenarios.OPEN_STREAMS

    try:
        await wait_until(all_open, "a thousand open streams", HELD_S)
    except EmbeddedServerError as error:
        raise UnaccountedError(f"of {scenarios.OPEN_STREAMS} streams no more than {most} were open at once") from error
    await asyncio.sleep(STEADY_S)
    held_mb = resident_mb(family(gateway.pid))
    if scenarios.counts_of(engine).streams_open < scenarios.OPEN_STREAMS:
        raise UnaccountedError("the streams ended before their memory was looked at")
    return held_mb


def _measure_choice(measured: Measured, say: Callable[[str], None]) -> None:
    say("choice among a thousand workers, admission among a hundred thousand keys")
    for figure, value in choice.measure().items():
        measured.note(figure, value)


PARTS: Mapping[str, Callable[[Ground], Awaitable[None]]] = {
    "costs": _costs,
    "first_byte": _first_byte,
    "memory": _memory,
}
"""Each with gateways of its own: what one part could not measure is null, and the others stand."""


@asynccontextmanager
async def engine(folder: Path, core: int) -> AsyncIterator[Sequence[int]]:
    """The ports of two workers in one process."""
    first = free_port(FIRST_PORT + 300)
    ports = first, free_port(first + 1)
    command = [FOLDER / "engine", *map(str, ports)]
    process = await start(command, core=core, log=folder / "engine.log", variables=surroundings())
    try:
        await wait_until(lambda: _listens(ports[1]), "the engine", ENGINE_S)
        yield ports
    finally:
        await stop(process, grace_s=ENGINE_S)


async def _listens(port: int) -> bool:
    try:
        scenarios.counts_of(port)
    except httpx.TransportError:
        return False
    return True


def _takes_s(plan: Plan) -> float:
    total_s = 0.0
    if "costs" in plan.parts:
        for contender in (OURS, *plan.contenders):
            takes_s = sum(scenario.takes_s for scenario in plan.costs_of(contender).values())
            total_s += plan.repeats * (START_S[contender] + takes_s)
    if "first_byte" in plan.parts:
        timed = [OURS, *(one for one in TIMED_TOO if one in plan.contenders)]
        each_s = sum(scenarios.FIRST_BYTE.takes_s + START_S[one] for one in timed)
        total_s += plan.repeats * (scenarios.FIRST_BYTE.takes_s + each_s)
    return total_s + (HELD_S + START_S[OURS] if "memory" in plan.parts else 0.0)
