"""Where the log and the tables are, for commands that go to them directly: the same question, three answers.

    `inventiv up` runs on the data folder      its servers
    INVENTIV_POSTGRES_URL is set               the servers that the environment names
    a data folder, nothing running             its servers, started for the length of the command

The surprising rule: only the middle case trusts the environment with an administrator's login, since the other two have
their own; a command that must write what services may not asks for `admin`.
"""

import asyncio
import contextlib
import importlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from infra.cli.output import CommandError, ExitCode, say
from infra.environment import Environment
from infra.processes.running import read_platform

MARKER = "inventiv-data.json"


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses; they hold passwords: do not print them.

    Attributes:
        nats_url: as services use it.
        nats_admin_url: may create streams, and write where services may not.
        running: whether the platform's own roles may be at work on these stores now; unknown counts as yes.
    """

    nats_url: str
    nats_admin_url: str
    nats_monitor_url: str
    postgres_url: str
    running: bool


def logs_to_stderr() -> None:
    """What connections have to say is no part of a command's answer."""
    structlog: Any = importlib.import_module("structlog")
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@contextlib.asynccontextmanager
async def open_stores(environment: Environment) -> AsyncIterator[Stores]:
    """The stores, up and answering for as long as the body runs.

    Raises:
        CommandError: there is nothing to open, or somebody else holds the data folder.
    """
    logs_to_stderr()
    telemetry: Any = importlib.import_module("infra.telemetry")
    telemetry.configure_command_logging()
    platform = read_platform(environment.data_dir)
    if platform is not None:
        if platform.state != "running":
            message = f"`inventiv up` on {environment.data_dir} is {platform.state}; wait until it is running."
            raise CommandError(ExitCode.CONFLICT, "not_ready", message)
        yield Stores(
            nats_url=platform.nats_url,
            nats_admin_url=platform.nats_admin_url,
            nats_monitor_url=platform.nats_monitor_url,
            postgres_url=platform.postgres_url,
            running=True,
        )
    elif environment.postgres_url:
        yield Stores(
            nats_url=environment.nats_url,
            nats_admin_url=environment.nats_url,
            nats_monitor_url=environment.nats_monitor_url,
            postgres_url=environment.postgres_url,
            running=True,
        )
    elif (environment.data_dir / MARKER).exists():
        async with _started(environment) as stores:
            yield stores
    else:
        message = f"There is no platform in {environment.data_dir}, and INVENTIV_POSTGRES_URL names none."
        cure = "Set INVENTIV_DATA_DIR to a platform's data folder, or the two URLs of its servers."
        raise CommandError(ExitCode.NOT_FOUND, "no_stores", message, cure)


@contextlib.asynccontextmanager
async def _started(environment: Environment) -> AsyncIterator[Stores]:
    folder: Any = importlib.import_module("infra.processes.data_folder")
    nats: Any = importlib.import_module("infra.embedded.nats_cluster")
    postgres: Any = importlib.import_module("infra.embedded.postgres")
    claimed = folder.claim(environment.data_dir)
    if claimed is None:
        message = f"Another process holds {environment.data_dir}."
        raise CommandError(ExitCode.CONFLICT, "data_folder_held", message, "Wait for it, or stop it.")
    try:
        await asyncio.to_thread(folder.end_leftovers, claimed)
        nodes = folder.mark(claimed, now=time.time()).nats_nodes
        ports = folder.choose_ports(claimed, folder.Ports(), say, nats_nodes=nodes)
        log = nats.EmbeddedNatsCluster(environment.data_dir / "nats", ports.nats_nodes)
        tables = postgres.EmbeddedPostgres(environment.data_dir / "postgres", ports.postgres)
        say("Starting NATS and Postgres on the data folder for this command.")
        async with log, tables:
            yield Stores(
                nats_url=log.url,
                nats_admin_url=log.admin_url,
                nats_monitor_url=log.monitor_url,
                postgres_url=tables.url,
                running=False,
            )
    finally:
        claimed.release()
