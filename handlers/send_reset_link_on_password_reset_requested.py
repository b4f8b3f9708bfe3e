"""Mails the link with which a person sets a new password. Only the newest request counts, so only it is mailed."""

from collections.abc import Sequence
from functools import partial

import msgspec

from domain.message import Envelope
from domain.user import USER, PasswordResetRequested, ProfileUpdated, UserCreated
from domain.values import Sealed
from handlers.mails import address_of, moment, send_once, token_of
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Mail, Trigger

NAME = "send_reset_link_on_password_reset_requested"


class _Profile(msgspec.Struct, frozen=True):
    email: Sealed


class _Request(msgspec.Struct, frozen=True):
    token_sha256: str


async def send_reset_link_on_password_reset_requested(trigger: Trigger, doors: Doors) -> Outcome:
    events = await doors.history(trigger, after=0)
    loaded = await doors.load(USER, trigger.organization, trigger.id)
    request = _last(events, PasswordResetRequested)
    profile = _last(events, UserCreated, ProfileUpdated)
    reset = loaded.state.reset
    if request is not None and profile is not None and reset is not None and reset.expires_at > doors.clock():
        said = msgspec.json.decode(request.data, type=_Request)
        if said.token_sha256 == reset.token_sha256:  # else a newer request is on its way here
            email = msgspec.json.decode(profile.data, type=_Profile).email
            await send_once(doors, NAME, request, partial(_mail, doors, trigger.id, email, reset, request.event_id))
    return Done(version=events[-1].version if events else trigger.done)


def _last(events: Sequence[Envelope], *types: type[object]) -> Envelope | None:
    names = {one.__name__ for one in types}
    return next((envelope for envelope in reversed(events) if envelope.type in names), None)


async def _mail(doors: Doors, user_id: str, email: Sealed, reset: PasswordResetRequested, message_id: str) -> Mail:
    token = token_of(doors, "password_reset", f"{user_id}/{reset.expires_at.isoformat()}", reset.token_sha256)
    return Mail(
        to=await address_of(doors, email),
        subject="A new password for Inventiv Agents",
        text=(
            "Somebody asked for a new password for your account on Inventiv Agents.\n\n"
            f"To choose one, open this link before {moment(reset.expires_at)}; it works once:\n\n"
            f"{doors.settings.console_url}/reset-password?token={token}\n\n"
            "If it was not you, you need not do anything: your password stays as it is.\n"
        ),
        message_id=message_id,
    )
