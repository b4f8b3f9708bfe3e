"""A share: what one organisation (the provider) lets another (the consumer) do with one of its offerings.

    (none) ──request──> requested ──refuse──> refused ──request──> requested
       └──────share, or start a trial──────> active <──pause, resume──> paused
                                                └─────────revoke──────────┴──> revoked

One per pair and offering: its id derives from both. It lies in the provider's part of the log, for the provider
decides. The surprising rule: an end (`ends_at`) is not an event; whoever asks compares it with the time.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Decider
from domain.ids import OfferingId, OrganizationId, ShareId, derived_id
from domain.offering import Price

ShareStatus = Literal["none", "requested", "refused", "active", "paused", "revoked"]


class ShareTerms(msgspec.Struct, frozen=True, kw_only=True):
    """`price` None: the offering's own. Times are UTC; `ends_at` None: until revoked."""

    price: Price | None = None
    starts_at: datetime
    ends_at: datetime | None = None


class RequestAccess(msgspec.Struct, frozen=True, kw_only=True):
    offering_id: OfferingId
    consumer: OrganizationId


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
    """The consumer begins its one trial of an offering whose policy allows one."""

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
    """Both flags are set: the provider agreed when it published a trial."""

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
        if self.status != "active" or terms is None or not self.activation.operational:
            return False
        return terms.starts_at <= now and (terms.ends_at is None or now < terms.ends_at)


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
    raise NotImplementedError


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
