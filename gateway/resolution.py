"""What a model's name stands for: an own model by its code, or an organisation's offering as `<slug>/<code>`. Pure.

    name ──> own model of that code, or of that id in the catalogue? ──> own workers
      └────> slug/code of an offering? ──> may the caller call it? ──> the provider's workers, at the caller's price

The surprising rule: an own model goes first, since the codes of models may hold a slash too. Nobody else can take over
such a name, however they call themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from domain import values
from domain.entitlement import FREE, NOT_FOUND, price_of_call, refusal_to_call
from domain.ids import OfferingId, OrganizationId, ShareId
from domain.key_scope import CompiledScope
from domain.offering import Price
from gateway.wire import LiveModel, Refusal, model_not_found
from projections.routing_rows import OfferingRow, ShareRow
from projections.routing_table import RoutingTable

OWN = "inventiv"
"""Who is said to own a model that the caller's organisation runs itself."""
_ID_LENGTH = 36
"""Of a UUID as text."""
_STATUS_OF: Mapping[str, int] = {NOT_FOUND.code: 404}
"""Of refusals to call an offering; 403 where it names none."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whose workers answer for which model, and on what terms.

    Attributes:
        organization_id: of the workers.
        model_code: what their engines call it.
        provider: the organisation whose offering was called; "" for an own model by its code.
        price: for this caller, now.
    """

    organization_id: OrganizationId
    model_code: str
    provider: OrganizationId = OrganizationId("")
    offering_id: OfferingId = OfferingId("")
    share_id: ShareId = ShareId("")
    price: Price = FREE


def resolve(table: RoutingTable, caller: OrganizationId, name: str, now: datetime) -> Target:
    """Where a request for the model `name` goes.

    Raises:
        Refusal: 404 model_not_found or offering_not_found; 403 with a code of domain/entitlement.py.
    """
    name = model_name(table, caller, name)
    if table.knows(caller, name):
        return Target(organization_id=caller, model_code=name)
    slug, slash, code = name.partition("/")
    if not slash:
        raise model_not_found(name)
    offering = table.find_offering(slug, code)
    if offering is None:
        raise Refusal(404, NOT_FOUND.code, NOT_FOUND.message, param="model")
    return _target(table, caller, offering, now)


def model_name(table: RoutingTable, caller: OrganizationId, name: str) -> str:
    """The name that a key's scope speaks of: an own model's code where its id was given, else what was given."""
    if len(name) != _ID_LENGTH or table.knows(caller, name):
        return name
    return table.model_ids.find(caller, name.lower()) or name


def list_live(table: RoutingTable, caller: OrganizationId, scope: CompiledScope, now: datetime) -> Sequence[LiveModel]:
    """Every model that the caller may call and that a worker answers for now, by name.

    An unlisted offering of others is shown only to whom it is shared with; it can be called by who knows its name.
    """
    live = [*_own_models(table, caller), *_offerings(table, caller, now)]
    shown = [model for model in live if not scope.models or model.name in scope.models]
    return sorted(shown, key=lambda model: model.name)


def find_live(table: RoutingTable, caller: OrganizationId, scope: CompiledScope, name: str, now: datetime) -> LiveModel:
    """One model by the name that a request would use.

    Raises:
        Refusal: 404 model_not_found, whatever the reason is; a request for it tells more.
    """
    try:
        target = resolve(table, caller, name, now)
    except Refusal:
        raise model_not_found(name) from None
    since = table.live_since(target.organization_id, target.model_code)
    if since is None or (scope.models and model_name(table, caller, name) not in scope.models):
        raise model_not_found(name)
    return LiveModel(name, since, name.partition("/")[0] if target.offering_id else OWN)


def _own_models(table: RoutingTable, caller: OrganizationId) -> Iterator[LiveModel]:
    for code in table.models_of(caller):
        if since := table.live_since(caller, code):
            yield LiveModel(code, since, OWN)


def _offerings(table: RoutingTable, caller: OrganizationId, now: datetime) -> Iterator[LiveModel]:
    for slug, offering in table.list_offerings():
        since = table.live_since(offering.organization_id, offering.state.model_code)
        if since is not None and _is_listed(table, caller, offering, now):
            yield LiveModel(f"{slug}/{offering.state.code}", since, slug)


def _is_listed(table: RoutingTable, caller: OrganizationId, offering: OfferingRow, now: datetime) -> bool:
    terms, share = offering.state.terms, table.find_share(offering.id, caller)
    is_public = terms is not None and terms.visibility == "public"
    is_known = is_public or offering.organization_id == caller or (share is not None and share.state.gives_access(now))
    return is_known and _refusal(table, caller, offering, share, now) is None


def _target(table: RoutingTable, caller: OrganizationId, offering: OfferingRow, now: datetime) -> Target:
    share = table.find_share(offering.id, caller)
    if refusal := _refusal(table, caller, offering, share, now):
        raise Refusal(_STATUS_OF.get(refusal.code, 403), refusal.code, refusal.message, param="model")
    opens = share is not None and share.state.gives_access(now)
    return Target(
        organization_id=offering.organization_id,
        model_code=offering.state.model_code,
        provider=offering.organization_id,
        offering_id=offering.id,
        share_id=share.id if share is not None and opens else ShareId(""),
        price=price_of_call(
            offering.state, offering.organization_id, caller, share=share.state if share else None, now=now
        ),
    )


def _refusal(
    table: RoutingTable, caller: OrganizationId, offering: OfferingRow, share: ShareRow | None, now: datetime
) -> values.Refusal | None:
    return refusal_to_call(
        offering.state,
        offering.organization_id,
        caller,
        plan=table.plan_of(caller),
        share=share.state if share else None,
        now=now,
    )
