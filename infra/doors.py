"""What reactions and duties may touch, made of the real things: see handlers/ports.py."""

from collections.abc import Sequence
from datetime import UTC, datetime

from nats.aio.client import Client
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.message import Envelope, subject_of
from handlers.ports import Cloud, Doors, Effects, HandlerSettings, History, Trigger, Unsettled
from infra.audit.sealer import Sealer
from infra.audit.seals import SealStore
from infra.audit.signing_key import read_signing_key
from infra.dispatch import Dispatcher
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.events.port import EventLog
from infra.events.snapshots import SnapshotStore
from infra.master_key import MasterKey
from infra.providers.tags import KeyedSigner
from infra.vault import WorkerTokens
from projections.instances import list_unsettled
from projections.projection import Read


def new_dispatcher(writer: Client) -> Dispatcher:
    """The one write door of a process, over its writer's connection."""
    log = GroupCommitLog(JetStreamLog(writer))
    return Dispatcher(log, Codec(AGGREGATES), utc_now, lambda: str(uuid7()), SnapshotStore(writer))


def history_of(log: EventLog) -> History:
    """Reads an aggregate's events. Its whole subject is read each time, so this is for aggregates of tens of them."""

    async def history(trigger: Trigger, /, *, after: int) -> Sequence[Envelope]:
        found = await log.read(subject_of(trigger.organization, trigger.aggregate, trigger.id))
        return [recorded.envelope for recorded in found if recorded.envelope.version > after]

    return history


PROVIDERS = ("local",)
"""Codes of the providers that doors_of has an adapter for."""


def doors_of(environment: Environment, nc: Client, read: Read, local: Cloud, key: MasterKey, effects: Effects) -> Doors:
    """Real doors, over a writer's connection, the read model `instances`, the provider `local`, and the ledger."""
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
        settings=settings_of(environment),
        list_unsettled=unsettled,
        effects=effects,
        history=history_of(JetStreamLog(nc)),
        sealer=Sealer(SealStore(nc), read, read_signing_key(environment.secrets_dir)),
    )


def settings_of(environment: Environment) -> HandlerSettings:
    return HandlerSettings(
        control_plane_url=environment.api_url,
        heartbeat_interval_s=environment.heartbeat_interval_s,
        drain_deadline_s=environment.drain_deadline_s,
    )


def utc_now() -> datetime:
    return datetime.now(UTC)
