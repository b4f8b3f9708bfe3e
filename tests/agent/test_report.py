"""Reporting, against a stand-in for the control plane: what is refused, what is lost, what is kept."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent import report
from agent.credentials import Credentials, CredentialStore
from agent.dead_man import DeadMan
from agent.engine import Milestones
from agent.event_log import EventLog, RotatingFile
from agent.measure import Meter, SystemMeter
from agent.protocol import AgentInfo, EngineLoad
from agent.report import ControlPlane, Reporter, retry_delay_s
from agent.settings import settings_from
from agent.worker import Worker
from tests.agent.stand_in import BOOTSTRAP_TOKEN, INSTANCE, MODEL, WORKER_TOKEN, StandIn, eventually, stand_in

CREDENTIALS = Credentials(INSTANCE, "w", WORKER_TOKEN)
REGISTRATION_REFUSALS = [
    (401, "unauthorized"),
    (404, "instance_not_found"),
    (404, ""),
    (409, "token_already_exists"),
    (502, ""),
]


class Reporting:
    def __init__(self, reporter: Reporter, worker: Worker, store: CredentialStore, log: EventLog) -> None:
        self.reporter = reporter
        self.worker = worker
        self.store = store
        self.log = log

    def logged(self) -> list[str]:
        return [event.event_type for event in self.log.read()[1]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FIRST_RETRY_S", 0.001)


@pytest.fixture
async def plane() -> AsyncIterator[StandIn]:
    async with stand_in() as control_plane:
        yield control_plane


@asynccontextmanager
async def reporting(url: str, folder: Path, *, interval_s: float = 0.05) -> AsyncIterator[Reporting]:
    """A reporter that has not begun, on a folder that may hold a token."""
    settings = settings_from(
        {
            "CONTROL_PLANE_URL": url,
            "INSTANCE_ID": INSTANCE,
            "WORKER_ID": "w",
            "MODEL_ID": MODEL,
            "WORKER_AUTH_TOKEN": BOOTSTRAP_TOKEN,
            "WORKER_STATE_DIR": str(folder),
            "WORKER_HEARTBEAT_INTERVAL_S": str(interval_s),
        }
    )

    async def load() -> EngineLoad:
        return EngineLoad()

    log = EventLog(RotatingFile(settings.log_file), worker_id="w", instance_id=INSTANCE)
    store, worker = CredentialStore(folder / "token.json"), Worker()
    meter = Meter(SystemMeter(folder), load, gpu_count=0, gpu_vram_mb=1)
    async with aiohttp.ClientSession() as http:
        control_plane = ControlPlane(http, url)
        info = AgentInfo("1", "2026-11-21", "ab")
        dead_man = DeadMan(folder / "heard.json", instance_id=INSTANCE, bound_s=0)
        parts: dict[str, Any] = {
            "control_plane": control_plane,
            "store": store,
            "dead_man": dead_man,
            "agent_info": info,
        }
        reporter = Reporter(settings, worker, meter, log, **parts)
        yield Reporting(reporter, worker, store, log)
    log.close()


@asynccontextmanager
async def running(reporter: Reporter) -> AsyncIterator[None]:
    task = asyncio.create_task(reporter.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("status", "code"), REGISTRATION_REFUSALS)
async def test_a_refused_registration_is_logged_and_tried_again(
    plane: StandIn, tmp_path: Path, status: int, code: str
) -> None:
    plane.refusals = [(status, code)] * 3
    async with reporting(plane.url, tmp_path) as given:
        async with running(given.reporter):
            await plane.until(lambda: bool(plane.beats))
        logged = given.logged()
    assert len(plane.registrations) == 1
    assert logged.index("register_failed") < logged.index("register_success")
    assert "heartbeat_skipped" in logged
    assert logged.count("register_failed") == 1, "what repeats itself is logged once"


async def test_a_registration_whose_token_cannot_be_kept_is_done_again(plane: StandIn, tmp_path: Path) -> None:
    (tmp_path / "token.new").mkdir()
    plane.on_register = lambda: (tmp_path / "token.new").rmdir() if len(plane.registrations) == 2 else None
    async with reporting(plane.url, tmp_path) as given, running(given.reporter):
        await plane.until(lambda: bool(plane.beats))
        assert given.store.load(INSTANCE) is not None
    assert len(plane.registrations) == 3


async def test_a_control_plane_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with stand_in() as gone_soon:
        url = gone_soon.url
    async with reporting(url, tmp_path) as given, running(given.reporter):
        await eventually(lambda: "register_exception" in given.logged())
        assert not given.worker.stopping.is_set()


@pytest.mark.parametrize("refusal", [(401, "unauthorized"), (404, ""), (404, "instance_not_found"), (500, "")])
async def test_a_refused_heartbeat_is_tried_again_with_the_same_token(
    plane: StandIn, tmp_path: Path, refusal: tuple[int, str]
) -> None:
    plane.refusals = [refusal] * 2
    async with reporting(plane.url, tmp_path) as given:
        given.store.save(CREDENTIALS)
        async with running(given.reporter):
            await plane.until(lambda: bool(plane.beats))
        assert "heartbeat_failed" in given.logged()
        assert not given.worker.stopping.is_set()
    assert set(plane.tokens) == {f"Bearer {WORKER_TOKEN}"}


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("registered", [True, False])
async def test_a_worker_whose_instance_is_gone_stops(
    plane: StandIn, tmp_path: Path, status: int, registered: bool
) -> None:
    plane.refusals = [(status, "instance_gone")]
    async with reporting(plane.url, tmp_path) as given:
        if registered:
            given.store.save(CREDENTIALS)
        await asyncio.wait_for(given.reporter.run(), 5)
    assert given.worker.stopping.is_set()
    assert given.worker.status == "draining"
    assert len(plane.tokens) == 1, "nothing is reported any more"


async def test_a_change_is_reported_at_once_and_not_at_the_next_interval(plane: StandIn, tmp_path: Path) -> None:
    async with reporting(plane.url, tmp_path, interval_s=60) as given, running(given.reporter):
        await plane.until(lambda: bool(plane.beats))
        given.worker.reach(Milestones(up=True))
        await plane.until_beat(lambda beat: beat.engine_up and beat.status == "starting")
        given.worker.reach(Milestones(up=True, loaded=True, warm=True))
        await plane.until_beat(lambda beat: beat.status == "ready")
        given.worker.drain()
        await plane.until_beat(lambda beat: beat.status == "draining")
    assert len(plane.beats) == 4


@pytest.mark.parametrize("steps", range(6))
async def test_a_reporter_that_is_cancelled_in_the_moment_of_a_change_ends(
    plane: StandIn, tmp_path: Path, steps: int
) -> None:
    """A forgotten cancellation would keep the agent alive after SIGTERM, for ever."""
    async with reporting(plane.url, tmp_path, interval_s=60) as given:
        task = asyncio.create_task(given.reporter.run())
        await eventually(lambda: "heartbeat_success" in given.logged())
        given.worker.drain()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        _, left = await asyncio.wait({task}, timeout=5)
        task.cancel()
        assert not left


async def test_another_instances_token_is_not_used(plane: StandIn, tmp_path: Path) -> None:
    async with reporting(plane.url, tmp_path) as given:
        given.store.save(Credentials("another", "w", "wk_another"))
        async with running(given.reporter):
            await plane.until(lambda: bool(plane.beats))
    assert len(plane.registrations) == 1


async def test_no_token_is_ever_logged(plane: StandIn, tmp_path: Path) -> None:
    plane.refusals = [(401, "unauthorized")]
    async with reporting(plane.url, tmp_path) as given:
        async with running(given.reporter):
            await plane.until(lambda: bool(plane.beats))
        written = given.log.path.read_text()
    assert BOOTSTRAP_TOKEN not in written
    assert WORKER_TOKEN not in written


def test_a_stored_token_is_its_owners_alone_and_replaced_whole(tmp_path: Path) -> None:
    store = CredentialStore(tmp_path / "token.json")
    store.save(Credentials(INSTANCE, "w", "older"))
    store.save(CREDENTIALS)
    assert store.load(INSTANCE) == CREDENTIALS
    assert stat.S_IMODE((tmp_path / "token.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}"])
def test_a_token_file_that_cannot_be_read_is_no_token(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token.json").write_bytes(content)
    assert CredentialStore(tmp_path / "token.json").load(INSTANCE) is None


def test_the_back_off_doubles_up_to_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FIRST_RETRY_S", 0.25)
    assert [retry_delay_s(failures, 0) for failures in (1, 2, 3, 10**6)] == [0.25, 0.5, 1.0, 15.0]
    assert retry_delay_s(1, 1) == 0.125, "jitter takes up to half"
