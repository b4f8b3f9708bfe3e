"""What a load balancer, a deployer and a reader of the API ask: alive, ready, which version, which endpoints."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from web.auth import Served, public
from web.shapes import Reply

router = APIRouter(tags=["system"], dependencies=[Depends(public)])

CHECK_TIMEOUT_S = 2.0
_REFERENCE_PAGE = Path(__file__).parent.parent / "reference.html"


class Version(Reply):
    backend_version: str
    build_time: str


@router.get("/", response_class=PlainTextResponse, include_in_schema=False)
async def banner() -> str:
    return "Inventiv Agents: the REST API. See /swagger-ui.\n"


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process lives; says nothing about what stands behind it."""
    return "ok\n"


@router.get("/readyz")
async def readyz(services: Served) -> JSONResponse:
    """200 when everything that requests need answers, else 503 with what does not."""
    findings: dict[str, str] = {}
    for name, check in services.checks.items():
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check()
            findings[name] = "ok"
        except OSError:
            findings[name] = "unavailable"
    ready = set(findings.values()) <= {"ok"}
    return JSONResponse({"ready": ready, "checks": findings}, status_code=200 if ready else 503)


@router.get("/version")
@router.get("/api/version", include_in_schema=False)
async def version(services: Served) -> Version:
    return Version(backend_version=services.settings.version, build_time=services.settings.build_time)


@router.get("/swagger-ui", include_in_schema=False)
async def reference() -> HTMLResponse:
    """The API's reference, made from openapi.json by a page of our own: nothing is fetched from elsewhere."""
    policy = {"content-security-policy": "default-src 'self' 'unsafe-inline'"}
    return HTMLResponse(_REFERENCE_PAGE.read_text(), headers=policy)
