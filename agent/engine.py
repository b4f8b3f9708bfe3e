"""The inference engine beside the agent: started, watched until it has answered once, started again when it dies.

    start ──> up (GET /v1/models is 200) ──> loaded (lists our model) ──> warm (answered one short chat) ──> watched
      ^                                                                                                        │
      └──────────── back-off ──────── process ended <───────────────────────────────────────────────────────────┘

A milestone is lost when the process ends, or when MISSED_PROBES probes in a row fail. The surprising rule: an engine
that hangs is reported, not killed. It may be busy with a long prompt, and whether to reinstall is the control plane's
decision.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from agent.child import Child
from agent.event_log import REPEAT_FAILURE_S, EventLog
from agent.measure import engine_load
from agent.protocol import MAX_PATHS, EngineLoad

FIRST_POLL_S = 0.02
STARTING_POLL_S = 1.0
WATCH_POLL_S = 2.0
MISSED_PROBES = 3

PROBE_TIMEOUT_S = 3.0
WARMUP_TIMEOUT_S = 120.0
"""The first request compiles kernels on some hosts."""

FIRST_RESTART_S = 0.5
LAST_RESTART_S = 60.0
LONG_LIFE_S = 120.0
"""An engine that lived this long starts its back-off anew."""

STOP_TIMEOUT_S = 10.0


class Milestones(msgspec.Struct, frozen=True):
    """How far the engine has come; each one implies those before it.

    Attributes:
        paths: that it answers POST at, asked once when the model is loaded; empty when it does not say.
        context_tokens: the longest prompt and answer together; 0 when it does not say.
    """

    up: bool = False
    loaded: bool = False
    warm: bool = False
    paths: tuple[str, ...] = ()
    context_tokens: int = 0


@dataclass(frozen=True)
class EngineCommand:
    """How to start one kind of engine; `environment` is the whole of it."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


class UnreachableError(Exception):
    """The engine did not answer, or not in its language; the message says how."""


class Engine(Protocol):
    """What the agent asks of an engine."""

    @property
    def running(self) -> bool: ...

    async def start(self) -> None:
        """Raises OSError when the process cannot be started."""
        ...

    async def wait(self) -> int:
        """Returns the exit status, when the process has ended."""
        ...

    async def probe(self, known: Milestones) -> Milestones:
        """The milestones that hold now; the warm-up is done once, when `known` does not have it yet.

        Raises:
            UnreachableError: the engine cannot be spoken to, so none of them holds.
        """
        ...

    async def load(self) -> EngineLoad | None:
        """Requests in the engine; None when it does not say."""
        ...

    async def stop(self) -> None: ...


class ChildEngine:
    """An engine that is a child process and speaks vLLM's HTTP on this host."""

    def __init__(
        self,
        command: EngineCommand,
        child: Child,
        http: aiohttp.ClientSession,
        *,
        model_id: str,
        url: str,
        metrics_url: str,
        warmup: bool,
    ) -> None:
        self._command = command
        self._child = child
        self._http = http
        self._model_id = model_id
        self._url = url
        self._metrics_url = metrics_url
        self._warmup = warmup

    @property
    def running(self) -> bool:
        return self._child.running

    async def start(self) -> None:
        await self._child.start(self._command.argv, self._command.environment)

    async def wait(self) -> int:
        return await self._child.wait()

    async def stop(self) -> None:
        await self._child.stop(STOP_TIMEOUT_S)

    async def probe(self, known: Milestones) -> Milestones:
        listed = await self._listed_models()
        if listed is None:
            return Milestones()
        model = next((model for model in listed if model.id == self._model_id), None)
        if model is None:
            return Milestones(up=True)
        paths = known.paths if known.loaded else await self._post_paths()
        warm = known.warm or not self._warmup or (known.loaded and await self._warm_up())
        return Milestones(up=True, loaded=True, warm=warm, paths=paths, context_tokens=model.max_model_len or 0)

    async def load(self) -> EngineLoad | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._http.get(self._metrics_url, timeout=_timeout(PROBE_TIMEOUT_S)) as reply:
                if reply.status == 200:
                    return engine_load(await reply.text())
        return None

    async def _listed_models(self) -> "list[_ListedModel] | None":
        try:
            async with self._http.get(f"{self._url}/v1/models", timeout=_timeout(PROBE_TIMEOUT_S)) as reply:
                if reply.status != 200:
                    return None
                return msgspec.json.decode(await reply.read(), type=_ModelList).data
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            raise UnreachableError(f"/v1/models: {str(error) or 'no answer in time'}") from error

    async def _post_paths(self) -> tuple[str, ...]:
        """From the engine's own description; an engine without one is served all the same."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            async with self._http.get(f"{self._url}/openapi.json", timeout=_timeout(PROBE_TIMEOUT_S)) as reply:
                if reply.status == 200:
                    described = msgspec.json.decode(await reply.read(), type=_Description).paths
                    return tuple(sorted(path for path, methods in described.items() if "post" in methods)[:MAX_PATHS])
        return ()

    async def _warm_up(self) -> bool:
        """One chat of one token; a refusal (4xx) counts, since it is an answer: a model need not know how to chat."""
        question = {"model": self._model_id, "max_tokens": 1, "messages": [{"role": "user", "content": "ping"}]}
        try:
            async with self._http.post(
                f"{self._url}/v1/chat/completions", json=question, timeout=_timeout(WARMUP_TIMEOUT_S)
            ) as reply:
                await reply.read()
                return reply.status < 500
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"warm-up chat: {str(error) or 'no answer in time'}") from error


class _ListedModel(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Description(msgspec.Struct):
    """An engine's /openapi.json: path -> method -> whatever."""

    paths: dict[str, dict[str, msgspec.Raw]]


class _ModelList(msgspec.Struct):
    data: list[_ListedModel]


async def keep_engine_running(engine: Engine, report: Callable[[Milestones], None], log: EventLog) -> None:
    """Endless: starts the engine, reports each change of its milestones, starts it again after a back-off."""
    failures = 0
    while True:
        began = time.monotonic()
        try:
            await engine.start()
            log.record("engine_started", "the engine's process was started")
            status = await _watched_life(engine, report, log)
            log.record("engine_exited", f"the engine ended with status {status}", status=status)
        except OSError as error:
            log.record("engine_exited", f"the engine could not be started: {error}")
        report(Milestones())
        failures = 0 if time.monotonic() - began > LONG_LIFE_S else failures + 1
        await asyncio.sleep(restart_delay_s(failures, random.random()))  # noqa: S311 - jitter


def restart_delay_s(failures: int, chance: float) -> float:
    """Doubles from FIRST_RESTART_S up to LAST_RESTART_S, less up to half of it by `chance` (0 to 1)."""
    full = min(LAST_RESTART_S, FIRST_RESTART_S * 2.0 ** min(failures, 16))
    return full * (1 - chance / 2)


async def _watched_life(engine: Engine, report: Callable[[Milestones], None], log: EventLog) -> int:
    watch = asyncio.create_task(_watch(engine, report, log))
    try:
        return await engine.wait()
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


async def _watch(engine: Engine, report: Callable[[Milestones], None], log: EventLog) -> None:
    known, missed, pause_s = Milestones(), 0, FIRST_POLL_S
    while True:
        found = await _probed(engine, known, log)
        missed = 0 if found.up or not known.up else missed + 1
        if found != known and (found.up or missed >= MISSED_PROBES):
            _log_change(known, found, log)
            known = found
            report(known)
            pause_s = FIRST_POLL_S
            continue
        pause_s = WATCH_POLL_S if known.warm else min(pause_s * 1.5, STARTING_POLL_S)
        await asyncio.sleep(pause_s)


async def _probed(engine: Engine, known: Milestones, log: EventLog) -> Milestones:
    try:
        found = await engine.probe(known)
    except UnreachableError as error:
        log.record("vllm_check_exception", str(error), repeat_after_s=REPEAT_FAILURE_S)
        return Milestones()
    if found == known and not found.warm:
        log.record("vllm_check_failed", f"not ready: {_missing(found)}", repeat_after_s=REPEAT_FAILURE_S)
    return found


def _log_change(before: Milestones, now: Milestones, log: EventLog) -> None:
    if now.warm and not before.warm:
        log.record("vllm_ready", "the engine serves the model")
    elif before.warm and not now.warm:
        log.record("vllm_not_ready", f"the engine no longer serves: {_missing(now)}")


def _missing(milestones: Milestones) -> str:
    if not milestones.up:
        return "/v1/models is not 200"
    return "no warm-up chat answered yet" if milestones.loaded else "the model is not listed"


def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s)
