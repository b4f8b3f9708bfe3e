"""Who may do what: one table, role x action, SPEC 6.3. An endpoint names its action; auth.py asks this table."""

from collections.abc import Mapping, Sequence
from typing import Literal

from domain.activation import FLAGS, Flag
from domain.decider import Rejected
from domain.roles import Role

Action = Literal[
    "instances.view",
    "instances.change",
    "deployments.view",
    "deployments.change",
    "activation.change",
    "activation.technical",
    "activation.economic",
    "models.view",
    "models.manage",
    "shares.view",
    "shares.manage",
    "access.request",
    "api_keys.own",
    "api_keys.all",
    "members.view",
    "members.invite",
    "members.change",
    "organization.view",
    "organization.change",
    "settings.view",
    "settings.edit",
    "events.follow",
    "audit.view",
    "usage.view",
    "catalogue.view",
    "hosts.view",
    "hosts.manage",
    "operations.request",
]

_EVERYONE: frozenset[Role] = frozenset({"owner", "admin", "manager", "user"})
_RUNNERS: frozenset[Role] = frozenset({"owner", "admin"})
_SPENDERS: frozenset[Role] = frozenset({"owner", "manager"})
_LEADERS: frozenset[Role] = frozenset({"owner", "admin", "manager"})
_OWNERS: frozenset[Role] = frozenset({"owner"})

PERMISSIONS: Mapping[Action, frozenset[Role]] = {
    "instances.view": _EVERYONE,
    "instances.change": _RUNNERS,
    "deployments.view": _EVERYONE,
    "deployments.change": _RUNNERS,
    "activation.change": _LEADERS,
    "activation.technical": _RUNNERS,
    "activation.economic": _SPENDERS,
    "models.view": _EVERYONE,
    "models.manage": _RUNNERS,
    "shares.view": _LEADERS,
    "shares.manage": _RUNNERS,
    "access.request": _LEADERS,
    "api_keys.own": _EVERYONE,
    "api_keys.all": _RUNNERS,
    "members.view": _EVERYONE,
    "members.invite": _LEADERS,
    "members.change": _EVERYONE,
    "organization.view": _EVERYONE,
    "organization.change": _OWNERS,
    "settings.view": _LEADERS,
    "settings.edit": _RUNNERS,
    "events.follow": _EVERYONE,
    "audit.view": _LEADERS,
    "usage.view": _EVERYONE,
    "catalogue.view": _LEADERS,
    "hosts.view": _LEADERS,
    "hosts.manage": _RUNNERS,
    "operations.request": _RUNNERS,
}


def is_allowed(role: Role, action: Action) -> bool:
    return role in PERMISSIONS[action]


def flags_allowed(role: Role) -> tuple[Flag, ...]:
    """The activation flags that a role may set."""
    return tuple(flag for flag in FLAGS if is_allowed(role, _FLAG_ACTION[flag]))


def granted_flags(role: Role, asked: Sequence[Flag] | None) -> tuple[Flag, ...]:
    """The flags that something new begins with: those asked for, or (None) every one that the role may set.

    Raises:
        Rejected: activation_not_allowed, the role may not set one that was asked for.
    """
    allowed = flags_allowed(role)
    if asked is None:
        return allowed
    if not set(asked) <= set(allowed):
        raise Rejected("activation_not_allowed", f"Role {role} may not set every flag that was asked for.")
    return tuple(flag for flag in FLAGS if flag in asked)


_FLAG_ACTION: Mapping[Flag, Action] = {"technical": "activation.technical", "economic": "activation.economic"}
