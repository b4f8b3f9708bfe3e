"""Figures of a heartbeat: parsed from what the tools print, or simulated by the rule of the specification."""

from pathlib import Path

import pytest

from agent.measure import Meter, Sample, SystemMeter, engine_load, parse_nvidia_smi, simulated_gpus
from agent.protocol import EngineLoad, GpuSample

METRICS_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 4.0
vllm:generation_tokens_total{engine="0",model_name="a"} 1e+06
"""


def test_requests_are_summed_over_the_engines_of_one_page() -> None:
    assert engine_load(METRICS_PAGE) == EngineLoad(requests_waiting=4, requests_running=5, queue_depth=9)


@pytest.mark.parametrize("name", ["kv_cache_usage_perc", "gpu_cache_usage_perc"])
def test_the_kv_cache_is_as_full_as_those_of_the_engines_are_in_the_mean(name: str) -> None:
    page = f'vllm:{name}{{engine="0"}} 0.25\nvllm:{name}{{engine="1"}} 0.75\nvllm:{name}_other 9\n'
    assert engine_load(METRICS_PAGE + page).kv_cache_usage == 0.5


@pytest.mark.parametrize(("said", "share"), [("1.7", 1.0), ("-1", 0.0), ("NaN", None), ("much", None)])
def test_a_kv_cache_is_never_more_than_full(said: str, share: float | None) -> None:
    assert engine_load(f"vllm:kv_cache_usage_perc {said}\n").kv_cache_usage == share


@pytest.mark.parametrize("page", ["", "\n\n", "not a metrics page", "vllm:num_requests_running{} many"])
def test_a_page_without_our_series_means_no_requests(page: str) -> None:
    assert engine_load(page) == EngineLoad()


def test_nvidia_smi_lines_become_gpus() -> None:
    text = "0, 37, 20480, 24564, 61, 71.53, 72.00\n1, 0, 3, 24564, 35, 16.10, 72.00\n"
    assert parse_nvidia_smi(text) == (
        GpuSample(0, 37.0, 20480.0, 24564.0, 61.0, 71.53, 72.0),
        GpuSample(1, 0.0, 3.0, 24564.0, 35.0, 16.1, 72.0),
    )


def test_what_the_driver_does_not_know_is_null() -> None:
    assert parse_nvidia_smi("0, [N/A], 1, 2, 3, [Not Supported], nan") == (
        GpuSample(0, None, 1.0, 2.0, 3.0, None, None),
    )


def test_a_drivers_complaint_is_no_gpu() -> None:
    assert parse_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the driver.\n") == ()


@pytest.mark.parametrize(
    ("queue_depth", "index", "utilization"), [(0, 0, 5.0), (0, 2, 11.0), (4, 0, 37.0), (4, 1, 40.0), (99, 0, 100.0)]
)
def test_a_simulated_gpu_is_as_busy_as_the_queue_is_deep(queue_depth: int, index: int, utilization: float) -> None:
    gpu = simulated_gpus(index + 1, 24576, queue_depth)[index]
    assert gpu.gpu_utilization == utilization
    assert gpu.gpu_temp_c == 35 + 0.5 * utilization
    assert gpu.gpu_power_limit_w == 300
    assert (gpu.gpu_power_w or 0) <= 300


def test_a_sample_adds_memory_and_power_and_keeps_the_hottest() -> None:
    sample = Sample(gpus=simulated_gpus(2, 1000, 0))
    assert sample.gpu_utilization == 6.5
    assert sample.gpu_mem_used_mb == 1800
    metadata = sample.metadata()
    assert (metadata.gpu_mem_total_mb, metadata.gpu_temp_c, metadata.gpu_power_limit_w) == (2000, 39.0, 600)


def test_a_host_without_gpu_has_no_gpu_figures() -> None:
    assert Sample().gpu_utilization is None
    assert Sample().gpu_mem_used_mb is None
    assert Sample().metadata().gpu_temp_c is None


def test_the_hosts_figures_are_plausible(tmp_path: Path) -> None:
    system = SystemMeter(tmp_path).sample()
    assert 0 < system.mem_used_bytes < system.mem_total_bytes
    assert 0 < system.disk_used_bytes <= system.disk_total_bytes
    assert 0 <= system.cpu_usage_pct <= 100
    assert system.net_rx_bps >= 0


def test_a_disk_path_that_is_not_there_shows_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SystemMeter(tmp_path / "missing")


async def test_a_fresh_sample_is_shared(tmp_path: Path) -> None:
    asked = []

    async def load() -> EngineLoad:
        asked.append("load")
        return EngineLoad(requests_running=2, queue_depth=2)

    meter = Meter(SystemMeter(tmp_path), load, gpu_count=1, gpu_vram_mb=1000)
    first = await meter.sample()
    assert await meter.sample() is first
    assert asked == ["load"]
    assert first.gpu_utilization == 21.0


async def test_an_engine_that_does_not_say_its_load_counts_as_idle_in_a_sample(tmp_path: Path) -> None:
    async def load() -> None:
        return None

    assert (await Meter(SystemMeter(tmp_path), load, gpu_count=1, gpu_vram_mb=1).sample()).load == EngineLoad()
