"""User data for cloud-init, read back the way cloud-init reads it."""

import base64
import gzip

import pytest
import yaml  # type: ignore[import-untyped]  # it comes with moto, without stubs
from hypothesis import given
from hypothesis import strategies as st

from infra.providers.bootstrap.cloud_init import (
    ENVIRONMENT_PATH,
    MAX_USER_DATA_BYTES,
    SCRIPT_PATH,
    cloud_init,
    worker_environment_of,
)
from infra.providers.bootstrap.script import UnfitError, bootstrap_script

AGENT_URL = "https://api.example.com/internal/worker/agent.pyz"
CHECKSUM = "0" * 64
VARIABLES = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60),
    min_size=1,
    max_size=12,
)


@given(VARIABLES)
def test_every_environment_arrives_as_it_was_meant(environment: dict[str, str]) -> None:
    user_data = user_data_of(environment)
    assert worker_environment_of(user_data) == environment
    first = yaml.safe_load(user_data)["write_files"][0]
    assert first["path"] == ENVIRONMENT_PATH
    assert first["permissions"] == "0600"
    assert first["content"] == "".join(f"{name}={value}\n" for name, value in environment.items())


def user_data_of(environment: dict[str, str]) -> str:
    return cloud_init(environment, agent_url=AGENT_URL, agent_sha256=CHECKSUM)


def test_the_script_travels_packed_and_is_what_runs() -> None:
    document = yaml.safe_load(user_data_of({"A": "b"}))
    script = document["write_files"][1]
    unpacked = gzip.decompress(base64.b64decode(script["content"])).decode()
    assert unpacked == bootstrap_script(
        {}, agent_url=AGENT_URL, agent_sha256=CHECKSUM, data_volume_tries=1, powers_off=True
    )
    assert document["runcmd"] == [["sh", SCRIPT_PATH]]
    assert script["path"] == SCRIPT_PATH


def test_the_same_wish_gives_the_same_user_data() -> None:
    assert user_data_of({"A": "b"}) == user_data_of({"A": "b"})


def test_user_data_stays_within_what_providers_take() -> None:
    assert len(user_data_of({"A": "b" * 2_000})) < MAX_USER_DATA_BYTES
    with pytest.raises(UnfitError, match="providers take"):
        user_data_of({"A": "b" * 12_000})


def test_a_worker_without_environment_is_a_mistake() -> None:
    with pytest.raises(UnfitError, match="environment"):
        user_data_of({})


def test_foreign_user_data_has_no_worker_s_environment() -> None:
    assert worker_environment_of("#cloud-config\nwrite_files: []\n") == {}
    assert worker_environment_of("") == {}
