"""The tags that make a server ours: whose it is, and a signature that only this platform can write.

A cleaner deletes only what carries a valid signature, so a copied or hand-written tag never costs anybody a server.
"""

import hmac
from collections.abc import Mapping

import msgspec

from domain.ids import InstanceId, OrganizationId
from handlers.ports import TagSigner

PLATFORM_TAG = "inventiv-agents"


class Owner(msgspec.Struct, frozen=True):
    """Which attempt of which instance a server was created for."""

    organization: OrganizationId
    instance_id: InstanceId
    attempt: int


def server_name(instance_id: str, attempt: int) -> str:
    """Fixed for the attempt, so that a server whose creation got no answer can be found."""
    return f"inventiv-worker-{instance_id}-{attempt}"


def tags_of(owner: Owner, signer: TagSigner) -> dict[str, str]:
    return {
        "platform": PLATFORM_TAG,
        "organization": owner.organization,
        "instance": owner.instance_id,
        "attempt": str(owner.attempt),
        "signature": signer.sign(_signed_text(owner)),
    }


def owner_of(tags: Mapping[str, str], signer: TagSigner) -> Owner | None:
    """Whom a listed server belongs to; None when it is not certainly ours."""
    attempt = tags.get("attempt", "")
    if tags.get("platform") != PLATFORM_TAG or not attempt.isdecimal():
        return None
    owner = Owner(OrganizationId(tags.get("organization", "")), InstanceId(tags.get("instance", "")), int(attempt))
    genuine = hmac.compare_digest(tags.get("signature", "").encode(), signer.sign(_signed_text(owner)).encode())
    return owner if genuine else None


def _signed_text(owner: Owner) -> str:
    return f"server/{owner.organization}/{owner.instance_id}/{owner.attempt}"
