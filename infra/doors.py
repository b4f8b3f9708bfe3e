"""What reactions and duties may touch, made of the real things: see handlers/ports.py."""

from collections.abc import Sequence
from datetime import UTC, datetime

from nats.aio.client import Client
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from handlers.ports import Cloud, Doors, HandlerSettings, Unsettled
from infra.dispatch import Dispatcher
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.jetstream import JetStreamLog
from infra.events.snapshots import SnapshotStore
from infra.master_key import MasterKey
from infra.providers.tags import KeyedSigner
from infra.vault import WorkerTokens
from projections.instances import list_unsettled
from projections.projection import Read


def new_dispatcher(writer: Client) -> Dispatcher:
    """The one write door of a process, over its writer's connection."""
    return Dispatcher(JetStreamLog(writer), Codec(AGGREGATES), utc_now, lambda: str(uuid7()), SnapshotStore(writer))


def doors_of(environment: Environment, nc: Client, read: Read, local: Cloud, key: MasterKey) -> Doors:
    """Real doors, over a writer's connection, the read model `instances`, and the provider `local`."""
    dispatcher = new_dispatcher(nc)

    async def unsettled(after: str) -> Sequence[Unsettled]:
        async with read("instances") as connection:
            homes = await list_unsettled(connection, after=after)
        return [Unsettled(home.organization_id, home.id) for home in homes]

    return Doors(
        dispatch=dispatcher,
        load=dispatcher.load,
        clouds={"local": local},
        secrets=WorkerTokens(key),
        signer=KeyedSigner(key),
        clock=utc_now,
        settings=HandlerSettings(
            control_plane_url=environment.api_url,
            heartbeat_interval_s=environment.heartbeat_interval_s,
            drain_deadline_s=environment.drain_deadline_s,
        ),
        list_unsettled=unsettled,
    )


def utc_now() -> datetime:
    return datetime.now(UTC)
