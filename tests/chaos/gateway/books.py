"""Accounts held against what was asked for: pure.

request ids that clients were told ──┐
records in USAGE ────────────────────┴──> unbooked, double_booked        tokens booked - tokens counted ──> difference
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from domain.usage import UsageRecord


class Books(msgspec.Struct, frozen=True):
    """Attributes:
    unbooked: ids without a record.
    double_booked: records beyond the first of an id.
    strangers: ids with a record of whom no client was told: its answer had not begun when all ended.
    """

    unbooked: int
    double_booked: int
    strangers: int


def balance(asked: Collection[str], records: Sequence[UsageRecord]) -> Books:
    counts = Counter(record.request_id for record in records)
    return Books(
        unbooked=sum(request_id not in counts for request_id in set(asked)),
        double_booked=counts.total() - len(counts),
        strangers=len(counts.keys() - set(asked)),
    )


def differences(counted: Mapping[str, int], records: Iterable[UsageRecord]) -> list[int]:
    """Booked minus counted completion tokens of each request that was counted; one without record is not in it."""
    booked = {record.request_id: record.completion_tokens for record in records}
    return [booked[request_id] - tokens for request_id, tokens in counted.items() if request_id in booked]


def total(values: Iterable[int]) -> int:
    return sum(abs(value) for value in values)


def largest(values: Iterable[int]) -> int:
    return max((abs(value) for value in values), default=0)


def percentile(values: Sequence[float], percent: int) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else 0.0
