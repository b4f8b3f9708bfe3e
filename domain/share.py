"""A share: what one organisation (the provider) lets another (the consumer) do with one of its offerings.

    (none) ──request──> requested ──refuse──> refused ──request──> requested
       └──────share, or start a trial──────> active <──pause, resume──> paused
                                                └─────────revoke──────────┴──> revoked ──request, share──> ...

One per pair and offering: its id derives from both. It lies in the provider's part of the log, for the provider
decides. A trial is a first access: who was ever let in gets none. The surprising rule: an end (`ends_at`) is not an
event; whoever asks compares it with the time. After it, one may ask, and be shared with, anew.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Decider, Rejected
from domain.ids import OfferingId, OrganizationId, ShareId, derived_id
from domain.offering import Price, refuse_price
from domain.values import Plan

ShareStatus = Literal["none", "requested", "refused", "active", "paused", "revoked"]


class ShareTerms(msgspec.Struct, frozen=True, kw_only=True):
    """`price` None: the offering's own. Times are UTC; `ends_at` None: until revoked."""

    price: Price | None = None
    starts_at: datetime
    ends_at: datetime | None = None


class RequestAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The consumer asks; `plan` is its own."""

    offering_id: OfferingId
    provider: OrganizationId
    consumer: OrganizationId
    plan: Plan


class RefuseAccess(msgspec.Struct, frozen=True):
    pass


class ShareOffering(msgspec.Struct, frozen=True, kw_only=True):
    """Grants access: in answer to a request, or unasked."""

    offering_id: OfferingId
    provider: OrganizationId
    consumer: OrganizationId
    terms: ShareTerms
    activate: tuple[Flag, ...]


class StartTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The consumer begins its one trial of an offering; `trial_days` 0: its policy allows none."""

    offering_id: OfferingId
    provider: OrganizationId
    consumer: OrganizationId
    trial_days: int


class ChangeShareTerms(msgspec.Struct, frozen=True, kw_only=True):
    terms: ShareTerms


class PauseShare(msgspec.Struct, frozen=True):
    pass


class ResumeShare(msgspec.Struct, frozen=True):
    pass


class RevokeShare(msgspec.Struct, frozen=True):
    pass


class ActivateShare(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateShare(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


ShareCommand = (
    RequestAccess
    | RefuseAccess
    | ShareOffering
    | StartTrial
    | ChangeShareTerms
    | PauseShare
    | ResumeShare
    | RevokeShare
    | ActivateShare
    | DeactivateShare
)


class AccessRequested(msgspec.Struct, frozen=True, kw_only=True):
    offering_id: OfferingId
    consumer: OrganizationId


class AccessRefused(msgspec.Struct, frozen=True):
    pass


class OfferingShared(msgspec.Struct, frozen=True, kw_only=True):
    offering_id: OfferingId
    consumer: OrganizationId
    terms: ShareTerms
    activated: tuple[Flag, ...]


class TrialStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Both flags are set: the provider agreed when it published a trial. A trial costs nothing."""

    offering_id: OfferingId
    consumer: OrganizationId
    terms: ShareTerms


class ShareTermsChanged(msgspec.Struct, frozen=True, kw_only=True):
    terms: ShareTerms


class SharePaused(msgspec.Struct, frozen=True):
    pass


class ShareResumed(msgspec.Struct, frozen=True):
    pass


class ShareRevoked(msgspec.Struct, frozen=True):
    pass


class ShareActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class ShareDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


ShareEvent = (
    AccessRequested
    | AccessRefused
    | OfferingShared
    | TrialStarted
    | ShareTermsChanged
    | SharePaused
    | ShareResumed
    | ShareRevoked
    | ShareActivated
    | ShareDeactivated
)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    status: ShareStatus = "none"
    offering_id: OfferingId = OfferingId("")
    consumer: OrganizationId = OrganizationId("")
    terms: ShareTerms | None = None
    tried: bool = False
    activation: Activation = Activation()

    def gives_access(self, now: datetime) -> bool:
        """Active, both flags set, begun and not ended."""
        terms = self.terms
        return self.stands(now) and self.activation.operational and terms is not None and terms.starts_at <= now

    def stands(self, now: datetime) -> bool:
        """Granted and neither taken back nor ended, though it may be waiting for its beginning or a flag."""
        terms = self.terms
        return self.status == "active" and terms is not None and (terms.ends_at is None or now < terms.ends_at)


def share_id_of(offering_id: OfferingId, consumer: OrganizationId) -> ShareId:
    return ShareId(derived_id(offering_id, f"share/{consumer}"))


def evolve(state: Share, event: ShareEvent, _at: datetime) -> Share:
    match event:
        case AccessRequested():
            return replace(state, status="requested", offering_id=event.offering_id, consumer=event.consumer)
        case AccessRefused():
            return replace(state, status="refused")
        case OfferingShared():
            return _granted(state, event, event.activated)
        case TrialStarted():
            return replace(_granted(state, event, ("technical", "economic")), tried=True)
        case ShareTermsChanged():
            return replace(state, terms=event.terms)
        case SharePaused():
            return replace(state, status="paused")
        case ShareResumed():
            return replace(state, status="active")
        case ShareRevoked():
            return replace(state, status="revoked")
        case ShareActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case ShareDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case _:
            assert_never(event)


def _granted(state: Share, event: OfferingShared | TrialStarted, activated: tuple[Flag, ...]) -> Share:
    return replace(
        state,
        status="active",
        offering_id=event.offering_id,
        consumer=event.consumer,
        terms=event.terms,
        activation=activation_with(activated),
    )


def decide(state: Share, command: ShareCommand, at: datetime) -> Sequence[ShareEvent]:
    match command:
        case RequestAccess():
            return _request(state, command, at)
        case RefuseAccess():
            return _refuse(state)
        case ShareOffering():
            return _share(state, command, at)
        case StartTrial():
            return _start_trial(state, command, at)
        case ChangeShareTerms():
            _refuse_terms(command.terms)
            return [] if _in_force(state).terms == command.terms else [ShareTermsChanged(terms=command.terms)]
        case PauseShare():
            return [] if _in_force(state).status == "paused" else [SharePaused()]
        case ResumeShare():
            return [] if _in_force(state).status == "active" else [ShareResumed()]
        case RevokeShare():
            return _revoke(state)
        case ActivateShare():
            return [] if _in_force(state).activation.is_set(command.flag) else [ShareActivated(flag=command.flag)]
        case DeactivateShare():
            return [ShareDeactivated(flag=command.flag)] if _in_force(state).activation.is_set(command.flag) else []
        case _:
            assert_never(command)


def _request(state: Share, command: RequestAccess, at: datetime) -> Sequence[ShareEvent]:
    _must_differ(command.provider, command.consumer)
    if state.status == "requested" or state.stands(at):
        return []
    if state.status == "paused":
        raise Rejected("share_paused", "The provider has paused your organisation's access; only it can resume it.")
    if command.plan == "free":
        raise Rejected("subscription_required", "Asking for access needs a subscription.")
    return [AccessRequested(offering_id=command.offering_id, consumer=command.consumer)]


def _refuse(state: Share) -> Sequence[ShareEvent]:
    if state.status == "refused":
        return []
    if _begun(state).status != "requested":
        raise Rejected("access_not_requested", "Nobody asks for access here; revoke the share instead.")
    return [AccessRefused()]


def _share(state: Share, command: ShareOffering, at: datetime) -> Sequence[ShareEvent]:
    _must_differ(command.provider, command.consumer)
    _refuse_terms(command.terms)
    if state.stands(at) or state.status == "paused":
        if state.terms == command.terms:
            return []
        raise Rejected("share_already_exists", "This organisation has a share of this offering; change its terms.")
    if command.terms.ends_at is not None and command.terms.ends_at <= at:
        raise Rejected("invalid_period", "A share that is over before it is given gives nothing.")
    return [
        OfferingShared(
            offering_id=command.offering_id,
            consumer=command.consumer,
            terms=command.terms,
            activated=command.activate,
        )
    ]


def _start_trial(state: Share, command: StartTrial, at: datetime) -> Sequence[ShareEvent]:
    _must_differ(command.provider, command.consumer)
    if state.tried and state.stands(at):
        return []
    if state.terms is not None:
        raise Rejected("trial_already_used", "A trial is a first access; your organisation was let in before.")
    if command.trial_days <= 0:
        raise Rejected("trial_not_offered", "This offering has no trial.")
    terms = ShareTerms(price=Price(), starts_at=at, ends_at=at + timedelta(days=command.trial_days))
    return [TrialStarted(offering_id=command.offering_id, consumer=command.consumer, terms=terms)]


def _must_differ(provider: OrganizationId, consumer: OrganizationId) -> None:
    if provider == consumer:
        raise Rejected("consumer_must_differ", "An organisation reaches its own offerings without a share.")


def _refuse_terms(terms: ShareTerms) -> None:
    if terms.price is not None:
        refuse_price(terms.price)
    if terms.ends_at is not None and terms.ends_at <= terms.starts_at:
        raise Rejected("invalid_period", "A share ends after it begins.")


def _revoke(state: Share) -> Sequence[ShareEvent]:
    if state.status == "revoked":
        return []
    _in_force(state)
    return [ShareRevoked()]


def _begun(state: Share) -> Share:
    if state.status == "none":
        raise Rejected("share_not_found", "There is no share with this id.")
    return state


def _in_force(state: Share) -> Share:
    """Active or paused: what can be paused, resumed, revoked, changed."""
    match _begun(state).status:
        case "active" | "paused":
            return state
        case "revoked":
            raise Rejected("share_revoked", "This share was revoked; share the offering anew.")
        case _:
            raise Rejected("share_not_active", "Access was asked for, and not given.")


SHARE: Decider[ShareCommand, ShareEvent, Share] = Decider(
    aggregate="share",
    events=(
        AccessRequested,
        AccessRefused,
        OfferingShared,
        TrialStarted,
        ShareTermsChanged,
        SharePaused,
        ShareResumed,
        ShareRevoked,
        ShareActivated,
        ShareDeactivated,
    ),
    initial=Share(),
    state_type=Share,
    evolve=evolve,
    decide=decide,
)
