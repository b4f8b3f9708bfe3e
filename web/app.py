"""The REST API as one ASGI application: `create_app(services)`. Routes stand in web/api, one file a resource.

hardened > idempotent > positioned > routes > endpoint = parse, one command or one query, reply
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from web.api import (
    api_keys,
    audit,
    catalogue,
    deployments,
    events,
    instances,
    metrics,
    models,
    organizations,
    parked,
    sessions,
    system,
    usage,
    workers,
)
from web.errors import answer_errors
from web.idempotency import idempotent
from web.layers import hardened, positioned
from web.live import LiveEvents
from web.services import Services
from web.shapes import Refused

TITLE = "Inventiv Agents"
OPENAPI_PATH = "/api-docs/openapi.json"


def create_app(services: Services) -> FastAPI:
    """The application; its lifespan follows the log for live updates."""
    app = FastAPI(
        title=TITLE,
        version=services.settings.version,
        summary="Runs language models on demand: what is wanted, what runs, and every step as an event.",
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        lifespan=_life,
        middleware=[Middleware(hardened), Middleware(idempotent), Middleware(positioned)],
        generate_unique_id_function=_operation_id,
        responses={"4XX": {"model": Refused}, "503": {"model": Refused}},
    )
    app.state.services = services
    app.state.live = LiveEvents(services.log)
    answer_errors(app)
    for room in (
        system,
        metrics,
        sessions,
        organizations,
        api_keys,
        models,
        catalogue,
        deployments,
        instances,
        events,
        audit,
        parked,
        usage,
        workers,
    ):
        app.include_router(room.router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    live: LiveEvents = app.state.live
    following = asyncio.create_task(live.run(), name="live-events")
    try:
        yield
    finally:
        live.close()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
