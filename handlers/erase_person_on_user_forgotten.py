"""Erases a person: what was sealed for them becomes noise, what they had ends, and what lay beside the log is deleted.

    kept replies ──> data key and password ──> sessions, keys, memberships, invitations ──> mails ──> tables rewritten
                                                                                                        └──> erased_at

Every step may be repeated, so a look that dies anywhere is done again from the start. The surprising rule: the replies
come before the key. Only while the key lives can it be known which of them hold the person's address.
"""

from collections.abc import Hashable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog

from domain.api_key import API_KEY, RevokeApiKey
from domain.decider import Decider, Rejected
from domain.ids import PLATFORM, UserId
from domain.message import Context, Envelope
from domain.organization import ORGANIZATION
from domain.organization_commands import RemoveMember, RevokeInvitation
from domain.session import SESSION, RevokeSession
from domain.user import USER, ProfileUpdated, UserCreated, UserForgotten
from domain.values import Digest, Sealed
from handlers.advance_instance import ACTOR
from handlers.outcome import Done, Outcome, RetryAfter
from handlers.person_ports import HeldAddress, PersonTraces
from handlers.ports import Doors, Trigger

NAME = "erase_person_on_user_forgotten"
MAX_ROUNDS = 10
"""Rounds of "what is left?" in one look; each ends as many as a read model lists at once."""

_log = structlog.get_logger(__name__)


class _Profile(msgspec.Struct, frozen=True):
    username: Sealed
    email: Sealed
    email_digest: Digest


async def erase_person_on_user_forgotten(trigger: Trigger, doors: Doors) -> Outcome:
    events = await doors.history(trigger, after=0)
    loaded = await doors.load(USER, trigger.organization, trigger.id)
    if not loaded.state.forgotten:
        return Done(version=loaded.version)
    profiles, addresses = _profiles(events), addresses_of(events)
    traces = await doors.find_traces(trigger.id, addresses, position=loaded.position)
    await doors.eraser.forget_replies(trigger.id, [*traces.invitations, *await _words(profiles, doors)])
    await doors.eraser.forget_sign_ins(trigger.id)
    await doors.eraser.destroy_keys([trigger.id, *traces.invitations])
    if not await _end_everything(trigger, doors, traces, addresses, loaded.position):
        return RetryAfter(1.0, "the person still had more than one look ends", loaded.version)
    await doors.eraser.delete_mails(addresses)
    await doors.eraser.scrub()
    await doors.eraser.finish(trigger.id)
    return Done(version=loaded.version)


def addresses_of(events: Sequence[Envelope]) -> list[HeldAddress]:
    """Every address that the person had, and until when."""
    until: dict[Digest, datetime] = {}
    current: Digest | None = None
    for envelope in events:
        if envelope.type in {UserCreated.__name__, ProfileUpdated.__name__, UserForgotten.__name__} and current:
            until[current] = envelope.at
        if envelope.type in {UserCreated.__name__, ProfileUpdated.__name__}:
            current = msgspec.json.decode(envelope.data, type=_Profile).email_digest
    return [HeldAddress(email, at) for email, at in until.items()]


def _profiles(events: Sequence[Envelope]) -> list[_Profile]:
    names = {UserCreated.__name__, ProfileUpdated.__name__}
    return [msgspec.json.decode(envelope.data, type=_Profile) for envelope in events if envelope.type in names]


async def _words(profiles: Sequence[_Profile], doors: Doors) -> list[str]:
    """By what replies to others would tell of this person; none once the key is gone, for then they were looked at."""
    emails = [await doors.vault.open(profile.email) for profile in profiles]
    usernames = [await doors.vault.open(profile.username) for profile in profiles]
    quoted = [msgspec.json.encode(name).decode() for name in usernames if name]  # a short one stands in many a word
    return sorted({*filter(None, emails), *quoted})


async def _end_everything(
    trigger: Trigger, doors: Doors, traces: PersonTraces, addresses: Sequence[HeldAddress], position: int
) -> bool:
    """False when something may be left after MAX_ROUNDS."""
    refused: set[Hashable] = set()
    for _ in range(MAX_ROUNDS):
        left = [ending for ending in _endings(trigger.id, traces) if ending.key not in refused]
        if not left:
            return True
        for ending in left:
            shown_at = await _end(trigger, doors, ending)
            if shown_at is None:
                refused.add(ending.key)
            position = max(position, shown_at or 0)
        traces = await doors.find_traces(trigger.id, addresses, position=position)
    return False


class _Ending(NamedTuple):
    decider: Decider[Any, Any, Any]
    organization: str
    id: str
    command: Hashable

    @property
    def key(self) -> Hashable:
        return self.id, self.command


def _endings(user_id: str, traces: PersonTraces) -> list[_Ending]:
    leave = RemoveMember(user_id=UserId(user_id))
    return [
        *(_Ending(SESSION, PLATFORM, session_id, RevokeSession()) for session_id in traces.sessions),
        *(_Ending(API_KEY, organization, key_id, RevokeApiKey()) for organization, key_id in traces.api_keys),
        *(
            _Ending(ORGANIZATION, organization, organization, RevokeInvitation(by=None, invitation_id=invitation_id))
            for organization, invitation_id in traces.pending
        ),
        *(_Ending(ORGANIZATION, organization, organization, leave) for organization in traces.memberships),
    ]


async def _end(trigger: Trigger, doors: Doors, ending: _Ending) -> int | None:
    """Position after which the read models show it; None when it was refused."""
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    try:
        receipt = await doors.dispatch(ending.decider, ending.organization, ending.id, ending.command, context)
    except Rejected as refusal:  # e.g. a last owner, who stays as an id that stands for nobody
        _log.warning("forgotten_person_stays", organization=ending.organization, code=refusal.code)
        return None
    return receipt.position
