"""What a machine needs before its agent runs: the agent itself, and somebody to tell how its set-up goes.

    GET agent.pyz: anybody ──> the archive, by its ETag          POST bootstrap: the bootstrap token ──> phase | failure

The surprising rule: a report of a phase is welcome after the worker has registered too, and changes nothing then: the
script that started the agent still has its last words to say.
"""

import re

import structlog
from fastapi import APIRouter, Depends, Request, Response

from agent.protocol import AGENT_PATH, BOOTSTRAP_PATH, INSTANCE_GONE, MAX_OUTPUT_LENGTH, Accepted, BootstrapReport
from domain.instance import INSTANCE
from domain.instance_commands import RecordBootstrapFailed, RecordBootstrapPhase
from domain.instance_state import ENDED
from web.auth import Served, bearer_of, public, worker
from web.errors import ApiError
from web.intent import Intended
from web.worker_reports import answer, body_of, bootstrapped_instance

router = APIRouter(tags=["workers"], include_in_schema=False)

CACHE = "public, no-cache"
"""Keep it, and ask each time whether it is still today's: the ETag is the archive's checksum."""
_SECRETS = re.compile(r"\b(wk|wb|hf)_[A-Za-z0-9_-]{8,}")
_UNPRINTABLE = re.compile(r"[^\n\t\x20-\x7e\x80-\U0010ffff]")

_log = structlog.get_logger()


@router.get(AGENT_PATH, dependencies=[Depends(public)])
async def agent_archive(request: Request, services: Served) -> Response:
    """The agent that this control plane expects, as one file of about 200 kB."""
    release = services.settings.agent
    if not release.archive:
        raise ApiError(404, "not_found", "This control plane serves no agent.")
    etag = f'"{release.sha256}"'
    headers = {"etag": etag, "cache-control": CACHE, "x-agent-version": release.version}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(release.archive, media_type="application/zip", headers=headers)


@router.post(BOOTSTRAP_PATH, dependencies=[Depends(worker)])
async def bootstrap(request: Request, services: Served, intent: Intended) -> Response:
    """Takes how one phase of a machine's set-up ended."""
    report = await body_of(request, BootstrapReport)
    organization, instance = await bootstrapped_instance(services, report.instance_id, bearer_of(request))
    if instance.status in ENDED or instance.status == "terminating":
        raise ApiError(410, INSTANCE_GONE, "This instance is over; the machine may be switched off.")
    command: RecordBootstrapPhase | RecordBootstrapFailed = (
        RecordBootstrapPhase(phase=report.phase)
        if report.ok
        else RecordBootstrapFailed(phase=report.phase, message=_told(report.output))
    )
    actor = f"worker:{report.instance_id}"  # no worker has a name yet
    await intent.send(INSTANCE, organization, report.instance_id, command, actor=actor, is_news=True)
    _log.info("bootstrap_phase", instance=report.instance_id, phase=report.phase, ok=report.ok)
    return answer(Accepted())


def _told(output: str) -> str:
    """The end of it, fit for the log: without tokens, and without what a terminal would obey."""
    printable = _UNPRINTABLE.sub("", output.replace("\r\n", "\n").replace("\r", "\n"))
    return _SECRETS.sub(r"\1_...", printable)[-MAX_OUTPUT_LENGTH:]
