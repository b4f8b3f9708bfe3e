"""What a person still has, as the read models know it: sessions, keys, memberships, invitations"""

from collections.abc import Sequence

from domain.ports import Clock
from handlers.person_ports import FindTraces, HeldAddress, PersonTraces
from projections.api_keys import list_owned_keys
from projections.invitations import InvitationView, list_invitations_to
from projections.organizations import list_organizations
from projections.projection import EVERYTHING, Connection, Read
from projections.query import MAX_LIST_ROWS
from projections.sessions import list_sessions

MAX_INVITATION_PAGES = 100
"""Of MAX_LIST_ROWS each; nobody is invited a hundred thousand times."""


def find_traces_in(read: Read, clock: Clock) -> FindTraces:
    """Looks across all tenants: a person may belong to, and may have been invited by, any of them."""

    async def find_traces(user_id: str, addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces:
        models = ("sessions", "api_keys", "organizations", "invitations")
        async with read(*models, position=position, scope=EVERYTHING) as connection:
            sessions = await list_sessions(connection, user_id, now=clock())
            keys = await list_owned_keys(connection, user_id)
            organizations = await list_organizations(connection, user_id)
            invitations = [one for address in addresses for one in await _invitations_to(connection, address)]
        pending = [one for one in invitations if one.accepted_at is None and one.revoked_at is None]
        return PersonTraces(
            sessions=[session.id for session in sessions],
            api_keys=[(key.organization_id, key.id) for key in keys],
            memberships=[organization.id for organization in organizations],
            pending=[(one.organization_id, one.id) for one in pending],
            invitations=[one.id for one in invitations],
        )

    return find_traces


async def _invitations_to(connection: Connection, address: HeldAddress) -> list[InvitationView]:
    found: list[InvitationView] = []
    for page in range(MAX_INVITATION_PAGES):
        rows = await list_invitations_to(connection, address.email, offset=page * MAX_LIST_ROWS)
        found += [row for row in rows if row.created_at <= address.until]
        if len(rows) < MAX_LIST_ROWS:
            break
    return found
