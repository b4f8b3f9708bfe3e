"""What our Scaleway adapters know without asking: zones, images, and how ids and tags are written. Pure.

The surprising rule: an id that is not "<zone>/<uuid>" is nobody's absence; whoever asks about it learns that the
question was wrong, and nothing is taken for gone.
"""

import re
from collections.abc import Mapping, Sequence

from handlers.cloud_ports import CloudUnavailableError
from handlers.server_tags import PLATFORM_TAG

ZONES = (
    "fr-par-1",
    "fr-par-2",
    "fr-par-3",
    "nl-ams-1",
    "nl-ams-2",
    "nl-ams-3",
    "pl-waw-1",
    "pl-waw-2",
    "pl-waw-3",
)
"""Where Instances are rented out. Every one of them is listed by a sweep, in use or not: a forgotten zone costs."""
GPU_IMAGE = "5c3d28db-33ce-4997-8572-f49506339283"
"""Ubuntu Noble GPU OS 13 passthrough; its root is a block storage snapshot (SPEC 4.2)."""
PLAIN_IMAGE = "8e0da557-5d75-40ba-b928-5984075aa255"
GPU_FAMILIES = ("L4-", "L40S-", "RENDER-", "H100-1-", "H100-2-")
"""The SXM machines want an image with a fabric manager, whose id nobody has told us: they boot the plain one."""
DISKLESS_FAMILIES = ("L4-", "L40S-", "RENDER-")
"""They boot from block storage alone."""
_ID = re.compile(r"([a-z]{2}-[a-z]{3}-[0-9])/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def image_of(instance_type: str) -> str:
    return GPU_IMAGE if instance_type.startswith(GPU_FAMILIES) else PLAIN_IMAGE


def is_diskless(instance_type: str) -> bool:
    return instance_type.startswith(DISKLESS_FAMILIES)


def joined_id(zone: str, bare_id: str) -> str:
    return f"{zone}/{bare_id}"


def split_id(provider_id: str, operation: str) -> tuple[str, str]:
    """(zone, uuid).

    Raises:
        CloudUnavailableError: no id of Scaleway's, so nothing is known of what it means.
    """
    matched = _ID.fullmatch(provider_id)
    if matched is None:
        raise CloudUnavailableError(f"scaleway: {operation}: {provider_id!r} is not written <zone>/<uuid>")
    return matched[1], matched[2]


def tags_to(tags: Mapping[str, str]) -> list[str]:
    """Ours first, by which we are listed; then SPEC's word for a worker; then each pair as "key=value"."""
    return [PLATFORM_TAG, "worker", *(f"{key}={value}" for key, value in sorted(tags.items()))]


def tags_from(tags: Sequence[str]) -> dict[str, str]:
    """Words without "=" are not pairs of ours; the first of two equal keys counts."""
    pairs = [tag.partition("=") for tag in tags if "=" in tag]
    return {key: value for key, _, value in reversed(pairs)}
