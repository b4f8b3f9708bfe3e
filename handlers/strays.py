"""Whose a listed server or volume is, and whether its record wants it: pure judgements of the sweep.

    signed by us? ──no──> not ours            no record of that attempt ──> unrecorded: never deleted
          │yes                                its record does not want it ──> stray

The record is the log, and it holds a create intent before each create. So whatever is signed, and not wanted, is wanted
by nobody, at once; and what is signed for an attempt that no record knows tells that the log has lost its tail.
"""

from typing import Literal

from domain.ids import PLATFORM
from domain.instance_state import Instance
from handlers.cloud_ports import Account, Server, Volume
from handlers.server_tags import Owner

Standing = Literal["wanted", "stray", "unrecorded"]


def concerns(account: Account, owner: Owner) -> bool:
    """Two organisations may share an account at a provider; each one's sweep looks at its own."""
    return account.organization in {PLATFORM, owner.organization}


def standing_of(account: Account, found: Server | Volume, owner: Owner, record: Instance) -> Standing:
    """
    Args:
        account: where it was listed.
        found: as listed.
        owner: by its signed tags.
        record: that instance's state; the initial one when there is no event of it.
    """
    if record.request is None or record.request.provider != account.provider or owner.attempt > record.attempt:
        return "unrecorded"
    wanted = _wants_server(record, found, owner) if isinstance(found, Server) else _wants_volume(record, found, owner)
    return "wanted" if wanted else "stray"


def _wants_server(record: Instance, server: Server, owner: Owner) -> bool:
    """As long as no server is on record, each one of the attempt may be it; unless its creation certainly failed."""
    if not record.may_own_a_server:
        return False
    if record.provider_instance_id:
        return record.provider_instance_id == server.provider_instance_id
    return record.attempt == owner.attempt and not record.create_failed


def _wants_volume(record: Instance, volume: Volume, owner: Owner) -> bool:
    """What shall survive its instance is wanted for ever; what the record knows, as long as it may own a server; what
    it does not know, until it has listed its volumes.
    """
    known = record.volumes.get(volume.provider_volume_id)
    if known is not None:
        return record.may_own_a_server or not known.delete_on_terminate
    if not record.may_own_a_server or record.create_failed or record.volumes_listed:
        return False
    return record.attempt == owner.attempt
