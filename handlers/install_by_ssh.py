"""Installs an instance's server by SSH: reach it, run the bootstrap, and let go of it when the instance is to end.

    booting ──reach──> SshReached ──run──> exit 0: "done"    exit not 0: BootstrapFailed, again after five minutes

The script reports its phases by itself, over HTTP. The surprising rule: the run is cut off at a look's end and simply
taken up again, since the script continues where it was; what bounds it is the time since the host was reached.
"""

import asyncio
import contextlib
from datetime import timedelta

from domain.instance import INSTANCE
from domain.instance_commands import FailStartup, RecordBootstrapFailed, RecordBootstrapPhase, RecordSshReached
from domain.instance_events import MAX_BOOTSTRAP_WORDS
from domain.instance_steps import InstallBySsh
from handlers.agent_environment import agent_environment, worker_settings
from handlers.cloud_ports import CloudRefusedError, CommandRun
from handlers.instance_look import Look, ProviderTroubleError, asked, code_of
from handlers.instance_steps_in_cloud import Finding
from handlers.outcome import RetryAfter
from handlers.provider_words import said

REACH_TIMEOUT_S = 10.0
RUN_SLICE_S = 480.0
"""One look's part of an installation; infra/gate.py ends a look at 600 s."""
CHECK_EVERY_S = 5.0
"""How soon a running installation notices that its instance is to end."""
_REACH = "true"
_FIRST_PHASE, _LAST_PHASE = "start", "done"


async def install_by_ssh(step: InstallBySsh, look: Look) -> Finding:
    """Raises ProviderTroubleError: not reached, or cut off; the look is taken again later."""
    try:
        if look.state.status == "booting":
            await _run(step, look, _REACH, timeout_s=REACH_TIMEOUT_S)
            return RecordSshReached()
        return await _install(step, look)
    except CloudRefusedError as refused:
        return FailStartup(code=code_of(refused, "SSH_NOT_ACCESSIBLE"), message=said(refused.message))


async def _install(step: InstallBySsh, look: Look) -> Finding:
    limit_s = (await worker_settings(look)).number("WORKER_SSH_BOOTSTRAP_TIMEOUT_S")
    script = look.doors.bootstrap_script(await agent_environment(look))
    try:
        run = await _run_while_wanted(step, look, script, timeout_s=min(limit_s, RUN_SLICE_S))
    except ProviderTroubleError as cut_off:
        reached_at = look.state.ssh_reached_at or look.now
        if look.now < reached_at + timedelta(seconds=limit_s):
            raise
        message = f"Not done {limit_s} s after the host was reached: {cut_off.message}"
        return RecordBootstrapFailed(phase=look.state.bootstrap_phase or _FIRST_PHASE, message=message)
    if run is None:
        return RetryAfter(0.0, "the instance is no longer to be installed")
    if run.exit_status == 0:
        return RecordBootstrapPhase(phase=_LAST_PHASE)
    return await _failed(run, look)


async def _run(step: InstallBySsh, look: Look, script: str, *, timeout_s: float) -> CommandRun:
    provider = look.request.provider
    running = look.doors.shell.run(look.organization, provider, step.ip_address, script, timeout_s=timeout_s)
    return await asked("install_by_ssh", running)


async def _run_while_wanted(step: InstallBySsh, look: Look, script: str, *, timeout_s: float) -> CommandRun | None:
    """None when the instance left the states in which it is installed; the run is cut off then."""
    running = asyncio.ensure_future(_run(step, look, script, timeout_s=timeout_s))
    try:
        while not (await asyncio.wait({running}, timeout=CHECK_EVERY_S))[0]:
            loaded = await look.doors.load(INSTANCE, look.organization, look.trigger.id)
            if loaded.state.status not in {"booting", "installing", "starting"} or loaded.state.reinstall_wanted:
                return None
        return running.result()
    finally:
        if not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _failed(run: CommandRun, look: Look) -> Finding:
    """The phase after the last one that the script reported; by now it has most likely reported the failure itself."""
    loaded = await look.doors.load(INSTANCE, look.organization, look.trigger.id)
    message = run.output[-MAX_BOOTSTRAP_WORDS:] or f"The script ended with status {run.exit_status}."
    return RecordBootstrapFailed(phase=loaded.state.bootstrap_phase or _FIRST_PHASE, message=message)
