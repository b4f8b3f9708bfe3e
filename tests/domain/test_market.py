"""What can be rented: the built-in catalogue, and what providers said since."""

from msgspec.structs import replace

from domain.catalogue import PROVIDERS, find_provider
from domain.market import Offered, built_in, cheapest_first, find, knows_zone, merged, type_of

SCALEWAY = find_provider("scaleway")
assert SCALEWAY is not None
L4 = next(one for one in SCALEWAY.instance_types if one.code == "L4-1-24G")


def said(zone: str = "nl-ams-1", price: int | None = None) -> Offered:
    own = replace(L4, price_eur_micros_per_hour=price, is_diskless=False)
    return Offered(provider="scaleway", zone=zone, type=own, stock="scarce", is_current=True)


def test_the_built_in_market_has_every_active_pair() -> None:
    market = built_in()
    assert find(market, "scaleway", "fr-par-2", "L4-1-24G") is not None
    assert find(market, "scaleway", "fr-par-1", "L4-1-24G") is None
    assert find(market, "aws", "eu-west-3b", "g6.xlarge") is not None
    assert {one.provider for one in market} == {"local", "scaleway", "aws"}
    assert len({(one.provider, one.zone, one.type.code) for one in market}) == len(market)


def test_a_provider_that_was_asked_knows_better() -> None:
    market = merged([said()])
    assert find(market, "scaleway", "fr-par-2", "L4-1-24G") is None
    found = find(market, "scaleway", "nl-ams-1", "L4-1-24G")
    assert found is not None
    assert (found.stock, found.type.is_diskless) == ("scarce", True)
    assert find(market, "aws", "eu-west-3b", "g6.xlarge") is not None


def test_a_price_that_it_does_not_say_stays_the_catalogues() -> None:
    prices = [
        one.price_eur_micros_per_hour for one in merged([said(), said("fr-par-1", price=800_000)]) if one.is_current
    ]
    assert prices == [750_000, 800_000]


def test_nobody_else_becomes_a_provider() -> None:
    assert merged([replace(said(), provider="ovh"), replace(said(), provider="moon")]) == built_in()


def test_a_price_of_aws_is_unknown_and_not_zero() -> None:
    prices = {one.price_eur_micros_per_hour for one in built_in() if one.provider == "aws"}
    assert prices == {None}
    assert cheapest_first(built_in())[-1].provider == "aws"


def test_zones_and_types_are_known_where_they_are_listed_or_offered() -> None:
    market = merged([replace(said("zone-7"), type=replace(L4, code="new"))])
    assert knows_zone(market, "scaleway", "zone-7")
    assert knows_zone(market, "scaleway", "fr-par-1")
    assert not knows_zone(market, "scaleway", "elsewhere")
    assert type_of(market, "scaleway", "new") is not None
    assert type_of(market, "scaleway", "L4-1-24G") == L4
    assert type_of(market, "moon", "L4-1-24G") is None


def test_each_type_of_the_catalogue_is_offered_somewhere() -> None:
    offered = {(one.provider, one.type.code) for one in built_in()}
    assert {(p.code, t.code) for p in PROVIDERS if p.is_active for t in p.instance_types} == offered
