"""`python -m tests.bench.routing_table [keys]`: what a gateway's table of many keys costs, and how fast it answers.

Prints each figure, and all of them as one JSON object on the last line. Nothing is asserted.
"""

import argparse
import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta

from msgspec.structs import replace

from domain.activation import Activation
from domain.api_key import ApiKey, key_from, key_hash
from domain.ids import ApiKeyId, OrganizationId, UserId
from domain.key_scope import KeyScope
from gateway.admission import Asked, admit
from projections.routing_rows import KeyRow, OrganizationRow
from projections.routing_snapshot import decode_snapshot, encode_snapshot
from projections.routing_table import RoutingTable, table_from
from tests.given import NOON

KEYS = 100_000
KEYS_OF_ONE = 10
"""Keys of one organisation."""
LOOKS = 20_000


def measure(keys: int) -> dict[str, float]:
    """memory_bytes_per_key, the time of one admission, and of the whole snapshot both ways."""
    gc.collect()
    tracemalloc.start()
    table = RoutingTable(key_rows(keys))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    snapshot = table.snapshot(NOON)
    data = b"".join(encode_snapshot(snapshot))
    clear = clear_key(keys // 2)
    asked = Asked(
        headers=[(b"authorization", f"Bearer {clear}".encode())], endpoint="chat", address="192.0.2.7", now=NOON
    )
    return {
        "keys": keys,
        "memory_bytes_per_key": round(held / keys),
        "admission_us": _seconds(lambda: [admit(asked, table) for _ in range(LOOKS)]) / LOOKS * 1e6,
        "snapshot_mb": len(data) / 1e6,
        "snapshot_encode_s": _seconds(lambda: list(encode_snapshot(snapshot))),
        "snapshot_load_s": _seconds(lambda: table_from(decode_snapshot(data))),
    }


def clear_key(number: int) -> str:
    return key_from(number.to_bytes(28, "big"))


def key_rows(keys: int) -> list[KeyRow | OrganizationRow]:
    rows: list[KeyRow | OrganizationRow] = []
    for number in range(keys):
        organization, owner = OrganizationId(f"organization-{number // KEYS_OF_ONE:024}"), UserId(f"user-{number:031}")
        if number % KEYS_OF_ONE == 0:
            members = frozenset(UserId(f"user-{number + n:031}") for n in range(KEYS_OF_ONE))
            rows.append(OrganizationRow(id=organization, slug=f"o{number}", members=members))
        state = ApiKey(
            issued=True,
            owner=owner,
            created_by=owner,
            key_sha256=key_hash(clear_key(number)),
            scope=replace(KeyScope(), expires_at=NOON + timedelta(seconds=1 + number)),
            activation=Activation(technical=True, economic=True),
        )
        rows.append(KeyRow(id=ApiKeyId(f"key-{number:032}"), organization_id=organization, state=state))
    return rows


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", type=int, nargs="?", default=KEYS)
    figures = measure(parser.parse_args().keys)
    for name, value in figures.items():
        print(f"{name:24} {value:12.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
