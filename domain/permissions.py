"""Who may do what: one table, role x action, SPEC 6.3. An endpoint names its action; auth.py asks this table."""

from collections.abc import Mapping
from typing import Literal

from domain.organization import Role

Action = Literal[
    "instances.view",
    "instances.change",
    "deployments.view",
    "deployments.change",
    "api_keys.own",
    "api_keys.all",
    "events.follow",
    "audit.view",
    "usage.view",
    "catalogue.view",
]

_EVERYONE: frozenset[Role] = frozenset({"owner", "admin", "manager", "user"})
_RUNNERS: frozenset[Role] = frozenset({"owner", "admin"})
_LEADERS: frozenset[Role] = frozenset({"owner", "admin", "manager"})

PERMISSIONS: Mapping[Action, frozenset[Role]] = {
    "instances.view": _EVERYONE,
    "instances.change": _RUNNERS,
    "deployments.view": _EVERYONE,
    "deployments.change": _RUNNERS,
    "api_keys.own": _EVERYONE,
    "api_keys.all": _RUNNERS,
    "events.follow": _EVERYONE,
    "audit.view": _LEADERS,
    "usage.view": _EVERYONE,
    "catalogue.view": _LEADERS,
}


def is_allowed(role: Role, action: Action) -> bool:
    return role in PERMISSIONS[action]
