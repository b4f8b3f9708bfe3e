"""The agent's pages, in one process with the specs: what probes, Prometheus and an operator read."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import msgspec
import pytest

from agent.engine import Milestones, UnreachableError
from agent.event_log import EventLog, RotatingFile
from agent.measure import Meter, Sample, SystemMeter, simulated_gpus
from agent.protocol import AgentInfo, EngineLoad
from agent.settings import settings_from
from agent.status import StatusPages, metrics_page, start_server
from agent.worker import Worker
from tests.agent.stand_in import INSTANCE, MODEL, free_port

WARM = Milestones(up=True, loaded=True, warm=True)
METRIC_NAMES = (
    *("up", "vllm_ready", "queue_depth", "requests_running", "requests_waiting"),
    *("gpu_utilization", "gpu_mem_used_mb", "gpu_mem_total_mb"),
    *('gpu_utilization_by_gpu{gpu_index="0"}', 'gpu_mem_used_mb_by_gpu{gpu_index="0"}'),
    *("cpu_usage_pct", "load1", "mem_used_bytes", "mem_total_bytes", "disk_used_bytes", "disk_total_bytes"),
    *("net_rx_bps", "net_tx_bps"),
)


class SteadyEngine:
    """Always in the same state."""

    def __init__(self) -> None:
        self.milestones = WARM
        self.unreachable = False

    @property
    def running(self) -> bool:
        return True

    async def start(self) -> None:
        raise NotImplementedError

    async def wait(self) -> int:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def load(self) -> EngineLoad:
        return EngineLoad(requests_waiting=1, requests_running=2, queue_depth=3)

    async def probe(self, known: Milestones) -> Milestones:
        if self.unreachable:
            raise UnreachableError("refused")
        return self.milestones


class Pages:
    def __init__(self, http: aiohttp.ClientSession, engine: SteadyEngine, worker: Worker, log: EventLog) -> None:
        self.http = http
        self.engine = engine
        self.worker = worker
        self.log = log

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(path) as reply:
            return reply.status, await reply.text()


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    settings = settings_from(
        {
            "CONTROL_PLANE_URL": "http://127.0.0.1:9",
            "INSTANCE_ID": INSTANCE,
            "WORKER_ID": "w",
            "MODEL_ID": MODEL,
            "WORKER_BIND_IP": "127.0.0.1",
            "WORKER_STATE_DIR": str(tmp_path),
        }
    )
    engine, worker = SteadyEngine(), Worker()
    log = EventLog(RotatingFile(settings.log_file), worker_id="w", instance_id=INSTANCE)
    meter = Meter(SystemMeter(tmp_path), engine.load, gpu_count=1, gpu_vram_mb=1000)
    info = AgentInfo("1.2.3", "2026-11-21", "ab" * 32)
    port = free_port()
    app = StatusPages(settings, worker, engine, meter=meter, log=log, agent_info=info)
    runner = await start_server(app, host="127.0.0.1", port=port)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        yield Pages(http, engine, worker, log)
    await runner.cleanup()
    log.close()


async def test_the_agent_is_healthy_whatever_its_engine_does(pages: Pages) -> None:
    pages.engine.unreachable = True
    assert (await pages.get("/healthz"))[0] == 200


async def test_ready_means_that_the_engine_lists_the_model_right_now(pages: Pages) -> None:
    assert (await pages.get("/readyz"))[0] == 200
    pages.engine.milestones = Milestones(up=True)
    assert (await pages.get("/readyz"))[0] == 503
    pages.engine.unreachable = True
    assert (await pages.get("/readyz"))[0] == 503


async def test_info_says_which_agent_serves_what(pages: Pages) -> None:
    pages.worker.reach(WARM)
    info = json.loads((await pages.get("/info"))[1])
    assert (info["agent_version"], info["build_date"], info["checksum"]) == ("1.2.3", "2026-11-21", "ab" * 32)
    assert (info["instance_id"], info["worker_id"], info["model_id"]) == (INSTANCE, "w", MODEL)
    assert (info["vllm_ready"], info["status"]) == (True, "ready")
    assert info["vllm_base_url"] == "http://127.0.0.1:8000"


async def test_the_metrics_page_has_every_name_of_the_specification(pages: Pages) -> None:
    pages.worker.reach(WARM)
    lines = dict(line.rsplit(" ", 1) for line in (await pages.get("/metrics"))[1].splitlines())
    assert lines.keys() == {f"inventiv_worker_{name}" for name in METRIC_NAMES}
    assert lines["inventiv_worker_up"] == lines["inventiv_worker_vllm_ready"] == "1"
    assert lines["inventiv_worker_queue_depth"] == "3"
    assert lines["inventiv_worker_gpu_utilization"] == "29.0"


def test_a_figure_that_is_not_known_has_no_line() -> None:
    assert "gpu" not in metrics_page(Sample(), ready=False)
    assert 'gpu_index="1"' in metrics_page(Sample(gpus=simulated_gpus(2, 1, 0)), ready=False)


async def test_the_logs_can_be_narrowed(pages: Pages) -> None:
    for number in range(3):
        pages.log.record("agent_started", str(number))
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    whole = json.loads((await pages.get("/logs"))[1])
    assert (whole["total_events"], len(whole["events"])) == (3, 3)
    assert whole["log_file"].endswith("worker-events.log")
    assert [event["message"] for event in json.loads((await pages.get("/logs?tail=1"))[1])["events"]] == ["2"]
    assert json.loads((await pages.get(f"/logs?since={later}"))[1])["events"] == []
    assert len(json.loads((await pages.get("/logs?since=2020-01-01"))[1])["events"]) == 3


@pytest.mark.parametrize("query", ["tail=many", "since=yesterday"])
async def test_a_query_that_cannot_be_read_is_refused(pages: Pages, query: str) -> None:
    status, body = await pages.get(f"/logs?{query}")
    assert (status, json.loads(body)["error"]) == (400, "invalid_request")


async def test_a_taken_port_is_an_error_at_the_start(pages: Pages, tmp_path: Path) -> None:
    taken = pages.http._base_url
    assert taken is not None
    assert taken.port is not None
    settings = settings_from({"CONTROL_PLANE_URL": "http://127.0.0.1:9", "INSTANCE_ID": "i", "MODEL_ID": "m"})
    meter = Meter(SystemMeter(tmp_path), pages.engine.load, gpu_count=0, gpu_vram_mb=1)
    app = StatusPages(settings, Worker(), pages.engine, meter=meter, log=pages.log, agent_info=AgentInfo("1", "2", "3"))
    with pytest.raises(OSError, match="address already in use"):
        await start_server(app, host="127.0.0.1", port=taken.port)


async def test_a_change_of_state_wakes_whoever_waits_for_it() -> None:
    worker = Worker()
    worker.reach(WARM)
    assert worker.changed.is_set()
    worker.changed.clear()
    worker.reach(msgspec.structs.replace(WARM))
    assert not worker.changed.is_set(), "the same state again is no news"
    worker.drain()
    await asyncio.wait_for(worker.changed.wait(), 1)
    assert worker.status == "draining"
    assert not worker.stopping.is_set()
