"""Who may call an offering: one pure rule, asked by the gateway for each request and by the API for lists.

    own organisation ─> yes        private ─> only with a share        else the access policy (SPEC 6.2, 6.9)

A refusal is one of SPEC's codes; `offering_not_found` also stands for what the caller may not know to exist. The
surprising rule: a share can only open. A paused or revoked one takes nothing away that the policy gives to everyone.
"""

from datetime import datetime
from typing import assert_never

from domain.activation import Activation
from domain.ids import OrganizationId
from domain.offering import Offering, Price, Terms
from domain.share import Share
from domain.values import Plan, Refusal

FREE = Price()
NOT_FOUND = Refusal("offering_not_found", "There is no such offering.")


def refusal_to_call(
    offering: Offering,
    provider: OrganizationId,
    caller: OrganizationId,
    *,
    plan: Plan,
    share: Share | None,
    now: datetime,
) -> Refusal | None:
    """Why the caller's organisation may not call it; None when it may.

    Args:
        offering: as folded.
        provider: the organisation that offers it.
        caller: the organisation whose key or session calls.
        plan: of the caller's organisation.
        share: between provider and caller for this offering, None when there never was one.
        now: UTC.
    """
    terms = offering.terms
    if terms is None or not offering.live:
        return NOT_FOUND
    if caller == provider:
        return _own_refusal(offering)
    if not offering.activation.operational:
        return NOT_FOUND
    if share is not None and share.gives_access(now):
        return None
    if terms.visibility == "private":
        return _private_refusal(share, now)
    return _policy_refusal(terms, plan, share, now)


def price_of_call(
    offering: Offering, provider: OrganizationId, caller: OrganizationId, *, share: Share | None, now: datetime
) -> Price:
    """What a call costs whoever may make it: what the share says, else what the offering says to everyone; nothing
    among one's own and where it is free. Arguments as above.
    """
    terms = offering.terms
    if terms is None or caller == provider:
        return FREE
    if share is None or share.terms is None or not share.gives_access(now):
        return FREE if terms.access_policy == "free" else terms.price
    return terms.price if share.terms.price is None else share.terms.price


def missing_flags(activation: Activation) -> str:
    """In words, for a message: "its technical activation is missing"."""
    flags = " and its ".join(activation.missing)
    return f"its {flags} activation {'is' if len(activation.missing) == 1 else 'are'} missing"


def _own_refusal(offering: Offering) -> Refusal | None:
    if offering.activation.operational:
        return None
    return Refusal(
        "offering_not_operational", f"Your offering does not work yet: {missing_flags(offering.activation)}."
    )


def _private_refusal(share: Share | None, now: datetime) -> Refusal:
    """Whoever was never let in does not learn that there is something; a mere request is not being let in."""
    if share is None or share.terms is None:
        return NOT_FOUND
    return Refusal("offering_not_accessible", f"Your organisation has no access: {_why_closed(share, now)}.")


def _policy_refusal(terms: Terms, plan: Plan, share: Share | None, now: datetime) -> Refusal | None:
    """What the policy says to a caller whose share, if any, gives no access."""
    match terms.access_policy:
        case "free":
            return None
        case "subscription_required" | "pay_per_token":
            if plan == "subscriber":
                return None
            return Refusal("subscription_required", "This offering needs a subscription, or a share from its provider.")
        case "request_required":
            return _request_refusal(share, now)
        case "trial":
            if share is not None and share.terms is not None:  # a trial is a first access (share.py)
                return Refusal("trial_ended", f"Your organisation's trial is over: {_why_closed(share, now)}.")
            return Refusal("trial_required", "Start the trial of this offering first.")
        case _:
            assert_never(terms.access_policy)


def _request_refusal(share: Share | None, now: datetime) -> Refusal:
    if share is not None and share.status == "requested":
        return Refusal("access_request_pending", "Your organisation's request for access has not been answered yet.")
    why = "" if share is None or share.terms is None else f" {_why_closed(share, now).capitalize()}."
    return Refusal("access_request_required", f"Ask the provider for access to this offering.{why}")


def _why_closed(share: Share, now: datetime) -> str:
    """The state of a share that was granted once and gives no access now."""
    terms = share.terms
    if share.status != "active" or terms is None:
        return f"the share is {share.status}"
    if now < terms.starts_at:
        return f"the share begins at {terms.starts_at.isoformat()}"
    if terms.ends_at is not None and terms.ends_at <= now:
        return f"the share has expired, it ended at {terms.ends_at.isoformat()}"
    return f"the share is not operational, {missing_flags(share.activation)}"
