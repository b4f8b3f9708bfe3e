"""The control: an adapter with one planted bug fails the law that the bug breaks, and the sound adapter keeps it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.cloud_ports import Absent, Cloud, CloudRefusedError, CloudUnavailableError, Present, Unknown
from tests.infra.providers.conformance.double import Double
from tests.infra.providers.conformance.suite import CASES, CLOUDS, judge

Plant = Callable[[Any], Any]
"""A sound adapter in, the same adapter with a bug out."""


def takes_unknown_for_absent(cloud: Any) -> Any:
    """Also for a 429: the bug that deletes records of living servers."""
    sound = cloud.find_server

    async def find_server(**asked: str) -> object:
        found = await sound(**asked)
        return Absent() if isinstance(found, Unknown) else found

    cloud.find_server = find_server
    return cloud


def lists_nothing_in_trouble(cloud: Any) -> Any:
    cloud.list_servers = _or_nothing(cloud.list_servers)
    return cloud


def believes_short_pages(cloud: Any) -> Any:
    async def pages(operation: str, what: str, fetch: Callable[[Any, int], Any]) -> list[Any]:
        held = getattr(await cloud._api.call(operation, lambda sdk: fetch(sdk, 1)), what)
        return list(held.items() if isinstance(held, dict) else held)

    cloud._api.pages = pages
    return cloud


def creates_without_looking(cloud: Any) -> Any:
    async def nobody(*_asked: object) -> None:
        return None

    cloud._creation._named = nobody
    return cloud


def forgets_the_tags(cloud: Any) -> Any:
    sound = cloud.create_server
    cloud.create_server = lambda request: sound(_without(request, tags={}))
    return cloud


def forgets_the_image(cloud: Any) -> Any:
    sound = cloud.create_server
    cloud.create_server = lambda request: sound(_without(request, image=""))
    return cloud


def shows_strangers(cloud: Any) -> Any:
    async def everybody(operation: str, zone: str, name: str | None = None) -> list[Any]:
        listed: list[Any] = await cloud._api.pages(
            operation,
            "servers",
            lambda sdk, page: sdk.instance.list_servers(zone=zone, page=page, per_page=100, name=name),
        )
        return listed

    cloud._servers.listed = everybody
    return cloud


def stumbles_over_the_second_delete(cloud: Any) -> Any:
    sound = cloud.delete_server

    async def delete_server(provider_instance_id: str) -> None:
        if not isinstance(await cloud.find_server(provider_instance_id=provider_instance_id), Present):
            raise CloudRefusedError("PROVIDER_DELETE_FAILED", "There is none.")
        await sound(provider_instance_id)

    cloud.delete_server = delete_server
    return cloud


def raises_foreign_errors(cloud: Any) -> Any:
    sound = cloud.list_servers

    async def list_servers() -> object:
        try:
            return await sound()
        except CloudUnavailableError as error:
            raise RuntimeError(str(error)) from None

    cloud.list_servers = list_servers
    return cloud


def tells_its_secret(cloud: Any) -> Any:
    sound, secret = cloud.list_servers, cloud._api._account.secret_key

    async def list_servers() -> object:
        try:
            return await sound()
        except CloudUnavailableError as error:
            raise CloudUnavailableError(f"{error} with the key {secret}", error.kind) from None

    cloud.list_servers = list_servers
    return cloud


def takes_every_no_for_permanent(cloud: Any) -> Any:
    sound = cloud.create_server

    async def create_server(request: object) -> object:
        try:
            return await sound(request)
        except CloudRefusedError as refused:
            raise CloudRefusedError(refused.code, refused.message) from None

    cloud.create_server = create_server
    return cloud


def takes_unknown_volumes_for_absent(cloud: Any) -> Any:
    sound = cloud.volumes.find_volume

    async def find_volume(volume_id: str) -> object:
        found = await sound(volume_id)
        return Absent() if isinstance(found, Unknown) else found

    cloud.volumes.find_volume = find_volume
    return cloud


def takes_a_volume_in_use_for_deleted(cloud: Any) -> Any:
    cloud.volumes.delete_volume = _or_nothing(cloud.volumes.delete_volume)
    return cloud


def leaves_boot_volumes_untagged(cloud: Any) -> Any:
    async def tag_boot_volume(*_asked: object) -> None:
        return None

    cloud.volumes.tag_boot_volume = tag_boot_volume
    return cloud


def replaces_the_open_ports(cloud: Any) -> Any:
    sound = cloud.ports._open

    async def open_only(operation: str, zone: str, group_id: str, ports: Sequence[int]) -> None:
        await cloud._api.call(
            operation,
            lambda sdk: sdk.instance.set_security_group_rules(zone=zone, security_group_id=group_id, rules=[]),
        )
        await sound(operation, zone, group_id, ports)

    cloud.ports._open = open_only
    return cloud


PLANTED: tuple[tuple[Plant, str], ...] = (
    (takes_unknown_for_absent, "when_rate_limited_nothing_is_absent"),
    (takes_unknown_for_absent, "when_unreachable_nothing_is_absent"),
    (takes_unknown_for_absent, "when_denied_nothing_is_absent"),
    (takes_unknown_for_absent, "when_server_error_nothing_is_absent"),
    (takes_unknown_for_absent, "when_nonsense_nothing_is_absent"),
    (takes_unknown_for_absent, "a_partial_listing_is_no_listing"),
    (lists_nothing_in_trouble, "when_rate_limited_nothing_is_absent"),
    (believes_short_pages, "a_partial_listing_is_no_listing"),
    (believes_short_pages, "a_partial_list_of_offers_is_none"),
    (creates_without_looking, "creating_twice_creates_once"),
    (creates_without_looking, "creating_at_the_same_time_creates_once"),
    (creates_without_looking, "a_creation_whose_answer_is_lost_is_found_again"),
    (forgets_the_tags, "a_server_keeps_its_signed_tags"),
    (forgets_the_image, "a_server_boots_the_image_that_was_asked_for"),
    (forgets_the_image, "an_image_that_is_not_there_is_refused"),
    (shows_strangers, "a_server_of_somebody_else_is_not_seen_even_under_our_name"),
    (stumbles_over_the_second_delete, "a_deleted_server_is_absent_and_deleting_twice_is_fine"),
    (raises_foreign_errors, "when_unreachable_the_trouble_is_transient"),
    (tells_its_secret, "when_server_error_the_trouble_is_transient"),
    (takes_every_no_for_permanent, "when_quota_a_server_is_refused_as_quota"),
    (takes_every_no_for_permanent, "when_out_of_stock_a_server_is_refused_as_out_of_stock"),
    (takes_unknown_volumes_for_absent, "when_rate_limited_no_volume_is_absent"),
    (takes_a_volume_in_use_for_deleted, "an_attached_volume_shows_at_its_server_and_cannot_be_deleted"),
    (leaves_boot_volumes_untagged, "a_started_server_has_one_boot_volume_with_its_tags"),
    (replaces_the_open_ports, "opened_ports_stay_open_when_others_are_opened"),
)


@pytest.mark.parametrize(("plant", "case"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
async def test_a_planted_bug_breaks_its_law(plant: Plant, case: str, tmp_path: Path) -> None:
    async with CLOUDS["scaleway"](tmp_path) as double:
        await CASES[case](double)
    with pytest.raises((AssertionError, RuntimeError, ValueError, CloudRefusedError)):
        async with CLOUDS["scaleway"](tmp_path) as double:
            await CASES[case](_planted(double, plant))


async def test_the_verdict_tells_what_passed_failed_and_was_skipped() -> None:
    cases = {name: CASES[name] for name in ("what_was_never_created_is_absent", "offers_say_what_they_cost_and_hold")}

    async def never_holds(_double: Double) -> None:
        raise AssertionError("planted")

    verdict = await judge(CLOUDS["local"], {**cases, "never_holds": never_holds})
    assert verdict.passed == ["what_was_never_created_is_absent"]
    assert verdict.failed == {"never_holds": "AssertionError: planted"}
    assert list(verdict.skipped) == ["offers_say_what_they_cost_and_hold"]


def _planted(double: Double, plant: Plant) -> Double:
    def new_cloud() -> Cloud:
        cloud: Cloud = plant(double.new_cloud())
        return cloud

    return replace(double, new_cloud=new_cloud)


def _or_nothing(sound: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    async def act(*asked: object) -> object:
        try:
            return await sound(*asked)
        except (CloudUnavailableError, CloudRefusedError):
            return []

    return act


def _without(request: Any, **emptied: object) -> Any:
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return SimpleNamespace(**(fields | emptied))
