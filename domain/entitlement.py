"""Who may call an offering: one pure rule, asked by the gateway for each request and by the API for lists.

    own organisation ─> yes        private ─> only with a share        else the access policy (SPEC 6.2, 6.9)

A refusal is one of SPEC's codes; `offering_not_found` also stands for what the caller may not know to exist.
"""

from datetime import datetime

from domain.ids import OrganizationId
from domain.offering import Offering
from domain.organization import Plan
from domain.share import Share
from domain.values import Refusal


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
    raise NotImplementedError
