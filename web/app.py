"""The REST API as one ASGI application: `create_app(services)`. Routes stand in web/api, one file a resource.

hardened > witnessed > idempotent > positioned > routes > endpoint = parse, one command or one query, reply
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from web.api import (
    access,
    action_logs,
    api_keys,
    audit,
    audit_entries,
    catalogue,
    deployments,
    events,
    hosts,
    instances,
    invitations,
    members,
    metrics,
    models,
    offerings,
    operations,
    organization_limits,
    organizations,
    parked,
    password_reset,
    profile,
    sessions,
    settings,
    shares,
    system,
    upstreams,
    usage,
    users,
    worker_machines,
    workers,
)
from web.declared import require_access_rules
from web.denials import Denials, witnessed
from web.errors import answer_errors
from web.idempotency import idempotent
from web.layers import hardened, positioned
from web.live import LiveEvents
from web.reset_requests import ResetRequests
from web.services import Services
from web.shapes import Refused

TITLE = "Inventiv Agents"
OPENAPI_PATH = "/api-docs/openapi.json"


def create_app(services: Services) -> FastAPI:
    """The application; its lifespan follows the log for live updates.

    Raises:
        UndeclaredRouteError: a route does not say who may call it.
    """
    app = FastAPI(
        title=TITLE,
        version=services.settings.version,
        summary="Runs language models on demand: what is wanted, what runs, and every step as an event.",
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        lifespan=_life,
        middleware=[Middleware(hardened), Middleware(witnessed), Middleware(idempotent), Middleware(positioned)],
        generate_unique_id_function=_operation_id,
        responses={"4XX": {"model": Refused}, "503": {"model": Refused}},
    )
    app.state.services = services
    app.state.live = LiveEvents(services.log)
    app.state.denials = Denials(services)
    app.state.reset_requests = ResetRequests(services)
    answer_errors(app)
    for room in (
        system,
        metrics,
        sessions,
        profile,
        password_reset,
        users,
        organization_limits,
        organizations,
        members,
        invitations,
        api_keys,
        models,
        offerings,
        access,
        shares,
        catalogue,
        settings,
        operations,
        deployments,
        upstreams,
        hosts,
        instances,
        events,
        audit,
        audit_entries,
        action_logs,
        parked,
        usage,
        worker_machines,
        workers,
    ):
        app.include_router(room.router)
    require_access_rules(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    live: LiveEvents = app.state.live
    denials: Denials = app.state.denials
    reset_requests: ResetRequests = app.state.reset_requests
    tasks = [
        asyncio.create_task(live.run(), name="live-events"),
        asyncio.create_task(denials.run(), name="denials"),
        asyncio.create_task(reset_requests.run(), name="reset-requests"),
    ]
    try:
        yield
    finally:
        live.close()
        await reset_requests.settled()
        await denials.settled()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
