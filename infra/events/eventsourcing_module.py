"""A PERSISTENCE_MODULE for the `eventsourcing` library on NATS JetStream; any application of that library can use it:

    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Account(Aggregate):
        cents = 0

        @event("Credited")
        def credit(self, cents: int) -> None:
            self.cents += cents

    env = {"PERSISTENCE_MODULE": "infra.events.eventsourcing_module", "NATS_URL": "nats://127.0.0.1:4222"}
    with Application(env=env) as bank:
        account = Account()
        account.credit(cents=1050)
        bank.save(account)
        print(bank.repository.get(account.id).cents)

Settings, in the environment that the library passes in:

    NATS_URL            servers, separated by commas; needed. JetStream with `sync_interval: always` (README)
    NATS_STREAM_PREFIX  of stream names, "ES" when left out: BankAccounts keeps its events in ES_BANKACCOUNTS, its
                        snapshots in ES_BANKACCOUNTS-snapshots
    NATS_REPLICAS       copies of a stream that is created, 1 when left out; 3 in production
    NATS_TIMEOUT        seconds for which an operation is tried while the server is away, 20 when left out
    CREATE_TABLE        "n": streams must exist already, for a user who may not create them
    APPLICATION_RECORDER_TOPIC, TRACKING_RECORDER_TOPIC, PROCESS_RECORDER_TOPIC     as for the library's own modules

As everywhere in the library, an application's name before a key makes it that application's (BANKACCOUNTS_NATS_URL).
The surprising rule: nothing of the platform's services may import this. Importing the library changes Python's
dataclasses for the whole process, and its threads do not belong into asyncio; this is for scripts, notebooks and tests,
and for those who bring an application of that library.
"""

from typing import TypeVar

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ProcessRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from infra.events.eventsourcing_datastore import JetStreamDatastore, Settings
from infra.events.eventsourcing_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamRecorder,
    JetStreamTrackingRecorder,
)
from infra.events.jetstream import RETRY_BUDGET_S

R = TypeVar("R", bound=JetStreamRecorder)


class Factory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """Makes the library's recorders; connects with the first, and `close` ends its thread and connections.

    Raises:
        InfrastructureFactoryError: a setting is missing or makes no sense.
    """

    NATS_URL = "NATS_URL"
    NATS_STREAM_PREFIX = "NATS_STREAM_PREFIX"
    NATS_REPLICAS = "NATS_REPLICAS"
    NATS_TIMEOUT = "NATS_TIMEOUT"
    CREATE_TABLE = "CREATE_TABLE"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._datastore = JetStreamDatastore(_settings(self.env))

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Of the application's events, or of what else it keeps of its aggregates, such as "snapshots"."""
        return self._recorder(JetStreamAggregateRecorder, purpose)

    def application_recorder(self) -> ApplicationRecorder:
        return self._recorder(self._chosen(self.APPLICATION_RECORDER_TOPIC, JetStreamApplicationRecorder))

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        """A view's tracking recorder; give a subclass (of the process recorder, to keep the view itself here)."""
        return self._recorder(
            tracking_recorder_class or self._chosen(self.TRACKING_RECORDER_TOPIC, JetStreamTrackingRecorder)
        )

    def process_recorder(self) -> ProcessRecorder:
        return self._recorder(self._chosen(self.PROCESS_RECORDER_TOPIC, JetStreamProcessRecorder))

    def close(self) -> None:
        """Ends the thread and its connections; the recorders then raise InterfaceError. Safe to repeat."""
        self._datastore.close()

    def _recorder(self, recorder_class: type[R], purpose: str = "events") -> R:
        return recorder_class(self._datastore, self._datastore.open(self.env.name, purpose))

    def _chosen(self, key: str, usual: type[R]) -> type[R]:
        topic = self.env.get(key)
        if not topic:
            return usual
        chosen: object = resolve_topic(topic)
        if not (isinstance(chosen, type) and issubclass(chosen, usual)):
            raise InfrastructureFactoryError(f"{key} is {topic}, which is no {usual.__name__}")
        return chosen


def _settings(env: Environment) -> Settings:
    url = env.get(Factory.NATS_URL)
    if not url:
        raise InfrastructureFactoryError("NATS_URL is missing in the environment: nats://user:password@host:port")
    try:
        settings = Settings(
            url=url,
            prefix=env.get(Factory.NATS_STREAM_PREFIX, "ES"),
            replicas=int(env.get(Factory.NATS_REPLICAS, "1")),
            creates_streams=strtobool(env.get(Factory.CREATE_TABLE, "yes")),
            timeout_s=float(env.get(Factory.NATS_TIMEOUT, str(RETRY_BUDGET_S))),
        )
    except ValueError as error:
        raise InfrastructureFactoryError(f"NATS_REPLICAS, NATS_TIMEOUT or CREATE_TABLE: {error}") from error
    if settings.replicas < 1 or not settings.timeout_s > 0:
        raise InfrastructureFactoryError("NATS_REPLICAS must be 1, 3 or 5, and NATS_TIMEOUT more than 0 seconds")
    return settings
