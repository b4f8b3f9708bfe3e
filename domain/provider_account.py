"""What we learn from an organisation's account at a provider: servers that nobody wants, servers that are gone, offers.

    asked ──> a look at the provider's own lists ──> completed, or failed in the provider's own words
    stray:   seen ──(grace)──> delete intended ──> cleared          missed server: missed ──> settled
    offers:  asked ──> synced (what changed), or failed

A stray carries our signature and no record wants it. The surprising rule: the locks on deletion are laws here, not
habits of the sweeper: known from an earlier look, for longer than the grace, and within ten minutes a handful, or a
tenth of what is there. What only repeats itself is said once an hour, so that a broken provider does not flood the log.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider
from domain.ids import InstanceId, OrganizationId, derived_id
from domain.provider_account_commands import (
    ProviderAccountCommand,
    RecordCatalogueSyncFailed,
    RecordOffers,
    RecordReconciled,
    RecordReconciliationFailed,
    RequestCatalogueSync,
    RequestReconciliation,
    Signed,
)
from domain.provider_account_events import (
    CatalogueSynced,
    CatalogueSyncFailed,
    CatalogueSyncRequested,
    DeletionHalted,
    MissedServerSettled,
    Offer,
    ProviderAccountEvent,
    ReconciliationCompleted,
    ReconciliationFailed,
    ReconciliationRequested,
    Resource,
    ServerMissed,
    StrayCleared,
    StrayDeleteIntended,
    StraySeen,
    UnrecordedServerSeen,
    is_mended_by,
)

SAID_AGAIN_S = 3000
"""What repeats itself leaves a trace once in this time: an hourly look always does, a look every minute rarely."""
BREAKER_WINDOW_S = 600
BREAKER_SHARE = 0.1
BREAKER_FLOOR = 5
"""Within one window at most this share of an account's listed servers is deleted, and always this many: a handful may
be the leavings of one bad hour at the provider, a mass is the mark of wrong records. Volumes are counted apart."""
MAX_NEWS = 50
"""Findings of one kind that one look records; the next look brings the others. An append holds at most 1,000 events."""
MAX_OFFERS = 1000
"""More would not fit into one event."""

V = TypeVar("V")
Events = Sequence[ProviderAccountEvent]


class Stray(msgspec.Struct, frozen=True, kw_only=True):
    resource: Resource
    provider_resource_id: str
    organization_id: OrganizationId
    instance_id: InstanceId
    attempt: int
    seen_at: datetime
    delete_intended_at: datetime | None = None


class Deletion(msgspec.Struct, frozen=True):
    resource: Resource
    at: datetime


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    at: datetime


class ProviderAccount(msgspec.Struct, frozen=True, kw_only=True):
    """State of one account. Times are the envelopes' (UTC).

    Attributes:
        strays: by "<resource>/<id>"; likewise `unrecorded`, which holds when each was first seen.
        missed: when each server was first missed, by its id.
        troubles: calls that failed and have not worked since.
        deletions: those that were intended within the last window.
    """

    provider: str = ""
    reconciliation_requested_at: datetime | None = None
    completed: ReconciliationCompleted | None = None
    completed_at: datetime | None = None
    troubles: Mapping[str, Trouble] = {}
    strays: Mapping[str, Stray] = {}
    unrecorded: Mapping[str, datetime] = {}
    missed: Mapping[str, datetime] = {}
    deletions: tuple[Deletion, ...] = ()
    halted_at: datetime | None = None
    sync_requested_at: datetime | None = None
    synced_at: datetime | None = None
    sync_trouble: Trouble | None = None
    offers: tuple[Offer, ...] = ()


def provider_account_id_of(organization_id: OrganizationId, provider: str) -> str:
    return derived_id(organization_id, f"provider_account/{provider}")


def evolve(state: ProviderAccount, event: ProviderAccountEvent, at: datetime) -> ProviderAccount:
    if state.provider != event.provider:
        state = replace(state, provider=event.provider)
    match event:
        case ReconciliationRequested():
            return replace(state, reconciliation_requested_at=at)
        case ReconciliationCompleted():
            return _completed(_answered(state, event.answered), event, at)
        case ReconciliationFailed():
            troubles = {**state.troubles, event.call: Trouble(kind=event.kind, at=at)}
            return replace(_answered(state, event.answered), troubles=troubles)
        case StraySeen():
            seen = Stray(**{f: getattr(event, f) for f in StraySeen.__struct_fields__ if f != "provider"}, seen_at=at)
            return replace(state, strays={**state.strays, key_of(event): seen})
        case StrayDeleteIntended():
            return _intended(state, event, at)
        case StrayCleared():
            return replace(state, strays=_without(state.strays, key_of(event)))
        case UnrecordedServerSeen():
            return replace(state, unrecorded={**state.unrecorded, key_of(event): at})
        case ServerMissed():
            return replace(state, missed={**state.missed, event.provider_instance_id: at})
        case MissedServerSettled():
            return replace(state, missed=_without(state.missed, event.provider_instance_id))
        case DeletionHalted():
            return replace(state, halted_at=at)
        case CatalogueSyncRequested():
            return replace(state, sync_requested_at=at)
        case CatalogueSynced():
            offers = tuple(_offers_after(state.offers, event))
            return replace(state, offers=offers, synced_at=at, sync_requested_at=None, sync_trouble=None)
        case CatalogueSyncFailed():
            return replace(state, sync_requested_at=None, sync_trouble=Trouble(kind=event.kind, at=at))
        case _:
            assert_never(event)


def key_of(one: Signed | StraySeen | StrayDeleteIntended | StrayCleared | UnrecordedServerSeen | Stray) -> str:
    return f"{one.resource}/{one.provider_resource_id}"


def _answered(state: ProviderAccount, answered: bool) -> ProviderAccount:
    return replace(state, reconciliation_requested_at=None) if answered else state


def _completed(state: ProviderAccount, event: ReconciliationCompleted, at: datetime) -> ProviderAccount:
    left = {call: trouble for call, trouble in state.troubles.items() if not is_mended_by(call, event)}
    unrecorded = state.unrecorded if event.unrecorded else {}
    return replace(state, completed=event, completed_at=at, troubles=left, unrecorded=unrecorded)


def _intended(state: ProviderAccount, event: StrayDeleteIntended, at: datetime) -> ProviderAccount:
    known, recent = state.strays.get(key_of(event)), _within_window(state.deletions, at)
    strays = {**state.strays, key_of(event): replace(known, delete_intended_at=at)} if known else state.strays
    return replace(state, strays=strays, deletions=(*recent, Deletion(event.resource, at)))


def _within_window(deletions: Sequence[Deletion], at: datetime) -> list[Deletion]:
    return [one for one in deletions if at - one.at < timedelta(seconds=BREAKER_WINDOW_S)]


def _without(known: Mapping[str, V], key: str) -> dict[str, V]:
    return {k: v for k, v in known.items() if k != key}


def _offers_after(offers: Sequence[Offer], event: CatalogueSynced) -> tuple[Offer, ...]:
    kept = {offer.key: offer for offer in offers if offer.key not in event.withdrawn}
    kept |= {offer.key: offer for offer in event.offers}
    return tuple(kept[key] for key in sorted(kept))


def decide(state: ProviderAccount, command: ProviderAccountCommand, at: datetime) -> Events:
    match command:
        case RequestReconciliation():
            asked = state.reconciliation_requested_at is not None
            return [] if asked else [ReconciliationRequested(provider=command.provider)]
        case RecordReconciled():
            return _reconciled(state, command, at)
        case RecordReconciliationFailed():
            return _reconciliation_failed(state, command, at)
        case RequestCatalogueSync():
            return [] if state.sync_requested_at is not None else [CatalogueSyncRequested(provider=command.provider)]
        case RecordOffers():
            return _synced(state, command, at)
        case RecordCatalogueSyncFailed():
            said = state.sync_requested_at is None and _is_said(state.sync_trouble, command.kind, at)
            failed = CatalogueSyncFailed(provider=command.provider, kind=command.kind, message=command.message)
            return [] if said else [failed]
        case _:
            assert_never(command)


def _reconciled(state: ProviderAccount, command: RecordReconciled, at: datetime) -> Events:
    completed = ReconciliationCompleted(
        provider=command.provider,
        servers=len(command.servers),
        volumes=None if command.volumes is None else len(command.volumes),
        strays=len(command.strays),
        unrecorded=len(command.unrecorded),
        missed=len(command.missed),
        answered=_answers(state, command.asked_at),
    )
    return [
        *_cleared(state, command),
        *_seen(state, command),
        *_unrecorded(state, command),
        *_missed(state, command),
        *_deletions(state, command, at),
        *([completed] if _is_news(state, completed, at) else []),
    ]


def _answers(state: ProviderAccount, asked_at: datetime | None) -> bool:
    """A request that came while the look was under way is not answered by it."""
    return asked_at is not None and asked_at == state.reconciliation_requested_at


def _is_news(state: ProviderAccount, completed: ReconciliationCompleted, at: datetime) -> bool:
    if completed.answered or state.completed is None or state.completed_at is None:
        return True
    if any(is_mended_by(call, completed) for call in state.troubles):
        return True
    repeated = replace(completed, answered=state.completed.answered) == state.completed
    return not repeated or at - state.completed_at >= timedelta(seconds=SAID_AGAIN_S)


def _cleared(state: ProviderAccount, command: RecordReconciled) -> Iterator[StrayCleared]:
    """A volume stays what it was when volumes were not listed."""
    found, listed = {key_of(stray) for stray in command.strays}, _listed(command)
    for key, stray in state.strays.items():
        if key not in found and (stray.resource == "server" or command.volumes is not None):
            yield StrayCleared(
                provider=command.provider,
                resource=stray.resource,
                provider_resource_id=stray.provider_resource_id,
                reason="wanted" if key in listed else "gone",
            )


def _listed(command: RecordReconciled) -> set[str]:
    return {f"server/{one}" for one in command.servers} | {f"volume/{one}" for one in command.volumes or ()}


def _seen(state: ProviderAccount, command: RecordReconciled) -> list[StraySeen]:
    new = [stray for stray in command.strays if key_of(stray) not in state.strays]
    return [StraySeen(provider=command.provider, **msgspec.structs.asdict(stray)) for stray in new[:MAX_NEWS]]


def _unrecorded(state: ProviderAccount, command: RecordReconciled) -> list[UnrecordedServerSeen]:
    new = [one for one in command.unrecorded if key_of(one) not in state.unrecorded]
    return [UnrecordedServerSeen(provider=command.provider, **msgspec.structs.asdict(one)) for one in new[:MAX_NEWS]]


def _missed(state: ProviderAccount, command: RecordReconciled) -> Iterator[ServerMissed | MissedServerSettled]:
    for known in state.missed:
        if known not in command.missed:
            yield MissedServerSettled(provider=command.provider, provider_instance_id=known)
    new = sorted((server, instance) for server, instance in command.missed.items() if server not in state.missed)
    for server, instance in new[:MAX_NEWS]:
        yield ServerMissed(provider=command.provider, provider_instance_id=server, instance_id=instance)


def _deletions(
    state: ProviderAccount, command: RecordReconciled, at: datetime
) -> Iterator[StrayDeleteIntended | DeletionHalted]:
    """The breaker, for servers and volumes apart: deleting many at once is the mark of wrong records."""
    listed: Mapping[Resource, int] = {"server": len(command.servers), "volume": len(command.volumes or ())}
    recently = state.halted_at is not None and at - state.halted_at < timedelta(seconds=BREAKER_WINDOW_S)
    for resource, there in listed.items():
        due = _due(state, command, resource, at)
        limit = max(BREAKER_FLOOR, int(there * BREAKER_SHARE))
        deleted = sum(one.resource == resource for one in _within_window(state.deletions, at))
        now = due[: min(MAX_NEWS, max(0, limit - deleted))]
        for stray in now:
            yield StrayDeleteIntended(
                provider=command.provider, resource=resource, provider_resource_id=stray.provider_resource_id
            )
        if len(due) > len(now) and not recently:
            recently = True
            left = len(due) - len(now)
            yield DeletionHalted(provider=command.provider, due=left, deleted=deleted + len(now), limit=limit)


def _due(state: ProviderAccount, command: RecordReconciled, resource: Resource, at: datetime) -> list[Stray]:
    """Known from an earlier look, found again by this one, not held, and past the grace."""
    found, grace = {key_of(stray) for stray in command.strays} - command.held, timedelta(seconds=command.grace_s)
    known = [stray for key, stray in sorted(state.strays.items()) if key in found and stray.resource == resource]
    return [stray for stray in known if stray.delete_intended_at is None and at - stray.seen_at >= grace]


def _reconciliation_failed(state: ProviderAccount, command: RecordReconciliationFailed, at: datetime) -> Events:
    answered = _answers(state, command.asked_at)
    if not answered and _is_said(state.troubles.get(command.call), command.kind, at):
        return []
    return [
        ReconciliationFailed(
            provider=command.provider,
            call=command.call,
            kind=command.kind,
            message=command.message,
            answered=answered,
        )
    ]


def _is_said(trouble: Trouble | None, kind: str, at: datetime) -> bool:
    """The words may differ each time (a request's number); the kind of trouble tells whether it is another one."""
    return trouble is not None and trouble.kind == kind and at - trouble.at < timedelta(seconds=SAID_AGAIN_S)


def _synced(state: ProviderAccount, command: RecordOffers, at: datetime) -> Events:
    by_key = {offer.key: offer for offer in command.offers}
    offered = {key: by_key[key] for key in sorted(by_key)[:MAX_OFFERS]}
    known = {offer.key: offer for offer in state.offers}
    changed = tuple(offer for key, offer in offered.items() if known.get(key) != offer)
    withdrawn = tuple(key for key in known if key not in offered)
    recent = state.synced_at is not None and at - state.synced_at < timedelta(seconds=SAID_AGAIN_S)
    wanted = state.sync_requested_at is not None or state.sync_trouble is not None
    if not changed and not withdrawn and recent and not wanted:
        return []
    return [CatalogueSynced(provider=command.provider, offers=changed, withdrawn=withdrawn)]


PROVIDER_ACCOUNT: Decider[ProviderAccountCommand, ProviderAccountEvent, ProviderAccount] = Decider(
    aggregate="provider_account",
    events=ProviderAccountEvent.__args__,
    initial=ProviderAccount(),
    state_type=ProviderAccount,
    evolve=evolve,
    decide=decide,
)
