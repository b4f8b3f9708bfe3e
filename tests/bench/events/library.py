"""The contender: the `eventsourcing` library on Postgres, as its documentation would have one use it.

It runs in threads, as it must; nothing else runs meanwhile. Its tuned variant is POSTGRES_ENABLE_DB_FUNCTIONS, which
inserts by a stored function and leaves out the table lock.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from tests.bench.events.ground import PAYLOAD

THREADS = (8, 16, 64)
"""Its best number differs from machine to machine; the best of these is what we compare with."""
VIEW_TABLES = ("bench_counting_tracking", "bench_counts")
"""The first one's name is the library's choice, after the projection's."""
CATCH_UP_S = 300.0
WAIT_S = 10.0


class Key(Aggregate):
    """What an API key of ours is, in the library's words."""

    def __init__(self, name: str) -> None:
        self.name = name

    @event("Renamed")
    def rename(self, name: str) -> None:
        self.name = name


class Keys(Application[Any]):
    name = "bench_keys"


class Counts(PostgresTrackingRecorder):
    """Counts events by kind, in the transaction of their tracking."""

    def __init__(
        self, datastore: PostgresDatastore, *, tracking_table_name: str = "bench_tracking", **more: Any
    ) -> None:
        super().__init__(datastore, tracking_table_name=tracking_table_name, **more)
        table = Identifier(VIEW_TABLES[1])
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (kind text PRIMARY KEY, count bigint NOT NULL)").format(table)
        )
        self._increment = SQL(
            "INSERT INTO {0} VALUES (%s, 1) ON CONFLICT (kind) DO UPDATE SET count = {0}.count + 1"
        ).format(table)

    def increment(self, kind: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._increment, (kind,), prepare=True)


class Counting(Projection[Counts]):
    name = "bench_counting"

    @singledispatchmethod
    def process_event(self, domain_event: DomainEventProtocol[Any], tracking: Tracking) -> None:
        self.view.increment(type(domain_event).__qualname__, tracking)


def settings(postgres_url: str, *, tuned: bool = False, pool: int = 4) -> dict[str, str]:
    parts = urlsplit(postgres_url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path[1:],
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": parts.password or "",
        "POSTGRES_POOL_SIZE": str(pool),
        "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if tuned else "n",
    }


def appends_per_s(app: Application[Any], threads: int, appends: int) -> float:
    """Each thread has an aggregate of its own and waits for each append."""
    each = appends // threads
    ready = threading.Barrier(threads + 1)

    def write() -> None:
        originator = uuid4()
        ready.wait()
        for version in range(1, each + 1):
            app.recorder.insert_events([StoredEvent(originator, version, "bench:Padded", PAYLOAD)])

    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(write) for _ in range(threads)]
        ready.wait()
        began = time.perf_counter()
        for each_done in done:
            each_done.result()
    return each * threads / (time.perf_counter() - began)


def new_key(app: Application[Any], events: int) -> Key:
    key = Key("key")
    for number in range(events - 1):
        key.rename(_name(number))
    app.save(key)
    return key


def command_times(app: Application[Any], key: Key, commands: int) -> Sequence[float]:
    times = []
    for number in range(commands):
        began = time.perf_counter()
        known: Key = app.repository.get(key.id)
        known.rename(_name(number))
        app.save(known)
        times.append(time.perf_counter() - began)
    return times


def load_time_s(app: Application[Any], key: Key, repeats: int) -> float:
    """Median of loading the aggregate without a cache."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        app.repository.get(key.id)
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def _name(number: int) -> str:
    """Padded, so that a stored event has about as many bytes as one of ours."""
    return f"{number:08d}" + "x" * 290


def projected_per_s(env: dict[str, str], events: int) -> float:
    """All that is stored, by a new runner, its start included."""
    began = time.perf_counter()
    with _runner(env) as runner:
        end = runner.app.recorder.max_notification_id()
        while not runner.view.has_tracking_id(runner.app.name, end):
            if time.perf_counter() - began > CATCH_UP_S:
                raise TimeoutError(f"the library did not project {events} events within {CATCH_UP_S} s")
            time.sleep(0.005)
        return events / (time.perf_counter() - began)


def waits(env: dict[str, str], count: int) -> Sequence[float]:
    """From a save to the end of wait()."""
    times = []
    with _runner(env) as runner:
        key = new_key(runner.app, 1)
        for number in range(count):
            key.rename(_name(number))
            [recording] = runner.app.save(key)
            began = time.perf_counter()
            runner.wait(recording.notification.id, timeout=WAIT_S)
            times.append(time.perf_counter() - began)
    return times


def _runner(env: dict[str, str]) -> ProjectionRunner[Keys, Counts]:
    return ProjectionRunner(application_class=Keys, projection_class=Counting, view_class=Counts, env=env)
