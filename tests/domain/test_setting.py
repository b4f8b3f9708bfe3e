"""Settings: known keys, values that fit, and the order in which they count."""

from typing import Any

import pytest

from domain.setting import DEFINITIONS, SetSetting, SettingSet, SettingUnset, UnsetSetting, resolved
from tests.given import given

PORT = "WORKER_HEALTH_PORT"
SET = SettingSet(key=PORT, value=8081, provider="local")


def test_a_setting_is_set() -> None:
    given().when(SetSetting(key=PORT, value=8081, provider="local")).then(SET)


def test_setting_it_again_changes_nothing() -> None:
    given(SET).when(SetSetting(key=PORT, value=8081, provider="local")).then_nothing()


def test_an_override_is_taken_away_once() -> None:
    given(SET).when(UnsetSetting(key=PORT, provider="local")).then(SettingUnset(key=PORT, provider="local"))
    given().when(UnsetSetting(key=PORT, provider="local")).then_nothing()


@pytest.mark.parametrize(
    ("key", "provider"), [("NO_SUCH_KEY", "local"), (PORT, ""), ("OPENAI_WORKER_STALE_SECONDS", "x")]
)
def test_an_unknown_key_is_refused(key: str, provider: str) -> None:
    given().when(SetSetting(key=key, value=1, provider=provider)).then_rejected("unknown_setting")


@pytest.mark.parametrize(
    ("key", "value"),
    [(PORT, "8080"), (PORT, True), ("WORKER_EXPOSE_PORTS", 1), ("WORKER_VLLM_MODE", 1), ("WORKER_VLLM_IMAGE", False)],
)
def test_a_value_of_another_type_is_refused(key: str, value: Any) -> None:
    given().when(SetSetting(key=key, value=value, provider="local")).then_rejected("invalid_setting_type")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (PORT, 0),
        (PORT, 65_536),
        ("WORKER_DATA_VOLUME_GB_DEFAULT", 49),
        ("WORKER_VLLM_MODE", "both"),
        ("WORKER_VLLM_IMAGE", ""),
        ("WORKER_VLLM_IMAGE", "a\nb"),
        ("WORKER_VLLM_IMAGE", "vllm/modèle"),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, value: Any) -> None:
    given().when(SetSetting(key=key, value=value, provider="local")).then_rejected("setting_out_of_range")


def test_every_default_is_a_value_that_may_be_set() -> None:
    """But for an empty one: "nobody chose" is said by taking the override away."""
    for one in [one for one in DEFINITIONS.values() if one.default != ""]:
        provider = "local" if one.scope == "provider" else ""
        given().when(SetSetting(key=one.key, value=one.default, provider=provider)).then(
            SettingSet(key=one.key, value=one.default, provider=provider)
        )


def test_the_nearest_value_counts() -> None:
    own, everyones, environment = {PORT: 1}, {PORT: 2}, {PORT: 3}
    assert resolved(PORT, own, everyones, environment=environment) == 1
    assert resolved(PORT, {}, everyones, environment=environment) == 2
    assert resolved(PORT, {}, {}, environment=environment) == 3
    assert resolved(PORT, {}, {}, environment={}) == 8080
