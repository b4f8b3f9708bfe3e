"""Lifts stored events of an old schema to the next one: a table of pure functions, dict -> dict, one step each.

    data, schema 1 ──(type, 1)──> schema 2 ──(type, 2)──> schema 3 = the class as it is today

What is stored never changes; an entry here is for ever, like the event that it lifts. tests/histories holds a sample of
every schema, and fails when one cannot be lifted.
"""

from collections.abc import Callable, Mapping
from typing import Any

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
Upcasts = Mapping[tuple[str, int], Upcast]


def _activated(data: dict[str, Any]) -> dict[str, Any]:
    """Before double activation everything worked at once."""
    return {**data, "activated": ["technical", "economic"]}


def _scoped(data: dict[str, Any]) -> dict[str, Any]:
    """Before scopes a key might do all that its owner might."""
    return {**_activated(data), "created_by": data["owner"], "scope": {"role": "owner"}}


def _as_it_is(data: dict[str, Any]) -> dict[str, Any]:
    """A scope may name more endpoints than before; what it named then it names now."""
    return data


def _of_an_unknown_engine(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "endpoints": [], "context_tokens": 0}


def _of_unknown_shape(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "shape": None}


def _in_one_place(data: dict[str, Any]) -> dict[str, Any]:
    """Before alternatives a wish named one place, and took the disk that came with it."""
    return {**data, "alternatives": [], "disk_gb": 0, "context_tokens": 0}


def _as_requested(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "choice": 0}


def _without_origin(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "ip": "", "user_agent": ""}


UPCASTS: Upcasts = {
    ("ApiKeyIssued", 1): _scoped,
    ("ApiKeyIssued", 2): _as_it_is,
    ("ApiKeyScopeChanged", 1): _as_it_is,
    ("DeploymentRequested", 1): _activated,
    ("DeploymentRequested", 2): _in_one_place,
    ("InstanceRequested", 1): _activated,
    ("InstanceRequested", 2): _in_one_place,
    ("ModelListed", 1): _of_unknown_shape,
    ("ModelLoaded", 1): _of_an_unknown_engine,
    ("ServerCreateIntended", 1): _as_requested,
    ("SessionOpened", 1): _without_origin,
}
"""(event type, stored schema) -> function to schema + 1."""


def lift(data: dict[str, Any], event_type: str, stored: int, current: int, upcasts: Upcasts) -> dict[str, Any]:
    """The data in today's shape.

    Raises:
        KeyError: (event_type, schema) of the step that has no upcast.
    """
    for schema in range(stored, current):
        data = upcasts[event_type, schema](data)
    return data
