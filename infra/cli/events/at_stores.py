"""What commands at the stores share: connections for the length of a command, and their failures in words.

A store that does not answer is exit code 8, like an API that does not.
"""

import contextlib
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import typer

from infra.cli.output import CommandError, ExitCode
from infra.cli.stores import Stores
from infra.environment import Environment
from infra.processes.running import read_platform

MAX_REPLICAS = 3

Stopped = Annotated[bool, typer.Option("--stopped", help="Servers of your own: yes, every role is stopped.")]


def reader(environment: Environment, stores: Stores) -> AbstractAsyncContextManager[Any]:
    """A connection to NATS that reads much; on a cluster with keys, the identity `tools` suffices."""
    return _connected("connect_reader", "tools", environment, stores)


def writer(environment: Environment, stores: Stores) -> AbstractAsyncContextManager[Any]:
    """A connection to NATS with every right (identity `operator`), which sends nothing late."""
    return _connected("connect_writer", "operator", environment, stores)


@contextlib.asynccontextmanager
async def _connected(connect: str, identity: str, environment: Environment, stores: Stores) -> AsyncIterator[Any]:
    connection: Any = importlib.import_module("infra.events.connection")
    nc = await getattr(connection, connect)(stores.nats_admin_url, identity, environment.nats_login)
    try:
        yield nc
    finally:
        await connection.disconnect(nc)


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """Raises CommandError instead of what the stores raise."""
    nats_errors: Any = importlib.import_module("nats.errors")
    psycopg: Any = importlib.import_module("psycopg")
    reads: Any = importlib.import_module("infra.events.reads")
    try:
        yield
    except (nats_errors.Error, psycopg.OperationalError, OSError) as error:
        message = f"A store does not answer: {str(error).strip() or type(error).__name__}."
        cure = "Look at NATS and Postgres (`inventiv doctor`), then run the command again."
        raise CommandError(ExitCode.UNREACHABLE, "stores_unreachable", message, cure) from error
    except reads.ApiError as error:
        raise CommandError(ExitCode.FAILED, "jetstream_refused", f"JetStream refused: {error}.") from error


def require_stopped(environment: Environment, stores: Stores, *, stopped: bool) -> None:
    """No role may write meanwhile; of servers of one's own, only the operator knows.

    Raises:
        CommandError: the platform runs, or nobody has said that it does not.
    """
    if not stores.running:
        return
    if read_platform(environment.data_dir) is not None:
        message = f"The platform on {environment.data_dir} is running, and would write meanwhile."
        raise CommandError(ExitCode.CONFLICT, "platform_running", message, "Stop `inventiv up` first.")
    if not stopped:
        message = "These servers are your own: nothing here tells whether services are running on them."
        cure = "Stop every role of the platform, then say so with --stopped."
        raise CommandError(ExitCode.CONFLICT, "platform_may_be_running", message, cure)


def replicas_of(environment: Environment, stores: Stores) -> int:
    """Copies of a stream that has to be created: as the environment asks, or one on each node of the platform."""
    nodes = len(stores.nats_admin_url.split(","))
    return max(environment.nats_replicas, min(nodes, MAX_REPLICAS))
