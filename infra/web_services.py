"""Fills the ports of the REST API with the real things: NATS, Postgres, the vault."""

import os
from contextlib import AsyncExitStack
from functools import partial

from infra.audit.seals import SealStore
from infra.bootstrap import bootstrap
from infra.doors import new_dispatcher, utc_now
from infra.environment import Environment
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import verify_server
from infra.idempotency import PostgresIdempotency
from infra.lag import read_progress
from infra.master_key import MasterKey, read_master_key
from infra.parking import Parking
from infra.passwords import Passwords
from infra.postgres import ReadModels
from infra.projecting import UsageSource
from infra.replay.behind import require_whole_log
from infra.telemetry_stream import TelemetryStream
from infra.vault import OneTimeTokens, Vault, WorkerTokens
from infra.vault_tables import create_vault, vault_pool
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
    key = read_master_key(environment.secrets_dir)
    pool = await stack.enter_async_context(vault_pool(environment.postgres_url))
    await create_vault(pool, key)
    read = await stack.enter_async_context(ReadModels(environment.postgres_url))
    log, vault, passwords = JetStreamLog(reader), Vault(pool, key), Passwords(pool)
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
        worker_tokens=WorkerTokens(key),
        one_time_tokens=OneTimeTokens(key),
        idempotency=PostgresIdempotency(pool, key),
        telemetry=TelemetryStream(writer),
        parking=Parking(writer, utc_now),
        seals=SealStore(reader),
        clock=utc_now,
        chance=os.urandom,
        settings=web_settings(environment, key),
        checks={"event_log": log.head, "read_models": read_models},
        progress=partial(read_progress, read, {"EVENTS": log.head, "USAGE": UsageSource(reader).head}),
    )


def web_settings(environment: Environment, key: MasterKey) -> Settings:
    version, build_time = build()
    return Settings(
        token_key=key.key_for("sign_in"),
        session_ttl_s=environment.session_ttl_s,
        cookie_secure=environment.cookie_secure,
        heartbeat_interval_s=environment.heartbeat_interval_s,
        startup_timeout_s=environment.startup_timeout_s,
        drain_deadline_s=environment.drain_deadline_s,
        version=version,
        build_time=build_time,
    )
