"""Mails each invitation, once, to whom it is for.

What was accepted, revoked or has expired meanwhile is not mailed any more. The surprising rule: one mail that cannot go
does not hold up the others of its organisation; the look ends after MAX_FAULTS of them, for then the server is away.
"""

from functools import partial

import msgspec

from domain.ids import InvitationId
from domain.organization import ORGANIZATION, MemberInvited, Organization
from handlers.mails import address_of, moment, plain, send_once, token_of
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Mail, Trigger

NAME = "send_invitation_on_member_invited"
MAX_FAULTS = 3


class _Which(msgspec.Struct, frozen=True):
    invitation_id: InvitationId


async def send_invitation_on_member_invited(trigger: Trigger, doors: Doors) -> Outcome:
    events = await doors.history(trigger, after=trigger.done)
    loaded = await doors.load(ORGANIZATION, trigger.organization, trigger.id)  # after the events: it knows them all
    faults: list[OSError] = []
    for envelope in events:
        if envelope.type != MemberInvited.__name__:
            continue
        which = msgspec.json.decode(envelope.data, type=_Which).invitation_id
        invited = loaded.state.invitations.get(which)
        if invited is None or invited.expires_at <= doors.clock():
            continue
        try:
            compose = partial(_mail, doors, loaded.state, invited, envelope.event_id)
            await send_once(doors, NAME, envelope, compose)
        except OSError as fault:
            faults.append(fault)
            if len(faults) == MAX_FAULTS:
                break
    if faults:
        raise faults[0]
    return Done(version=events[-1].version if events else trigger.done)


async def _mail(doors: Doors, organization: Organization, invited: MemberInvited, message_id: str) -> Mail:
    token = token_of(doors, "invitation", invited.invitation_id, invited.token_sha256)
    return Mail(
        to=await address_of(doors, invited.email),
        subject="An invitation to Inventiv Agents",
        text=(
            f"You are invited to join the organisation {plain(organization.name)} on Inventiv Agents, "
            f"as {invited.role}.\n\n"
            f"To accept, open this link before {moment(invited.expires_at)}:\n\n"
            f"{doors.settings.console_url}/invitations/{token}\n\n"
            "If you do not know this organisation, you need not do anything.\n"
        ),
        message_id=message_id,
    )
