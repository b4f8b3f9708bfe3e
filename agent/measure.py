"""What a heartbeat says about the host: the system (psutil), GPUs (nvidia-smi), requests (the engine's own metrics).

    nvidia-smi CSV ──parse──┐
    engine /metrics ─parse──┼──> Sample ──> Heartbeat, /metrics
    psutil ─────────────────┘

Where no GPU can be asked, GPUs are simulated on demand: their load then follows the engine's queue (SPEC 3.3), so that
everything above sees figures that move.
"""

import asyncio
import math
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

from agent.protocol import EngineLoad, GpuSample, Metadata, SystemSample

FRESH_S = 0.5
NVIDIA_SMI_TIMEOUT_S = 3.0
NVIDIA_SMI_QUERY = "index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,power.limit"

KV_CACHE_SERIES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""Shares (0..1) in spite of their names; the second is the older one."""
SIMULATED_POWER_LIMIT_W = 300.0
SIMULATED_IDLE_POWER_W = 60.0
SIMULATED_MEMORY_SHARE = 0.9
"""vLLM takes nine tenths of a GPU's memory when it starts, whatever its load."""


class Sample(msgspec.Struct, frozen=True):
    """The host at one moment."""

    gpus: tuple[GpuSample, ...] = ()
    system: SystemSample = SystemSample()
    load: EngineLoad = EngineLoad()

    @property
    def gpu_utilization(self) -> float | None:
        """Mean over the GPUs, percent."""
        known = _known(gpu.gpu_utilization for gpu in self.gpus)
        return round(sum(known) / len(known), 2) if known else None

    @property
    def gpu_mem_used_mb(self) -> float | None:
        return _sum(gpu.gpu_mem_used_mb for gpu in self.gpus)

    def metadata(self) -> Metadata:
        temperatures = _known(gpu.gpu_temp_c for gpu in self.gpus)
        return Metadata(
            gpu_mem_total_mb=_sum(gpu.gpu_mem_total_mb for gpu in self.gpus),
            gpu_temp_c=max(temperatures) if temperatures else None,
            gpu_power_w=_sum(gpu.gpu_power_w for gpu in self.gpus),
            gpu_power_limit_w=_sum(gpu.gpu_power_limit_w for gpu in self.gpus),
            gpus=self.gpus,
            system=self.system,
            vllm=self.load,
        )


def engine_load(page: str) -> EngineLoad:
    """From a vLLM metrics page (Prometheus text): its engines' requests summed, the use of their KV caches averaged."""
    running = int(sum(_series(page, "vllm:num_requests_running")))
    waiting = int(sum(_series(page, "vllm:num_requests_waiting")))
    caches = next((shares for name in KV_CACHE_SERIES if (shares := _series(page, name))), ())
    return EngineLoad(
        requests_waiting=waiting,
        requests_running=running,
        queue_depth=running + waiting,
        kv_cache_usage=round(min(1.0, max(0.0, sum(caches) / len(caches))), 4) if caches else None,
    )


def parse_nvidia_smi(text: str) -> tuple[GpuSample, ...]:
    """GPUs from `nvidia-smi --query-gpu=<NVIDIA_SMI_QUERY> --format=csv,noheader,nounits`; "[N/A]" becomes null."""
    samples = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(NVIDIA_SMI_QUERY.split(",")) and fields[0].isdecimal():
            samples.append(GpuSample(int(fields[0]), *(_figure(field) for field in fields[1:])))
    return tuple(samples)


def simulated_gpus(count: int, vram_mb: int, queue_depth: int) -> tuple[GpuSample, ...]:
    """`count` GPUs as busy as the queue is deep: 5 % at rest, 8 % more per request, 3 % more per GPU index."""
    return tuple(_simulated_gpu(index, vram_mb, queue_depth) for index in range(count))


def _simulated_gpu(index: int, vram_mb: int, queue_depth: int) -> GpuSample:
    utilization = min(100.0, 5.0 + 8.0 * queue_depth + 3.0 * index)
    return GpuSample(
        index=index,
        gpu_utilization=utilization,
        gpu_mem_used_mb=vram_mb * SIMULATED_MEMORY_SHARE,
        gpu_mem_total_mb=float(vram_mb),
        gpu_temp_c=35.0 + 0.5 * utilization,
        gpu_power_w=SIMULATED_IDLE_POWER_W + (SIMULATED_POWER_LIMIT_W - SIMULATED_IDLE_POWER_W) * utilization / 100,
        gpu_power_limit_w=SIMULATED_POWER_LIMIT_W,
    )


async def read_gpus(count: int, vram_mb: int, queue_depth: int) -> tuple[GpuSample, ...]:
    """`count` simulated GPUs where that is asked for, else the real ones, else none."""
    program = shutil.which("nvidia-smi")
    if program is None or count > 0:
        return simulated_gpus(count, vram_mb, queue_depth)
    return parse_nvidia_smi(
        await _output_of(program, f"--query-gpu={NVIDIA_SMI_QUERY}", "--format=csv,noheader,nounits")
    )


async def _output_of(*command: str) -> str:
    """What a command prints; empty when it fails or takes too long, as it does while a driver restarts."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(NVIDIA_SMI_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace") if process.returncode == 0 else ""


class SystemMeter:
    """Samples the host; rates are taken between one call and the next, so the first call shows zero rates."""

    def __init__(self, disk_path: Path) -> None:
        self._disk_path = disk_path
        self._network = psutil.net_io_counters()
        self._at = time.monotonic()
        psutil.disk_usage(str(disk_path))  # a wrong path is to show now, not at the first heartbeat
        psutil.cpu_percent()  # the first call only sets psutil's own starting point

    def sample(self) -> SystemSample:
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(self._disk_path))
        load1, load5, load15 = psutil.getloadavg()
        previous, previous_at = self._network, self._at
        self._network, self._at = psutil.net_io_counters(), time.monotonic()
        elapsed_s = max(self._at - previous_at, 1e-3)
        return SystemSample(
            load1=load1,
            load5=load5,
            load15=load15,
            cpu_usage_pct=psutil.cpu_percent(),
            mem_total_bytes=memory.total,
            mem_used_bytes=memory.total - memory.available,
            disk_total_bytes=disk.total,
            disk_used_bytes=disk.used,
            net_rx_bps=round((self._network.bytes_recv - previous.bytes_recv) * 8 / elapsed_s, 1),
            net_tx_bps=round((self._network.bytes_sent - previous.bytes_sent) * 8 / elapsed_s, 1),
            net_rx_total_bytes=self._network.bytes_recv,
            net_tx_total_bytes=self._network.bytes_sent,
        )


class Meter:
    """The latest sample, taken again when it is older than FRESH_S; heartbeats and /metrics share it."""

    def __init__(
        self, system: SystemMeter, load: Callable[[], Awaitable[EngineLoad | None]], *, gpu_count: int, gpu_vram_mb: int
    ) -> None:
        self._system = system
        self._load = load
        self._gpu_count = gpu_count
        self._gpu_vram_mb = gpu_vram_mb
        self._latest: Sample | None = None
        self._taken_at = 0.0
        self._taking = asyncio.Lock()

    async def sample(self) -> Sample:
        async with self._taking:
            if self._latest is None or time.monotonic() - self._taken_at >= FRESH_S:
                load = await self._load() or EngineLoad()
                gpus = await read_gpus(self._gpu_count, self._gpu_vram_mb, load.queue_depth)
                self._latest = Sample(gpus, self._system.sample(), load)
                self._taken_at = time.monotonic()
            return self._latest


def _series(page: str, name: str) -> Sequence[float]:
    """The figures of that name, one for each set of labels."""
    split = (line.rpartition(" ") for line in page.splitlines())
    return _known(_figure(value) for series, _, value in split if series == name or series.startswith(f"{name}{{"))


def _figure(text: str) -> float | None:
    try:
        figure = float(text)
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None


def _known(figures: Iterable[float | None]) -> Sequence[float]:
    return [figure for figure in figures if figure is not None]


def _sum(figures: Iterable[float | None]) -> float | None:
    known = _known(figures)
    return sum(known) if known else None
