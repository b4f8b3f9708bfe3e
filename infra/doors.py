"""What reactions and duties may touch, made of the real things: see handlers/ports.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.ids import DeploymentId, OrganizationId
from domain.message import Envelope, subject_of
from handlers.cloud_ports import Cloud
from handlers.ports import Doors, Effects, HandlerSettings, History, Trigger, Unsettled
from infra.audit.sealer import Sealer
from infra.audit.seals import SealStore
from infra.audit.signing_key import read_signing_key
from infra.clouds import AccountClouds, factories_of, script_of
from infra.credentials import CredentialStore, opened_by_provider
from infra.dispatch import Dispatcher
from infra.environment import Environment
from infra.erasure import VaultEraser
from infra.events.codec import Codec
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.events.port import EventLog
from infra.events.snapshots import SnapshotStore
from infra.host_keys import HostKeys
from infra.idempotency import PostgresIdempotency
from infra.inbox import Inbox, inbox_folder
from infra.mail import mailer_of
from infra.master_key import MasterKey
from infra.owning import OwningInstances
from infra.person_traces import find_traces_in
from infra.postgres import Pool
from infra.providers.tags import KeyedSigner
from infra.shell import SshShell, hosts_in
from infra.upstream_key_store import UpstreamKeyVault
from infra.vault import OneTimeTokens, Vault, WorkerTokens
from infra.worker_hearing import HeardWorkers, probe_agent
from infra.wrapping import KeyRing
from projections.deployments import list_standing
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


PROVIDERS = ("local", "scaleway", "aws", "bare_metal")
"""Codes of the providers that doors_of has an adapter for."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What doors need of Postgres: read models, the ledger, and a pool of the vault's."""

    read: Read
    effects: Effects
    vault: Pool


def doors_of(environment: Environment, nc: Client, tables: Tables, local: Cloud, key: MasterKey) -> Doors:
    """Real doors, over a writer's connection, Postgres, and the provider `local`.

    Raises:
        SecretFileError: the settings of mails do not suffice, or the token for gated models cannot be read.
    """
    dispatcher, read, pool = new_dispatcher(nc), tables.read, tables.vault
    keys = KeyRing(key, environment.secrets_dir)
    vault, inbox = Vault(pool, key, keys), Inbox(inbox_folder(environment.data_dir))
    credentials = CredentialStore(pool, keys)
    open_credentials = opened_by_provider(credentials.open, environment.hf_token_file)

    async def unsettled(after: str) -> Sequence[Unsettled]:
        async with read("instances") as connection:
            homes = await list_unsettled(connection, after=after)
        return [Unsettled(home.organization_id, home.id) for home in homes]

    async def standing(organization: OrganizationId, /, *, position: int) -> Sequence[DeploymentId]:
        async with read("deployments", position=position) as connection:
            return await list_standing(connection, organization)

    return Doors(
        dispatch=dispatcher,
        load=dispatcher.load,
        clouds=AccountClouds({"local": local}, credentials, factories_of(environment, hosts_in(read), utc_now)),
        shell=SshShell(open_credentials, HostKeys(pool), hosts_in(read)),
        bootstrap_script=script_of(environment),
        probe=probe_agent,
        last_heard=HeardWorkers(nc, utc_now),
        secrets=WorkerTokens(key),
        signer=KeyedSigner(key),
        clock=utc_now,
        settings=settings_of(environment),
        list_unsettled=unsettled,
        list_owning=OwningInstances(read, JetStreamLog(nc).head),
        list_standing=standing,
        effects=tables.effects,
        history=history_of(JetStreamLog(nc)),
        sealer=Sealer(SealStore(nc), read, read_signing_key(environment.secrets_dir, make=environment.make_secrets)),
        mailer=mailer_of(environment),
        vault=vault,
        tokens=OneTimeTokens(key),
        credentials=open_credentials,
        upstream_keys=UpstreamKeyVault(pool),
        find_traces=find_traces_in(read, utc_now),
        eraser=VaultEraser(environment.postgres_url, pool, vault, PostgresIdempotency(pool, key), inbox),
    )


def settings_of(environment: Environment) -> HandlerSettings:
    return HandlerSettings(
        control_plane_url=environment.api_url,
        console_url=(environment.console_url or environment.api_url).rstrip("/"),
        heartbeat_interval_s=environment.heartbeat_interval_s,
        drain_deadline_s=environment.drain_deadline_s,
        worker_silent_s=environment.worker_silent_s,
        tunnel_url=environment.tunnel_agent_url,
    )


def utc_now() -> datetime:
    return datetime.now(UTC)
