"""How large a machine's disk should be for a model (SPEC 4.3): said by the operator, by the model, else by its name.

    forced by the platform ──> the model's own ──> the provider's setting ──> a class by the name's weights ──> 200 GB

The surprising rule: the number is parsed, not sought: "8x7B" is 56 billion weights, and "Qwen2.5-72B" is not a 2.5.
"""

import re

_CLASSES_GB = ((0.5, 0.6, 50), (1, 2, 70), (7, 8, 100), (12, 14, 120), (24, 32, 180), (70, 72, 450))
"""Billions of weights from and to, and GB (SPEC 4.3); between two classes, and beyond the last, nobody has measured."""
UNKNOWN_SIZE_GB = 200
_WEIGHTS = re.compile(r"(?<![A-Za-z0-9.])(?:(\d{1,3})[xX])?(\d{1,4}(?:\.\d{1,3})?)[bB](?![A-Za-z0-9])")


def recommended_disk_gb(code: str, *, stored_gb: int, provider_gb: int | None, forced_gb: int = 0) -> int:
    """GB; `forced_gb` and `stored_gb` 0, `provider_gb` None: not said."""
    return forced_gb or stored_gb or default_disk_gb(code, provider_gb=provider_gb)


def default_disk_gb(code: str, *, provider_gb: int | None) -> int:
    """What is recommended where the model says nothing itself."""
    return provider_gb if provider_gb is not None else _class_gb(billions_of_weights(code))


def billions_of_weights(code: str) -> float | None:
    """As the name tells, e.g. 0.5 for "Qwen2.5-0.5B-Instruct"; None when it does not."""
    found = _WEIGHTS.search(code)
    return None if found is None else int(found[1] or 1) * float(found[2])


def _class_gb(billions: float | None) -> int:
    for smallest, largest, size_gb in _CLASSES_GB:
        if billions is not None and smallest <= billions <= largest:
            return size_gb
    return UNKNOWN_SIZE_GB
