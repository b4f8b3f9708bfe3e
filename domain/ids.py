"""Typed ids: plain strings on the wire, distinct types in the code, so that an InstanceId never meets a UserId.

New ids are UUIDv7 (they sort by time) and come from outside, as arguments. An id that must come out the same each time
it is asked for (the third instance of a deployment) is derived from its parent.
"""

from typing import NewType
from uuid import NAMESPACE_URL, uuid5

EventId = NewType("EventId", str)
OrganizationId = NewType("OrganizationId", str)
UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
ApiKeyId = NewType("ApiKeyId", str)
ModelId = NewType("ModelId", str)
DeploymentId = NewType("DeploymentId", str)
InstanceId = NewType("InstanceId", str)
WorkerId = NewType("WorkerId", str)
InvitationId = NewType("InvitationId", str)
OfferingId = NewType("OfferingId", str)
ShareId = NewType("ShareId", str)

PLATFORM = OrganizationId("_")
"""Stands in subjects and envelopes for what belongs to no organisation: users, sessions, catalogue models."""


def derived_id(parent: str, name: str) -> str:
    """The id that `parent` always gives to its child called `name`, e.g. (deployment id, "instance/3")."""
    return str(uuid5(NAMESPACE_URL, f"inventiv-agents/{parent}/{name}"))
