"""Fills the ports of the REST API with the real things: NATS, Postgres, the vault."""

import os
from contextlib import AsyncExitStack
from functools import partial

from domain.aggregates import AGGREGATES
from infra.agent_release import agent_release
from infra.audit.seals import SealStore
from infra.bootstrap import bootstrap
from infra.credentials import CredentialStore
from infra.doors import new_dispatcher, utc_now
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import verify_server
from infra.idempotency import PostgresIdempotency
from infra.jwt_secret import token_key
from infra.lag import read_progress
from infra.master_key import MasterKey, read_master_key
from infra.parking import Parking
from infra.passwords import Passwords
from infra.postgres import ReadModels
from infra.projecting import UsageSource
from infra.replay.behind import require_whole_log
from infra.replay.histories import Histories
from infra.resolving import resolve
from infra.session_uses import SessionUses
from infra.sign_in_limits import SignInLimits
from infra.sign_in_tables import create_sign_in_tables
from infra.telemetry_stream import TelemetryStream
from infra.upstream_key_store import UpstreamKeyIntake
from infra.upstream_sealing import sealer_of, write_upstream_key
from infra.vault import OneTimeTokens, Vault, WorkerTokens
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing
from web.services import Services, Settings
from web.version import build


async def web_services(environment: Environment, stack: AsyncExitStack) -> Services:
    """Connects, sees to the first start, and hands out the ports; what was opened is closed with the stack.

    Raises:
        UnfitServerError, SecretFileError, VaultKeyError: a person has to act.
        OSError: NATS or Postgres did not answer.
    """
    reader = await connect_reader(environment.nats_url, "web", environment.nats_login)
    stack.push_async_callback(disconnect, reader)
    writer = await connect_writer(environment.nats_url, "web", environment.nats_login)
    stack.push_async_callback(disconnect, writer)
    await verify_server(reader, environment.nats_monitor_url, replicas=environment.nats_replicas)
    await require_whole_log(reader, environment.postgres_url)
    key = read_master_key(environment.secrets_dir, make=environment.make_secrets)
    write_upstream_key(environment.secrets_dir, key)
    keys = KeyRing(key, environment.secrets_dir)
    pool = await stack.enter_async_context(vault_pool(environment.postgres_url))
    await create_vault(pool, key)
    await create_sign_in_tables(pool)
    read = await stack.enter_async_context(ReadModels(environment.postgres_url))
    log, vault, passwords = JetStreamLog(reader), Vault(pool, key, keys), Passwords(pool)
    stack.callback(passwords.close)
    dispatcher = new_dispatcher(writer)
    await bootstrap(environment, dispatch=dispatcher, load=dispatcher.load, vault=vault, passwords=passwords)
    await passwords.warm_up()

    async def read_models() -> None:
        async with read():
            pass  # a connection could be had

    return Services(
        dispatch=dispatcher,
        load=dispatcher.load,
        read=read,
        log=log,
        vault=vault,
        passwords=passwords,
        sign_in_limits=SignInLimits(pool, key),
        session_uses=await stack.enter_async_context(SessionUses(pool)),
        worker_tokens=WorkerTokens(key),
        one_time_tokens=OneTimeTokens(key),
        credentials=CredentialStore(pool, keys),
        upstream_keys=UpstreamKeyIntake(pool, sealer_of(key)),
        resolve=resolve,
        idempotency=PostgresIdempotency(pool, key),
        telemetry=TelemetryStream(writer),
        parking=Parking(writer, utc_now),
        seals=SealStore(reader),
        histories=Histories(Codec(AGGREGATES)),
        clock=utc_now,
        chance=os.urandom,
        settings=web_settings(environment, key),
        checks={"event_log": log.head, "read_models": read_models},
        progress=partial(read_progress, read, {"EVENTS": log.head, "USAGE": UsageSource(reader).head}),
    )


def web_settings(environment: Environment, key: MasterKey) -> Settings:
    version, build_time = build()
    return Settings(
        token_key=token_key(environment, key),
        min_password_length=environment.min_password_length,
        session_ttl_s=environment.session_ttl_s,
        console_url=environment.console_url,
        cookie_secure=environment.cookie_secure,
        heartbeat_interval_s=environment.heartbeat_interval_s,
        defaults={
            "WORKER_INSTANCE_STARTUP_TIMEOUT_S": environment.startup_timeout_s,
            "OPENAI_WORKER_STALE_SECONDS": environment.worker_stale_s,
        },
        data_volume_gb=environment.worker_data_volume_gb,
        drain_deadline_s=environment.drain_deadline_s,
        trusted_proxies=environment.proxy_networks,
        outbound=environment.outbound_rules,
        host_networks=environment.host_networks,
        version=version,
        build_time=build_time,
        agent=agent_release(environment.agent_versions_allowed),
        worker_token_ttl_s=environment.worker_token_ttl_s,
        tunnel_url=environment.tunnel_url,
    )
