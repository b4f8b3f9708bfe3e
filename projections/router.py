"""The gateway's routing table, kept in Postgres, so that a gateway starts at once instead of reading the whole log.

    EVENTS ──RoutingTable.apply──> router_rows        load_routing: router_rows + checkpoint ──> RoutingTable

The laws are in routing_table.py: this file only stores what that table says of each aggregate that a batch touches.
"""

from collections.abc import Sequence

import msgspec

from projections.checkpoint import position_of
from projections.fingerprint import fingerprint
from projections.projection import Connection, Entry, Projection
from projections.query import find_all
from projections.routing_rows import AGGREGATES, RoutingRow
from projections.routing_table import RoutingTable
from projections.table import Table

_TABLES = f"""
-- rows hold {fingerprint(RoutingRow)}
CREATE TABLE router_rows (
    aggregate text NOT NULL,
    id text NOT NULL,
    row bytea NOT NULL,
    PRIMARY KEY (aggregate, id)
)
"""


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    aggregate: str
    id: str
    row: bytes


_rows = Table("router_rows", _Row, key=("aggregate", "id"))
_decoder: msgspec.json.Decoder[RoutingRow] = msgspec.json.Decoder(RoutingRow)


async def load_routing(connection: Connection) -> RoutingTable:
    """The whole table; follow EVENTS from its `position`.

    The position is read first: rows that are newer than it are folded a second time, which a routing table survives;
    rows that are older would be missed.
    """
    position = await position_of(connection, ROUTER)
    rows = await find_all(connection, _Row, "SELECT aggregate, id, row FROM router_rows")
    return RoutingTable((_decoder.decode(row.row) for row in rows), position=position)


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    keys = {(entry.envelope.aggregate, entry.envelope.id) for entry in entries}
    stored = await _rows.load(connection, keys)
    table = RoutingTable(_decoder.decode(row.row) for row in stored.values())
    for entry in entries:
        table.apply(entry)
    kept = {key: row for key in sorted(keys) if (row := table.row(*key)) is not None}
    await _rows.put(
        connection,
        [_Row(aggregate=aggregate, id=id_, row=msgspec.json.encode(row)) for (aggregate, id_), row in kept.items()],
    )
    await _rows.remove(connection, stored.keys() - kept.keys())


ROUTER = Projection("router", 4, _TABLES, apply, aggregates=frozenset(AGGREGATES))
