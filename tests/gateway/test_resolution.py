"""What a model's name stands for, for whom, and at which price."""

from datetime import timedelta
from typing import Any

import pytest

from domain.activation import FLAGS
from domain.catalogue import model_id_of
from domain.deployment import DeploymentStopped
from domain.ids import OrganizationId
from domain.key_scope import KeyScope, compiled
from domain.model import own_model_id
from domain.offering import OfferingWithdrawn, Price, offering_id_of
from domain.organization import OrganizationPlanChanged
from domain.share import AccessRequested, SharePaused, ShareResumed, ShareRevoked, share_id_of
from gateway.resolution import Target, find_live, list_live, model_name, resolve
from gateway.wire import Refusal
from projections.routing_table import RoutingTable
from tests.examples import ACME, GLOBEX, example
from tests.gateway.routing import MODEL, Said, deployed, founded, offered, ready, registered, routing, shared
from tests.given import NOON

PROVIDER, CONSUMER, STRANGER = OrganizationId(ACME), OrganizationId(GLOBEX), OrganizationId("initech")
OFFERING = offering_id_of(PROVIDER, "chat")
SHARE = share_id_of(OFFERING, CONSUMER)
EVERYTHING = compiled(KeyScope())
LATER = NOON + timedelta(hours=1)
TWO = [*founded(ACME), *founded(GLOBEX), *ready("i1")]


def resolved(table: RoutingTable, name: str = "acme/chat", caller: str = GLOBEX) -> Target:
    return resolve(table, OrganizationId(caller), name, LATER)


def refused(table: RoutingTable, name: str = "acme/chat", caller: str = GLOBEX) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        resolved(table, name, caller)
    assert refusal.value.param == "model"
    return refusal.value.status, refusal.value.code


def listed(table: RoutingTable, caller: str, **scope: Any) -> list[str]:
    return [model.name for model in list_live(table, OrganizationId(caller), compiled(KeyScope(**scope)), LATER)]


def test_an_own_model_is_called_by_its_code() -> None:
    assert resolved(routing(TWO), MODEL, ACME) == Target(organization_id=PROVIDER, model_code=MODEL)


@pytest.mark.parametrize("model_id", [model_id_of(MODEL), own_model_id(PROVIDER, MODEL), model_id_of(MODEL).upper()])
def test_an_own_model_is_called_by_its_id_in_the_catalogue_too(model_id: str) -> None:
    table = routing(TWO)
    assert resolved(table, model_id, ACME) == Target(organization_id=PROVIDER, model_code=MODEL)
    assert find_live(table, PROVIDER, EVERYTHING, model_id, LATER).owned_by == "inventiv"
    assert refused(table, model_id, GLOBEX) == (404, "model_not_found")


def test_the_id_of_a_model_that_is_not_wanted_any_more_is_unknown() -> None:
    table = routing(TWO, deployed(), [(ACME, "d1", example(DeploymentStopped))])
    assert resolved(table, model_id_of(MODEL), ACME).model_code == MODEL
    gone = routing(founded(ACME), deployed(), [(ACME, "d1", example(DeploymentStopped))])
    assert refused(gone, model_id_of(MODEL), ACME) == (404, "model_not_found")


def test_a_code_that_looks_like_an_id_goes_first() -> None:
    table = routing(TWO, deployed(model_id_of(MODEL)))
    assert resolved(table, model_id_of(MODEL), ACME).model_code == model_id_of(MODEL)


def test_a_keys_scope_speaks_of_codes_whatever_name_was_called() -> None:
    table = routing(TWO)
    assert model_name(table, PROVIDER, model_id_of(MODEL)) == MODEL
    assert model_name(table, PROVIDER, "acme/chat") == "acme/chat"
    narrow = compiled(KeyScope(models=(MODEL,)))
    assert find_live(table, PROVIDER, narrow, model_id_of(MODEL), LATER).name == model_id_of(MODEL)
    with pytest.raises(Refusal, match="model_not_found"):
        find_live(table, PROVIDER, compiled(KeyScope(models=("x",))), model_id_of(MODEL), LATER)


def test_an_own_model_with_a_slash_goes_before_anybodys_offering() -> None:
    table = routing(TWO, offered(), deployed("acme/chat", organization=GLOBEX))
    assert resolved(table) == Target(organization_id=CONSUMER, model_code="acme/chat")


def test_an_offering_goes_to_its_providers_workers() -> None:
    table = routing(TWO, offered())
    assert resolved(table) == Target(
        organization_id=PROVIDER, model_code=MODEL, provider=PROVIDER, offering_id=OFFERING
    )
    assert resolved(table, caller=ACME) == resolved(table)


def test_what_is_not_there_is_answered_as_what_may_not_be_known() -> None:
    table = routing(TWO, offered("secret", visibility="private"), offered("off", activated=["technical"]))
    answers = {name: refused(table, name) for name in ("acme/secret", "acme/off", "acme/none", "nobody/chat", "a/b/c")}
    assert set(answers.values()) == {(404, "offering_not_found")}
    assert refused(table, "none") == (404, "model_not_found")


def test_a_neighbours_model_is_not_reached_by_its_code() -> None:
    assert refused(routing(TWO, offered()), MODEL) == (404, "model_not_found")


def test_the_owner_is_told_what_its_offering_lacks() -> None:
    assert refused(routing(TWO, offered(activated=["technical"])), caller=ACME) == (403, "offering_not_operational")


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ("subscription_required", "subscription_required"),
        ("pay_per_token", "subscription_required"),
        ("request_required", "access_request_required"),
        ("trial", "trial_required"),
    ],
)
def test_a_policy_that_is_not_met_is_a_403_with_its_code(policy: str, code: str) -> None:
    assert refused(routing(TWO, offered(access_policy=policy))) == (403, code)


def test_the_plan_opens_what_needs_a_subscription() -> None:
    subscribed: list[Said] = [(GLOBEX, GLOBEX, OrganizationPlanChanged(plan="subscriber"))]
    assert resolved(routing(TWO, offered(access_policy="subscription_required"), subscribed)).share_id == ""


def test_a_request_that_waits_is_told_so() -> None:
    requested: list[Said] = [(ACME, SHARE, AccessRequested(offering_id=OFFERING, consumer=CONSUMER))]
    table = routing(TWO, offered(access_policy="request_required"), requested)
    assert refused(table) == (403, "access_request_pending")


def test_a_share_stops_to_route_the_moment_it_is_paused_or_revoked() -> None:
    told = [*TWO, *offered(visibility="private"), *shared(GLOBEX)]
    assert resolved(routing(told)).share_id == SHARE
    for event in (SharePaused(), ShareRevoked()):
        assert refused(routing(told, [(ACME, SHARE, event)])) == (403, "offering_not_accessible")
    assert resolved(routing(told, [(ACME, SHARE, SharePaused()), (ACME, SHARE, ShareResumed())])).share_id == SHARE


def test_a_share_ends_by_the_clock_alone() -> None:
    table = routing(TWO, offered(visibility="private"), shared(GLOBEX, ends_at=LATER))
    assert resolve(table, CONSUMER, "acme/chat", LATER - timedelta(seconds=1)).share_id == SHARE
    assert refused(table) == (403, "offering_not_accessible")


def test_a_withdrawn_offering_is_not_found_share_or_not() -> None:
    assert refused(routing(TWO, offered(), shared(GLOBEX), [(ACME, OFFERING, OfferingWithdrawn())])) == (
        404,
        "offering_not_found",
    )


GENERAL, SPECIAL = Price(input_eur_micros_per_million=2), Price(output_eur_micros_per_million=3)


@pytest.mark.parametrize(
    ("terms", "share", "caller", "price"),
    [
        ({"access_policy": "pay_per_token"}, {}, GLOBEX, GENERAL),
        ({"access_policy": "pay_per_token"}, {"price": SPECIAL}, GLOBEX, SPECIAL),
        ({"access_policy": "free"}, {"price": SPECIAL}, GLOBEX, SPECIAL),
        ({"access_policy": "free"}, None, GLOBEX, Price()),
        ({"access_policy": "pay_per_token"}, None, ACME, Price()),
    ],
)
def test_the_price_is_the_shares_own_or_the_offerings_and_nothing_among_ones_own(
    terms: dict[str, Any], share: dict[str, Any] | None, caller: str, price: Price
) -> None:
    told = [] if share is None else shared(GLOBEX, **share)
    assert resolved(routing(TWO, offered(price=GENERAL, **terms), told), caller=caller).price == price


def test_a_list_shows_own_models_and_the_offerings_that_may_be_called() -> None:
    told = [
        *TWO,
        *offered("chat"),
        *offered("paid", access_policy="subscription_required"),
        *offered("hidden", visibility="unlisted"),
        *offered("private", visibility="private"),
        *offered("shared", visibility="private"),
        *shared(GLOBEX, "shared"),
        *offered("off", activated=["economic"]),
        *offered("asleep", model="other/model"),
    ]
    table = routing(told, registered("i2", model="other/model"))
    assert listed(table, ACME) == [f"acme/{code}" for code in ("chat", "hidden", "paid", "private", "shared")] + [MODEL]
    assert listed(table, GLOBEX) == ["acme/chat", "acme/shared"]
    assert listed(table, STRANGER) == ["acme/chat"]


def test_a_list_shows_no_more_than_the_keys_scope() -> None:
    table = routing(TWO, offered())
    assert listed(table, ACME, models=("acme/chat",)) == ["acme/chat"]
    assert listed(table, ACME, models=("other",)) == []


def test_who_owns_a_model_is_the_slug_that_offers_it() -> None:
    models = list_live(routing(TWO, offered()), PROVIDER, EVERYTHING, LATER)
    assert [(model.name, model.owned_by) for model in models] == [("acme/chat", "acme"), (MODEL, "inventiv")]


def test_one_model_is_found_by_the_name_that_calls_it_listed_or_not() -> None:
    table = routing(TWO, offered("hidden", visibility="unlisted"), offered("asleep", model="other/model"))
    assert find_live(table, CONSUMER, EVERYTHING, "acme/hidden", LATER).owned_by == "acme"
    assert find_live(table, PROVIDER, EVERYTHING, MODEL, LATER).owned_by == "inventiv"
    narrow = compiled(KeyScope(models=("x",)))
    for name, scope in (("acme/none", EVERYTHING), ("acme/asleep", EVERYTHING), ("acme/hidden", narrow)):
        with pytest.raises(Refusal, match="model_not_found"):
            find_live(table, CONSUMER, scope, name, LATER)


def test_an_offering_needs_both_flags() -> None:
    for flag in FLAGS:
        assert refused(routing(TWO, offered(activated=[flag]))) == (404, "offering_not_found")
