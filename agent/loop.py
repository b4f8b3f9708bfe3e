"""The agent's life: put the parts together, run them, and end in good order.

    lock ─> status pages ─> engine kept running ┐
                            heartbeats          ├─> stopping (SIGTERM, or told so) ─> draining ─> engine stopped ─> 0
                            dead-man switch     ┴─> ... and, after too long a silence, the machine switched off

The surprising rule: while it drains, everything goes on: the engine serves, probes are answered, heartbeats say
"draining". Only when nothing runs any more, or the time is up, is the engine stopped. A second SIGTERM ends it all at
once.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import time
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

import aiohttp
import msgspec

from agent.build import own_checksum
from agent.child import Child
from agent.credentials import CredentialStore
from agent.dead_man import DeadMan
from agent.engine import ChildEngine, Engine, EngineCommand, keep_engine_running
from agent.event_log import EventLog, RotatingFile
from agent.measure import Meter, SystemMeter
from agent.power_off import power_off
from agent.protocol import AgentInfo
from agent.report import ControlPlane, Reporter
from agent.settings import Settings, SettingsError
from agent.simulated_engine import simulated_command
from agent.status import StatusPages, start_server
from agent.tunnel import Tunnels
from agent.version import AGENT_BUILD_DATE, AGENT_VERSION
from agent.vllm_engine import vllm_command
from agent.worker import Worker

IDLE_POLL_S = 0.1
IDLE_READINGS = 2
"""A request may be on its way between two readings; two quiet ones in a row count as idle."""

EXIT_STILL_ON = 1
"""The machine was to be switched off and was not; whoever starts the agent again lets it try again."""
EXIT_KILLED = 128 + signal.SIGTERM


async def run(settings: Settings) -> int:
    """Runs the agent until it is told to stop; returns the exit status.

    Raises:
        SettingsError: something that was set cannot be used.
        OSError: a port is taken, or a file cannot be written.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_agent_of(settings.state_dir):
        store = CredentialStore(settings.state_dir / "worker-token.json")
        return await _run_locked(_identified(settings, store), store)


async def _run_locked(settings: Settings, store: CredentialStore) -> int:
    log_file = RotatingFile(settings.log_file)
    engine_log = RotatingFile(settings.state_dir / "engine.log")
    log = EventLog(log_file, worker_id=settings.worker_id, instance_id=settings.instance_id)
    child = Child(pid_file=settings.state_dir / "engine.pid", log=engine_log)
    info = AgentInfo(AGENT_VERSION, AGENT_BUILD_DATE, own_checksum())
    worker = Worker()
    dead_man = DeadMan(
        settings.state_dir / "last-heard.json", instance_id=settings.instance_id, bound_s=settings.dead_man_s
    )
    _stop_on_signals(worker, child)
    log.record("agent_started", f"agent {info.version} started", checksum=info.checksum, engine=settings.engine)
    with contextlib.closing(log_file), contextlib.closing(engine_log):
        async with aiohttp.ClientSession() as http:
            engine = _engine(settings, child, http)
            meter = Meter(
                SystemMeter(settings.disk_path),
                engine.load,
                gpu_count=settings.simulated_gpu_count,
                gpu_vram_mb=settings.simulated_gpu_vram_mb,
            )
            pages = StatusPages(settings, worker, engine, meter=meter, log=log, agent_info=info)
            server = await start_server(pages, host=settings.bind_ip, port=settings.health_port)
            log.record("http_server_started", f"status pages on {settings.agent_url}")
            reporter = Reporter(
                settings,
                worker,
                meter,
                log,
                control_plane=ControlPlane(http, settings.control_plane_url),
                store=store,
                dead_man=dead_man,
                agent_info=info,
            )
            try:
                work = (
                    keep_engine_running(engine, worker.reach, log),
                    reporter.run(),
                    Tunnels(settings, worker, log).run(),
                    _watch(dead_man, worker, log),
                )
                await _live(worker, engine, work, log, settings.drain_timeout_s)
            finally:
                await engine.stop()
                await server.cleanup()
        if worker.switching_off:
            if not await power_off(settings, log):
                return EXIT_STILL_ON
            dead_man.forget()  # whoever switches the machine on again gives it a new life
        log.record("agent_stopped", "the agent ended in good order")
    return 0


async def _live(
    worker: Worker, engine: Engine, work: Sequence[Coroutine[Any, Any, None]], log: EventLog, drain_timeout_s: float
) -> None:
    """Returns when the worker has stopped and drained; a task that fails ends the others, and is raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(task) for task in work]
        await worker.stopping.wait()
        log.record("agent_draining", "waiting for running requests")
        await drained(engine, drain_timeout_s)
        for task in tasks:
            task.cancel()


async def _watch(dead_man: DeadMan, worker: Worker, log: EventLog) -> None:
    await dead_man.due()
    log.record("dead_man", f"no answer from the control plane for {dead_man.silent_s:.0f} s: switching off")
    worker.switch_off()


async def drained(engine: Engine, timeout_s: float) -> bool:
    """Waits until the engine has nothing to do; False when `timeout_s` was not enough.

    An engine that runs but does not say its load is taken to be busy.
    """
    deadline = time.monotonic() + timeout_s
    quiet = 0
    while engine.running and time.monotonic() < deadline:
        load = await engine.load()
        quiet = quiet + 1 if load is not None and load.queue_depth == 0 else 0
        if quiet == IDLE_READINGS:
            return True
        await asyncio.sleep(IDLE_POLL_S)
    return not engine.running


def _engine(settings: Settings, child: Child, http: aiohttp.ClientSession) -> Engine:
    return ChildEngine(
        _command(settings),
        child,
        http,
        model_id=settings.model_id,
        url=settings.engine_url,
        metrics_url=settings.engine_metrics_url,
        warmup=settings.warmup,
    )


def _command(settings: Settings) -> EngineCommand:
    match settings.engine:
        case "simulated":
            return simulated_command(settings)
        case "vllm":
            return vllm_command(settings)
        case _:
            assert_never(settings.engine)


def _identified(settings: Settings, store: CredentialStore) -> Settings:
    """The same worker after a restart: the id that was registered, unless another is set."""
    stored = store.load(settings.instance_id)
    worker_id = settings.worker_id or (stored.worker_id if stored else str(uuid.uuid4()))
    if stored is None and not settings.bootstrap_token:
        raise SettingsError("WORKER_AUTH_TOKEN is not set, and no worker token is stored")
    return msgspec.structs.replace(settings, worker_id=worker_id)


def _stop_on_signals(worker: Worker, child: Child) -> None:
    def on_signal() -> None:
        if worker.stopping.is_set():
            child.kill()
            os._exit(EXIT_KILLED)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


@contextlib.contextmanager
def _only_agent_of(state_dir: Path) -> Iterator[None]:
    """Holds the state folder's lock; the kernel gives it back however this process ends."""
    with (state_dir / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(f"another agent runs on WORKER_STATE_DIR {state_dir}") from error
        yield
