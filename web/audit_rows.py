"""Rows of the audit log as people read them: names, labels, where the actor came from, what changed.

    stored envelopes ──words, labels──┐
    users, vault ──names──────────────┼──> AuditRow
    SessionOpened ──address, browser──┤
    history folded ──before, after────┘

All of it is looked up for a page at once. The surprising rule: nothing sealed is ever shown out of an event. Names,
addresses and browsers are opened for display at this moment, and are gone from here once their person was forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from domain.ids import UserId
from domain.message import Recorded, subject_of
from domain.session import SessionOpened
from domain.values import Sealed
from projections.audit_search import find_events, find_first_events, find_labels, list_histories
from projections.audit_words import component_of, target_kind, words_for
from projections.organizations import find_ever_members
from projections.projection import EVERYTHING, Scope
from projections.users import UserView, find_users
from web.audit_shapes import Actor, AuditRow, FieldChanged, Link, Origin, Target
from web.hiding import hidden
from web.services import FieldChange, Services, UnreadableHistoryError

MAX_HISTORY_EVENTS = 1000
"""An aggregate's events up to a row: beyond, its row says nothing about before and after."""
MAX_PAGE_HISTORY_EVENTS = 5000
"""The same, of all aggregates of a page together; about 50 ms of folding."""
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class _Sight:
    """What a page's rows need from elsewhere.

    Attributes:
        names: user id -> name; FORGOTTEN for a person that nobody can name any more.
        labels: subject -> what the aggregate is called.
        causes: event id -> where it stands, as far as it may be seen.
        origins: session id -> address and browser.
        changes: position -> what changed, or the reason why that is not told.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    causes: Mapping[str, Recorded] = field(default_factory=dict)
    origins: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    changes: Mapping[int, Sequence[FieldChange] | str] = field(default_factory=dict)


async def audit_rows(
    services: Services,
    found: Sequence[Recorded],
    *,
    organization_id: str,
    scope: Scope | None,
    changes: bool,
    people: bool = True,
) -> list[AuditRow]:
    """In the order of `found`.

    Args:
        services: of the request.
        found: what the asking person may see.
        organization_id: whose causes may be seen; "": everybody's.
        scope: for reading; None is the asking person's own.
        changes: whether to fold histories for before and after.
        people: whether to open names, addresses and browsers; without, people are told by their ids alone.
    """
    subjects = {recorded.subject for recorded in found} | {
        subject_of(recorded.envelope.organization, "api_key", _id_of(recorded.envelope.actor))
        for recorded in found
        if recorded.envelope.actor.startswith("key:")
    }
    causes = [recorded.envelope.cause for recorded in found if recorded.envelope.cause]
    async with services.read("audit_log", scope=scope) as connection:
        labels = await find_labels(connection, sorted(subjects))
        caused = await find_events(connection, organization_id, causes) if causes else {}
        ends, told = _foldable(found) if changes else ([], {})
        histories = await list_histories(connection, ends) if ends else []
    sight = _Sight(
        **(await _people(services, found, organization_id) if people else {}),
        labels=labels,
        causes=caused,
        changes=told | _folded(services, histories, found),
    )
    return [_row(recorded, sight) for recorded in found]


def link(recorded: Recorded) -> Link:
    """An event as another one's cause or effect."""
    envelope = recorded.envelope
    words = words_for(envelope.type)
    return Link(
        position=recorded.position,
        event_id=envelope.event_id,
        type=envelope.type,
        verb=words.verb,
        aggregate=envelope.aggregate,
        id=envelope.id,
        at=envelope.at,
    )


def _row(recorded: Recorded, sight: _Sight) -> AuditRow:
    envelope = recorded.envelope
    words = words_for(envelope.type)
    changes = sight.changes.get(recorded.position)
    cause = sight.causes.get(envelope.cause) if envelope.cause else None
    return AuditRow(
        position=recorded.position,
        event_id=envelope.event_id,
        at=envelope.at,
        actor=_actor(recorded, sight),
        type=envelope.type,
        verb=words.verb,
        action=words.action,
        category=words.category,
        outcome=words.outcome,
        component=component_of(envelope.actor),
        target=Target(
            aggregate=envelope.aggregate,
            kind=target_kind(envelope.aggregate),
            id=envelope.id,
            label=_label(recorded, sight),
            version=envelope.version,
        ),
        organization_id=envelope.organization,
        cause_event_id=envelope.cause,
        cause=link(cause) if cause else None,
        correlation=envelope.correlation,
        origin=_origin(envelope.origin, sight),
        data=hidden("", msgspec.json.decode(envelope.data)),
        changes=None if changes is None or isinstance(changes, str) else list(map(_changed, changes)),
        changes_left_out=changes if isinstance(changes, str) else None,
    )


def _actor(recorded: Recorded, sight: _Sight) -> Actor:
    kind, _, id_ = recorded.envelope.actor.partition(":")
    if kind == "key":
        name = sight.labels.get(subject_of(recorded.envelope.organization, "api_key", id_))
    else:
        name = sight.names.get(id_) if kind == "user" else None
    return Actor(kind=kind, id=id_, name=name)


def _label(recorded: Recorded, sight: _Sight) -> str | None:
    envelope = recorded.envelope
    return sight.names.get(envelope.id) if envelope.aggregate == "user" else sight.labels.get(recorded.subject)


def _origin(origin: str, sight: _Sight) -> Origin | None:
    if not origin:
        return None
    kind, _, id_ = origin.partition(":")
    ip, browser = sight.origins.get(id_, (None, None)) if kind == "session" else (None, None)
    return Origin(kind=kind, id=id_, ip=ip, browser=browser)


def _changed(change: FieldChange) -> FieldChanged:
    return FieldChanged(
        field=change.field, before=hidden(change.field, change.before), after=hidden(change.field, change.after)
    )


def _id_of(actor: str) -> str:
    return actor.partition(":")[2]


async def _people(services: Services, found: Sequence[Recorded], organization_id: str) -> dict[str, Any]:
    """`names` and `origins`. Users and their sessions belong to no organisation, so they are read with EVERYTHING.

    What is asked for are ids that stand in events which the reader may see; and an organisation is told names of its
    own people alone, past ones too: a neighbour who asked for a share acts in its log, and stays an id.
    """
    user_ids = {_id_of(one.envelope.actor) for one in found if one.envelope.actor.startswith("user:")}
    user_ids |= {one.envelope.id for one in found if one.envelope.aggregate == "user"}
    session_ids = {_id_of(one.envelope.origin) for one in found if one.envelope.origin.startswith("session:")}
    async with services.read("users", "audit_log", "organizations", scope=EVERYTHING) as connection:
        if organization_id:
            user_ids &= await find_ever_members(connection, organization_id, user_ids)
        users = await find_users(connection, sorted(user_ids)) if user_ids else {}
        began = await find_first_events(connection, "session", sorted(session_ids)) if session_ids else []
    opened = {one.envelope.id: event for one in began if (event := _opened(services, one)) is not None}
    if organization_id:
        opened = {session_id: event for session_id, event in opened.items() if event.user_id in user_ids}
    sealed = [text for user in users.values() for text in _sealed_names(user)]
    sealed += [text for event in opened.values() for text in (event.ip, event.user_agent)]
    clear = dict(zip(sealed, await services.vault.open_all(sealed), strict=True)) if any(sealed) else {}
    return {
        "names": {user_id: _name(users.get(UserId(user_id)), clear) for user_id in user_ids},
        "origins": {id_: (clear.get(one.ip) or None, clear.get(one.user_agent) or None) for id_, one in opened.items()},
    }


def _opened(services: Services, first: Recorded) -> SessionOpened | None:
    try:
        event = services.histories.event(first.envelope)
    except UnreadableHistoryError:
        return None
    return event if isinstance(event, SessionOpened) else None


def _sealed_names(user: UserView) -> tuple[Sealed, Sealed, Sealed]:
    return user.first_name, user.last_name, user.username


def _name(user: UserView | None, clear: Mapping[Sealed, str | None]) -> str:
    """First and last name, else the username; FORGOTTEN where neither can be read any more."""
    if user is None:
        return FORGOTTEN
    first, last, username = (clear.get(sealed) or "" for sealed in _sealed_names(user))
    return f"{first} {last}".strip() or username or FORGOTTEN


def _foldable(found: Sequence[Recorded]) -> tuple[list[Recorded], dict[int, str]]:
    """Of each aggregate the last row whose history is short enough; and the reason for those that are left out."""
    ends: dict[str, Recorded] = {}
    left_out: dict[int, str] = {}
    events = 0
    for recorded in sorted(found, key=lambda one: one.position, reverse=True):
        version = recorded.envelope.version
        if recorded.subject in ends:
            continue
        if version > MAX_HISTORY_EVENTS:
            left_out[recorded.position] = "history_too_long"
        elif events + version > MAX_PAGE_HISTORY_EVENTS:
            left_out[recorded.position] = "page_too_long"
        else:
            ends[recorded.subject] = recorded
            events += version
    return list(ends.values()), left_out


def _folded(
    services: Services, histories: Sequence[Recorded], found: Sequence[Recorded]
) -> dict[int, Sequence[FieldChange] | str]:
    """Position -> what changed there."""
    stories: dict[str, list[Recorded]] = {}
    for recorded in histories:
        stories.setdefault(recorded.subject, []).append(recorded)
    wanted = {recorded.position for recorded in found}
    changes: dict[int, Sequence[FieldChange] | str] = {}
    for events in stories.values():
        own = wanted & {event.position for event in events}
        try:
            changes |= services.histories.changes(events[0].envelope.aggregate, events, own)
        except UnreadableHistoryError:
            changes |= dict.fromkeys(own, "history_unreadable")
    return changes
