"""What a user of the `eventsourcing` library may rely on beyond its own test cases: settings, ends, errors."""

import gc
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.utils import Environment

from infra.embedded.nats import EmbeddedNats
from infra.events import eventsourcing_module
from infra.events.eventsourcing_module import Factory

ROOT = Path(eventsourcing_module.__file__).parent.parent.parent
THREAD = "eventsourcing-jetstream"
WAIT_S = 60.0


@pytest.fixture
def environment(bare_nats: EmbeddedNats) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "infra.events.eventsourcing_module", "NATS_URL": bare_nats.admin_url}


@pytest.fixture
def factory(environment: dict[str, str]) -> Iterator[Factory]:
    made = Factory(Environment("Bank", environment))
    yield made
    made.close()


def stored(originator_id: UUID | str, version: int, state: bytes = b"{}", topic: str = "bank:Event") -> StoredEvent:
    return StoredEvent(originator_id, version, topic, state)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Account(Aggregate):
    def __init__(self) -> None:
        self.balance = Decimal(0)

    @event("Credited")
    def credit(self, amount: Decimal) -> None:
        self.balance += amount


class BankAccounts(Application[UUID]):
    is_snapshotting_enabled = True


def test_the_example_in_the_modules_docstring_runs(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    assert eventsourcing_module.__doc__ is not None
    example = re.search(r"(?:^    .*\n|^\n)+", eventsourcing_module.__doc__, re.MULTILINE)
    assert example is not None
    script = textwrap.dedent(example[0]).replace("nats://127.0.0.1:4222", bare_nats.admin_url)
    assert bare_nats.admin_url in script
    (tmp_path / "example.py").write_text(script)
    running = [sys.executable, str(tmp_path / "example.py")]
    done = subprocess.run(
        running, capture_output=True, text=True, timeout=60, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == "1050\n"


def test_an_application_finds_its_aggregates_again(environment: dict[str, str]) -> None:
    account = Account()
    account.credit(Decimal("10.50"))
    with BankAccounts(env=environment) as app:
        assert [recording.notification.id for recording in app.save(account)] == [1, 2]
        app.take_snapshot(account.id)
    with BankAccounts(env=environment) as again:
        found: Account = again.repository.get(account.id)
        found.credit(Decimal("0.50"))
        again.save(found)
        assert again.repository.get(account.id).balance == Decimal("11.00")
        assert [item.id for item in again.notification_log["1,10"].items] == [1, 2, 3]


async def test_streams_bear_the_applications_name_and_are_kept_for_ever(
    bare_nats: EmbeddedNats, environment: dict[str, str]
) -> None:
    BankAccounts(env=environment).close()
    connection = await nats.connect(bare_nats.admin_url)
    streams = {info.config.name: info.config for info in await connection.jetstream().streams_info()}
    await connection.close()
    assert set(streams) == {"ES_BANKACCOUNTS", "ES_BANKACCOUNTS-snapshots"}
    assert all(config.deny_delete and config.deny_purge and not config.max_age for config in streams.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [("NATS_URL", ""), ("NATS_REPLICAS", "many"), ("NATS_REPLICAS", "0"), ("NATS_TIMEOUT", "0"), ("CREATE_TABLE", "?")],
)
def test_a_setting_that_makes_no_sense_is_named(key: str, value: str) -> None:
    environment = {"PERSISTENCE_MODULE": "infra.events.eventsourcing_module", "NATS_URL": "nats://127.0.0.1:1"}
    with pytest.raises(InfrastructureFactoryError, match=key):
        InfrastructureFactory.construct(Environment("Bank", {**environment, key: value}))


def test_a_recorder_class_of_another_module_is_refused(environment: dict[str, str]) -> None:
    environment["PROCESS_RECORDER_TOPIC"] = "eventsourcing.popo:POPOProcessRecorder"
    with pytest.raises(InfrastructureFactoryError, match="PROCESS_RECORDER_TOPIC"):
        Factory(environment).process_recorder()


def test_a_missing_stream_is_not_created_where_that_is_forbidden(environment: dict[str, str]) -> None:
    cautious = Factory(Environment("Bank", {**environment, "CREATE_TABLE": "n"}))
    with pytest.raises(ProgrammingError, match="ES_BANK is missing"):
        cautious.application_recorder()
    with Application[UUID](env=environment):
        pass
    cautious.close()


async def test_a_stream_that_would_lose_events_is_refused(bare_nats: EmbeddedNats, factory: Factory) -> None:
    connection = await nats.connect(bare_nats.admin_url)
    await connection.jetstream().add_stream(name="ES_BANK", subjects=["ES_BANK.>"], max_age=3600)
    await connection.close()
    with pytest.raises(ProgrammingError, match="max_age"):
        factory.application_recorder()


def test_replicas_that_the_server_cannot_hold_are_reported(environment: dict[str, str]) -> None:
    factory = Factory(Environment("Bank", {**environment, "NATS_REPLICAS": "3"}))
    with pytest.raises(ProgrammingError, match="replicas > 1 not supported"):
        factory.application_recorder()
    factory.close()


def test_an_absent_server_is_an_operational_error_within_the_timeout(environment: dict[str, str]) -> None:
    factory = Factory({**environment, "NATS_URL": "nats://admin:secret-word@127.0.0.1:1", "NATS_TIMEOUT": "0.3"})
    with pytest.raises(OperationalError, match="did not answer in time") as raised:
        factory.application_recorder()
    assert "secret-word" not in f"{raised.value!r} {raised.value.__cause__!r}"
    factory.close()


async def test_a_server_that_goes_away_is_an_operational_error_and_comes_back(
    bare_nats: EmbeddedNats, environment: dict[str, str]
) -> None:
    factory = Factory({**environment, "NATS_TIMEOUT": "0.5"})
    recorder = factory.application_recorder()
    await bare_nats.kill()
    with pytest.raises(OperationalError):
        recorder.insert_events([stored("a", 1)])
    with pytest.raises(OperationalError):
        recorder.select_events("a")
    await bare_nats.start()
    patient = Factory(environment).application_recorder()
    assert patient.insert_events([stored("a", 1)]) == [1]
    factory.close()


def test_events_of_several_aggregates_keep_the_order_in_which_they_were_given(factory: Factory) -> None:
    recorder = factory.application_recorder()
    given = [stored("a", 1), stored("b", 1), stored("a", 2), stored("b", 2), stored("a", 3)]
    assert recorder.insert_events(given) == [1, 2, 3, 4, 5]
    found = recorder.select_notifications(1, 10)
    assert [(each.originator_id, each.originator_version) for each in found] == [
        (each.originator_id, each.originator_version) for each in given
    ]
    assert recorder.insert_events([stored("b", 3), stored("a", 4)]) == [6, 7]


def test_an_aggregate_of_more_events_than_a_page_is_read_whole(factory: Factory) -> None:
    recorder = factory.application_recorder()
    for start in range(1, 2501, 500):
        recorder.insert_events([stored("long", version) for version in range(start, start + 500)])
    assert [each.originator_version for each in recorder.select_events("long")] == list(range(1, 2501))
    assert [each.id for each in recorder.select_notifications(1001, 1200)] == list(range(1001, 2201))
    with recorder.subscribe(gt=2000) as subscription:
        assert [next(subscription).id for _ in range(500)] == list(range(2001, 2501))


@pytest.mark.parametrize("state", [b"x" * 2_000_000, b""], ids=["too large", "too many"])
def test_what_can_never_be_stored_is_a_data_error_and_stores_nothing(factory: Factory, state: bytes) -> None:
    recorder = factory.application_recorder()
    with pytest.raises(DataError):
        recorder.insert_events([stored("a", version, state) for version in range(1 if state else 1001)])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([stored("a", 1)]) == [1]


def test_tracking_makes_gaps_in_the_ids_and_is_no_notification(factory: Factory) -> None:
    recorder = factory.process_recorder()
    assert recorder.insert_events([stored("a", 1)], tracking=Tracking("upstream", 7)) == [2]
    recorder.insert_tracking(Tracking("upstream", 8))
    assert recorder.insert_events([stored("a", 2)]) == [4]
    recorder.insert_tracking(Tracking("upstream", 9))
    assert [each.id for each in recorder.select_notifications(None, 10)] == [2, 4]
    assert recorder.max_notification_id() == 4


async def test_a_strangers_message_in_the_stream_stops_the_readers(bare_nats: EmbeddedNats, factory: Factory) -> None:
    recorder = factory.application_recorder()
    connection = await nats.connect(bare_nats.admin_url)
    await connection.jetstream().publish("ES_BANK.event.a", b"not of ours")
    await connection.close()
    with pytest.raises(InternalError, match="position 1"):
        recorder.select_events("a")
    with pytest.raises(InternalError, match="position 1"):
        recorder.select_notifications(1, 10)
    with recorder.subscribe() as subscription, pytest.raises(InternalError, match="position 1"):
        next(subscription)


def test_a_subscription_beyond_the_end_of_the_stream_reports_the_loss(factory: Factory) -> None:
    recorder = factory.application_recorder()
    recorder.insert_events([stored("a", 1)])
    with recorder.subscribe(gt=5) as subscription, pytest.raises(InternalError, match="lost messages"):
        next(subscription)


def test_a_waiting_subscription_is_ended_by_another_thread(factory: Factory) -> None:
    subscription = factory.application_recorder().subscribe()
    found: list[object] = []
    reading = threading.Thread(target=lambda: found.append(list(subscription)))
    reading.start()
    eventually(lambda: getattr(subscription, "_waiting") is not None)  # noqa: B009 - of our own class
    subscription.stop()
    reading.join(WAIT_S)
    assert found == [[]]


def test_what_is_closed_says_so_to_callers_and_to_those_who_wait(factory: Factory) -> None:
    recorder = factory.application_recorder()
    subscription = recorder.subscribe()
    errors: list[Exception] = []

    def read() -> None:
        try:
            next(subscription)
        except InterfaceError as error:
            errors.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    eventually(lambda: getattr(subscription, "_waiting") is not None)  # noqa: B009 - of our own class
    factory.close()
    reading.join(WAIT_S)
    assert [str(error) for error in errors] == ["this factory is closed"]
    with pytest.raises(InterfaceError, match="closed"):
        recorder.max_notification_id()
    subscription.stop()
    factory.close()


def test_closing_a_factory_or_dropping_its_last_recorder_ends_its_thread(environment: dict[str, str]) -> None:
    def running() -> int:
        return [thread.name for thread in threading.enumerate()].count(THREAD)

    gc.collect()
    eventually(lambda: running() == 0)
    closed, dropped = Factory(environment), Factory(environment)
    assert running() == 0, "a factory alone starts nothing"
    recorders = [closed.application_recorder(), dropped.application_recorder()]
    assert running() == 2
    closed.close()
    assert running() == 1
    del dropped
    assert recorders.pop().max_notification_id() is None, "the recorder keeps alive what it needs"
    recorders.clear()
    gc.collect()
    eventually(lambda: running() == 0)


def test_ids_of_any_text_are_kept_apart(factory: Factory) -> None:
    recorder = factory.application_recorder()
    ids: list[UUID | str] = [uuid4(), "", "=", "a.b", "a*b", ">", "a b\r\n", "\u20ac", "=41", "A"]
    recorder.insert_events([stored(each, 1, str(each).encode()) for each in ids])
    assert [found.state for each in ids for found in recorder.select_events(each)] == [str(e).encode() for e in ids]
    with pytest.raises(DataError, match="513 characters"):
        recorder.select_events("x" * 513)


def test_no_service_imports_the_library() -> None:
    """Importing it changes dataclasses for the whole process; see the module."""
    program = """
import importlib, pkgutil, sys
for room in ("domain", "projections", "handlers", "gateway", "web", "infra.processes", "infra.cli"):
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print([name for name in sys.modules if name.partition(".")[0] == "eventsourcing"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
