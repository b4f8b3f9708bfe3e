"""What the agent shows over HTTP to probes and to Prometheus: /healthz /readyz /metrics /info /logs (SPEC 3.4).

/healthz says that the agent lives; /readyz asks the engine there and then, so it can be trusted when heartbeats are
late. Nothing here changes anything, and nothing here is secret.
"""

import asyncio
import platform
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from agent.build import own_location
from agent.engine import Engine, Milestones, UnreachableError
from agent.event_log import DEFAULT_TAIL_LINES, EventLog
from agent.measure import Meter, Sample
from agent.protocol import AgentInfo
from agent.settings import Settings
from agent.worker import Worker

_WARM = Milestones(up=True, loaded=True, warm=True)
"""What a readiness probe claims to know, so that it asks for the list of models and never for a warm-up."""


class StatusPages:
    """The five routes."""

    def __init__(
        self, settings: Settings, worker: Worker, engine: Engine, *, meter: Meter, log: EventLog, agent_info: AgentInfo
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._engine = engine
        self._meter = meter
        self._log = log
        self._agent_info = agent_info

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/info", self._info)
        app.router.add_get("/logs", self._logs)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        try:
            ready = (await self._engine.probe(_WARM)).loaded
        except UnreachableError:
            ready = False
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        page = metrics_page(await self._meter.sample(), ready=self._worker.milestones.loaded)
        return web.Response(text=page, content_type="text/plain", charset="utf-8")

    async def _info(self, _request: web.Request) -> web.Response:
        return _json(
            {
                "agent_version": self._agent_info.version,
                "build_date": self._agent_info.build_date,
                "checksum": self._agent_info.checksum,
                "path": str(own_location()),
                "python_version": platform.python_version(),
                "worker_id": self._settings.worker_id,
                "instance_id": self._settings.instance_id,
                "model_id": self._settings.model_id,
                "vllm_base_url": self._settings.base_url,
                "vllm_ready": self._worker.milestones.loaded,
                "engine": self._settings.engine,
                "status": self._worker.status,
            }
        )

    async def _logs(self, request: web.Request) -> web.Response:
        try:
            tail = int(request.query.get("tail", DEFAULT_TAIL_LINES))
            since = _moment(request.query.get("since"))
        except ValueError:
            return _json({"error": "invalid_request", "message": "tail is a number, since an ISO 8601 time"}, 400)
        total, events = await asyncio.to_thread(self._log.read, tail=max(0, tail), since=since)
        return _json({"log_file": str(self._log.path), "total_events": total, "events": events})


def metrics_page(sample: Sample, *, ready: bool) -> str:
    """A sample as Prometheus text; figures that are not known have no line."""
    metadata, system, load = sample.metadata(), sample.system, sample.load
    figures: list[tuple[str, float | None]] = [
        ("up", 1),
        ("vllm_ready", int(ready)),
        ("queue_depth", load.queue_depth),
        ("requests_running", load.requests_running),
        ("requests_waiting", load.requests_waiting),
        ("gpu_utilization", sample.gpu_utilization),
        ("gpu_mem_used_mb", sample.gpu_mem_used_mb),
        ("gpu_mem_total_mb", metadata.gpu_mem_total_mb),
        *((f'gpu_utilization_by_gpu{{gpu_index="{gpu.index}"}}', gpu.gpu_utilization) for gpu in sample.gpus),
        *((f'gpu_mem_used_mb_by_gpu{{gpu_index="{gpu.index}"}}', gpu.gpu_mem_used_mb) for gpu in sample.gpus),
        ("cpu_usage_pct", system.cpu_usage_pct),
        ("load1", system.load1),
        ("mem_used_bytes", system.mem_used_bytes),
        ("mem_total_bytes", system.mem_total_bytes),
        ("disk_used_bytes", system.disk_used_bytes),
        ("disk_total_bytes", system.disk_total_bytes),
        ("net_rx_bps", system.net_rx_bps),
        ("net_tx_bps", system.net_tx_bps),
    ]
    return "".join(f"inventiv_worker_{name} {value}\n" for name, value in figures if value is not None)


async def start_server(pages: StatusPages, *, host: str, port: int) -> web.AppRunner:
    """Listens when this returns; the caller cleans the runner up. Raises OSError when the port is taken."""
    runner = web.AppRunner(pages.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query reads as a space
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
