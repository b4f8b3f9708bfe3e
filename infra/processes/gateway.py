"""The role `gateway`: the OpenAI-compatible data plane, until SIGTERM or SIGINT, or until another one takes over."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import structlog

from gateway.server import ClientServer
from infra.account_folders import take_accounts
from infra.environment import Environment
from infra.events.streams import UnfitServerError
from infra.gateway_parts import parts_of
from infra.gateway_serving import Place

_log = structlog.get_logger(__name__)


async def run(environment: Environment) -> None:
    """Runs the role until it is told to stop.

    Raises:
        SystemExit: 78, the address is taken, the data folder cannot be used, or the NATS server is unfit.
    """
    stop, folder, unfit = asyncio.Event(), environment.data_dir / "gateway", ""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        accounts, place = take_accounts(folder), Place(environment, folder)
        parts = parts_of(environment, folder, accounts)
        await place.open()
    except OSError as error:
        raise _unfit(f"{error}; see INVENTIV_GATEWAY_PORT, INVENTIV_DATA_DIR, INVENTIV_ACCESS_LOG") from error
    await parts.start()
    async with AsyncExitStack() as stack:
        stack.callback(accounts.close)
        stack.push_async_callback(parts.services.calls.close)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(task) for task in parts.work(stack)]
                server = ClientServer(parts.gateway, now_s=time.monotonic)
                await place.serve(server, parts.feed, stop, own_folder=accounts.folder)
                await parts.settle()
                for task in tasks:
                    task.cancel()
        except* (UnfitServerError, OSError) as failures:
            unfit = str(failures.exceptions[0])
        await parts.finish()
    if unfit:
        raise _unfit(unfit)
    _log.info("stopped")


def _unfit(reason: str) -> SystemExit:
    _log.critical("unfit", reason=reason)
    return SystemExit(os.EX_CONFIG)
