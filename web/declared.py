"""Who may call each route, as its dependencies declare it; an application with a route that does not say is not built.

A forgotten rule would leave a route open to the whole world, and no request would ever fail because of it. So the check
stands at the start, where nobody can miss it.
"""

from collections.abc import Iterator, Sequence

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from web.auth import ACCESS_RULES, AccessRule


class UndeclaredRouteError(RuntimeError):
    """A route has no access rule, or several."""


def require_access_rules(app: FastAPI) -> None:
    """Raises UndeclaredRouteError unless each route has exactly one of ACCESS_RULES among its dependencies."""
    wrong = [f"{name(route)} has {len(rules)}" for route in api_routes(app) if len(rules := rules_of(route)) != 1]
    wrong += [f"{route} is no API route" for route in _others(app)]
    if wrong:
        raise UndeclaredRouteError(f"each route takes exactly one access rule of web/auth.py; {', '.join(wrong)}")


def api_routes(app: FastAPI) -> list[APIRoute]:
    """Every route with an endpoint of ours."""
    return [route for route in _flat(app.routes) if isinstance(route, APIRoute)]


def name(route: APIRoute) -> str:
    return f"{'|'.join(sorted(route.methods or ()))} {route.path}"


def rule_of(route: APIRoute) -> AccessRule:
    """The one rule of a route whose application was built."""
    (rule,) = rules_of(route)
    return rule


def rules_of(route: APIRoute) -> list[AccessRule]:
    return _rules(route.dependant)


def _rules(dependant: Dependant) -> list[AccessRule]:
    own = [ACCESS_RULES[dependant.call]] if dependant.call in ACCESS_RULES else []
    return own + [rule for inner in dependant.dependencies for rule in _rules(inner)]


def _others(app: FastAPI) -> list[str]:
    """Mounted applications and bare routes take no dependency; the OpenAPI document is public, and the only one."""
    bare = [route for route in _flat(app.routes) if not isinstance(route, APIRoute)]
    return [path for route in bare if (path := getattr(route, "path", repr(route))) != app.openapi_url]


def _flat(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """Included routers opened: FastAPI keeps each as one route that knows its router."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from _flat(router.routes)
