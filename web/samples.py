"""What a heartbeat may claim about its machine: every figure brought into the range that physics allows (SPEC 3.3).

Utilisation 0..100 %, temperature -50..150 °C, power and memory from 0, used at most total. A host is not trusted: it
may send anything, and what it sends is shown to people and summed up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_GPUS = 64
MIN_TEMPERATURE_C, MAX_TEMPERATURE_C = -50.0, 150.0
MAX_PERCENT = 100.0

_PERCENTS = frozenset({"gpu_utilization", "cpu_usage_pct"})
_TEMPERATURES = frozenset({"gpu_temp_c"})
_USED_OF = {
    "gpu_mem_used_mb": "gpu_mem_total_mb",
    "mem_used_bytes": "mem_total_bytes",
    "disk_used_bytes": "disk_total_bytes",
}


def clamped(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same figures, each within its range; nested samples too, at most MAX_GPUS of a list. null stays null."""
    kept = {name: _within(name, value) for name, value in figures.items()}
    for used, total in _USED_OF.items():
        if kept.get(used) is not None and kept.get(total) is not None:
            kept[used] = min(kept[used], kept[total])
    return kept


def _within(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return clamped(value)
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [clamped(item) for item in value[:MAX_GPUS]]
    if name in _TEMPERATURES:
        return min(max(value, MIN_TEMPERATURE_C), MAX_TEMPERATURE_C)
    at_least_zero = max(value, 0)
    return min(at_least_zero, MAX_PERCENT) if name in _PERCENTS else at_least_zero


def clamped_percent(value: float | None) -> float | None:
    return None if value is None else min(max(value, 0.0), MAX_PERCENT)


def clamped_share(value: float | None) -> float | None:
    return None if value is None else min(max(value, 0.0), 1.0)
