"""The read model that both sides keep in the comparison: how many events of each kind there were."""

from collections import Counter
from collections.abc import Sequence

from projections.projection import Connection, Entry, Projection

_TABLES = "CREATE TABLE bench_counts (kind text PRIMARY KEY, count bigint NOT NULL)"
_ADD = """
INSERT INTO bench_counts AS c SELECT * FROM unnest(%s::text[], %s::bigint[])
ON CONFLICT (kind) DO UPDATE SET count = c.count + excluded.count
"""


async def _apply(entries: Sequence[Entry], connection: Connection) -> None:
    counted = Counter(type(entry.event).__name__ for entry in entries)
    await connection.execute(_ADD, (list(counted), list(counted.values())))


COUNTS = Projection("bench_counts", 1, _TABLES, _apply, aggregates=frozenset({"api_key"}))
