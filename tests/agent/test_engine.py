"""The engine's supervision, with a scripted engine in place of a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent import engine as supervised
from agent.engine import Milestones, UnreachableError, keep_engine_running, restart_delay_s
from agent.event_log import EventLog, RotatingFile
from agent.loop import drained
from agent.protocol import EngineLoad
from tests.agent.stand_in import WAIT_S

UP = Milestones(up=True)
LOADED = Milestones(up=True, loaded=True)
WARM = Milestones(up=True, loaded=True, warm=True)
DOWN = Milestones()


class ScriptedEngine:
    """Answers probes from a script, its last line for ever; ends when it is told to."""

    def __init__(self, *script: Milestones | Exception) -> None:
        self.script = list(script)
        self.starts = 0
        self.loads: list[EngineLoad | None] = []
        self.refuses_to_start = False
        self._ended = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.starts > 0 and not self._ended.is_set()

    async def start(self) -> None:
        self.starts += 1
        self._ended.clear()
        if self.refuses_to_start:
            raise FileNotFoundError("no such engine")

    async def wait(self) -> int:
        await self._ended.wait()
        return 7

    async def probe(self, known: Milestones) -> Milestones:
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def load(self) -> EngineLoad | None:
        return self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]

    async def stop(self) -> None:
        self._ended.set()


class Supervision:
    def __init__(self, engine: ScriptedEngine, log: EventLog) -> None:
        self.engine = engine
        self.log = log
        self.reports: list[Milestones] = []
        self._news = asyncio.Condition()

    def report(self, milestones: Milestones) -> None:
        self.reports.append(milestones)

    def logged(self) -> list[str]:
        return [event.event_type for event in self.log.read()[1]]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():  # noqa: ASYNC110 - the script's progress is nobody's event
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_POLL_S", "STARTING_POLL_S", "WATCH_POLL_S", "FIRST_RESTART_S"):
        monkeypatch.setattr(supervised, pause, 0.001)


@asynccontextmanager
async def supervising(engine: ScriptedEngine, folder: Path) -> AsyncIterator[Supervision]:
    log = EventLog(RotatingFile(folder / "events.log"), worker_id="w", instance_id="i")
    supervision = Supervision(engine, log)
    task = asyncio.create_task(keep_engine_running(engine, supervision.report, log))
    try:
        yield supervision
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        log.close()


async def test_each_milestone_is_reported_once_in_order(tmp_path: Path) -> None:
    script = (UnreachableError("refused"), DOWN, UP, UP, LOADED, WARM)
    async with supervising(ScriptedEngine(*script), tmp_path) as supervision:
        await supervision.until(lambda: WARM in supervision.reports)
    assert supervision.reports == [UP, LOADED, WARM]
    assert supervision.logged()[-1] == "vllm_ready"
    assert "vllm_check_exception" in supervision.logged()


async def test_an_engine_that_died_is_started_again_and_earns_its_milestones_anew(tmp_path: Path) -> None:
    engine = ScriptedEngine(LOADED, WARM)
    async with supervising(engine, tmp_path) as supervision:
        await supervision.until(lambda: WARM in supervision.reports)
        await engine.stop()
        await supervision.until(lambda: supervision.reports.count(WARM) == 2)
    assert supervision.reports == [LOADED, WARM, DOWN, WARM]
    assert engine.starts == 2
    assert "engine_exited" in supervision.logged()


async def test_an_engine_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(WARM)
    engine.refuses_to_start = True
    async with supervising(engine, tmp_path) as supervision:
        await supervision.until(lambda: engine.starts >= 3)
        engine.refuses_to_start = False
        await supervision.until(lambda: WARM in supervision.reports)
    assert supervision.logged().count("engine_exited") >= 3


async def test_one_missed_probe_changes_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(WARM, UnreachableError("busy"), WARM)
    async with supervising(engine, tmp_path) as supervision:
        await supervision.until(lambda: len(engine.script) == 1)
    assert supervision.reports == [WARM]


async def test_three_missed_probes_in_a_row_take_the_milestones_away(tmp_path: Path) -> None:
    engine = ScriptedEngine(WARM, UnreachableError("hangs"))
    async with supervising(engine, tmp_path) as supervision:
        await supervision.until(lambda: DOWN in supervision.reports)
        engine.script = [WARM]
        await supervision.until(lambda: supervision.reports == [WARM, DOWN, WARM])
    assert engine.starts == 1, "a hanging engine is reported, not killed"
    assert "vllm_not_ready" in supervision.logged()


async def test_a_model_that_is_no_longer_listed_is_reported_at_once(tmp_path: Path) -> None:
    async with supervising(ScriptedEngine(WARM, UP), tmp_path) as supervision:
        await supervision.until(lambda: UP in supervision.reports)
    assert supervision.reports == [WARM, UP]


def test_the_back_off_doubles_up_to_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "FIRST_RESTART_S", 0.5)
    assert [restart_delay_s(failures, 0) for failures in (0, 1, 2, 10, 10**6)] == [0.5, 1.0, 2.0, 60.0, 60.0]
    assert restart_delay_s(0, 1) == 0.25, "jitter takes up to half"


def busy(requests: int) -> EngineLoad:
    return EngineLoad(requests_running=requests, queue_depth=requests)


async def test_draining_waits_for_two_quiet_readings_in_a_row() -> None:
    engine = ScriptedEngine(WARM)
    await engine.start()
    engine.loads = [busy(1), busy(0), busy(1), busy(0), busy(0), busy(5)]
    assert await drained(engine, timeout_s=WAIT_S)
    assert engine.loads == [busy(5)], "it read no further than the second quiet one"


async def test_draining_gives_up_when_its_time_is_up() -> None:
    engine = ScriptedEngine(WARM)
    await engine.start()
    engine.loads = [busy(1)]
    assert not await drained(engine, timeout_s=0.05)


async def test_an_engine_that_does_not_say_its_load_is_not_taken_to_be_idle() -> None:
    engine = ScriptedEngine(WARM)
    await engine.start()
    engine.loads = [None]
    assert not await drained(engine, timeout_s=0.05)


async def test_an_engine_that_has_ended_is_drained() -> None:
    assert await drained(ScriptedEngine(WARM), timeout_s=WAIT_S)
