"""How the agent switches its machine off: by a file that its host looks for, a command of its owner's, or the system's.

WORKER_POWER_OFF_FILE ──> created; what started the agent does the rest (the agent in a container could not)
WORKER_POWER_OFF_COMMAND ──> run, without a shell          neither ──> systemctl poweroff, else shutdown -h now (root)
"""

import asyncio
import os
import shlex
from collections.abc import Sequence

from agent.event_log import EventLog
from agent.settings import Settings

COMMAND_TIMEOUT_S = 30.0
SYSTEM_COMMANDS = (("systemctl", "poweroff"), ("shutdown", "-h", "now"))


async def power_off(settings: Settings, log: EventLog) -> bool:
    """Begins to switch the machine off; False when nothing here could: the log says why."""
    if settings.power_off_file is not None:
        try:
            settings.power_off_file.touch()
        except OSError as error:
            log.record("power_off_failed", f"{settings.power_off_file}: {error.strerror}")
            return False
        log.record("power_off", f"asked for by {settings.power_off_file}")
        return True
    commands = _commands(settings)
    if not commands:
        log.record("power_off_failed", "not root, and WORKER_POWER_OFF_COMMAND is not set")
    for command in commands:
        why_not = await _failure(command)
        if not why_not:
            log.record("power_off", f"asked for by {command[0]}")
            return True
        log.record("power_off_failed", f"{command[0]}: {why_not}")
    return False


def _commands(settings: Settings) -> Sequence[Sequence[str]]:
    if settings.power_off_command:
        return (shlex.split(settings.power_off_command),)
    return SYSTEM_COMMANDS if os.geteuid() == 0 else ()


async def _failure(command: Sequence[str]) -> str:
    """Runs it; why it did not succeed, or ""."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            status = await process.wait()
    except TimeoutError:
        return f"did not end within {COMMAND_TIMEOUT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return f"ended with status {status}" if status else ""
