"""The role `handlers`: reactions and duties on the log, and the local provider's agents, until SIGTERM or SIGINT."""

import asyncio
import os
import signal

import structlog

from handlers.subscriptions import REACTIONS, duties
from infra.doors import Tables, doors_of
from infra.effect_tables import EffectTables
from infra.effects import EffectLedger
from infra.environment import Environment
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import UnfitServerError, verify_server
from infra.events.timers import Timers
from infra.gate import Gate
from infra.master_key import read_master_key
from infra.parking import Parking
from infra.postgres import ReadModels
from infra.processes.roles import say_ready
from infra.providers.local import keep_agents_running, local_cloud
from infra.reacting import Reactor, Stores, keep_duty, run_reactions
from infra.replay.behind import require_whole_log
from infra.secret_files import SecretFileError
from infra.vault_tables import VaultKeyError, create_vault, vault_pool
from projections.projection import EVERYTHING

_log = structlog.get_logger(__name__)

ROLE = "handlers"


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, the server or the settings are unfit.
        LogUnavailableError: no NATS server answered at the start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not environment.postgres_url:
        raise _unfit("set INVENTIV_POSTGRES_URL, or use `inventiv up`, which brings its own Postgres")
    address = (environment.nats_url, ROLE, environment.nats_login)
    reader, writer = await connect_reader(*address), await connect_writer(*address)
    cloud = local_cloud(environment)
    try:
        await verify_server(reader, environment.nats_monitor_url, replicas=environment.nats_replicas)
        await require_whole_log(reader, environment.postgres_url)
        key = read_master_key(environment.secrets_dir, make=environment.make_secrets)
        url = environment.postgres_url
        async with (
            ReadModels(url, scope=EVERYTHING) as read,
            Gate(url) as gate,
            EffectTables(url) as rows,
            vault_pool(url) as vault,
        ):
            await create_vault(vault, key)
            tables = Tables(read=read, effects=EffectLedger(rows), vault=vault)
            doors = doors_of(environment, writer, tables, cloud, key)
            parking, timers = Parking(writer, doors.clock), Timers(writer)
            reactor = Reactor(REACTIONS, doors, Stores(JetStreamLog(writer), gate, parking, timers))
            async with asyncio.TaskGroup() as group:
                work = [run_reactions(reactor, reader), keep_agents_running(cloud)]
                work += [keep_duty(duty, reactor, gate) for duty in duties()]
                tasks = [group.create_task(task) for task in work]
                say_ready(environment, ROLE)
                _log.info("ready", reactions=len(REACTIONS))
                await stop.wait()
                for task in tasks:
                    task.cancel()
        _log.info("stopped")
    except (UnfitServerError, SecretFileError, VaultKeyError) as error:
        raise _unfit(str(error)) from error
    finally:
        cloud.close()
        await disconnect(reader)
        await disconnect(writer)


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
