import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Rejected
from domain.deployment import DEPLOYMENT, DeploymentRequested, DeploymentStopped, RequestDeployment, StopDeployment
from domain.upstream import (
    ActivateUpstream,
    ConnectUpstream,
    DeactivateUpstream,
    ReplaceUpstreamKey,
    UpstreamActivated,
    UpstreamConnected,
    UpstreamDeactivated,
    UpstreamKeyReplaced,
    credential_id_of,
    place_of_url,
)
from domain.values import Digest
from tests.examples import DEPLOYED, example
from tests.given import given, state_after

CONNECT = example(ConnectUpstream)
CONNECTED = example(UpstreamConnected)
OTHER_KEY = ReplaceUpstreamKey(key_digest=Digest("another"))


def test_an_upstream_that_may_be_called_is_connected() -> None:
    given().when(CONNECT).then(CONNECTED)


def test_asking_twice_connects_once() -> None:
    given(CONNECTED).when(CONNECT).then_nothing()


def test_a_deployment_has_machines_or_an_upstream_and_never_both() -> None:
    given(CONNECTED).when(example(RequestDeployment)).then_nothing()
    given(example(DeploymentRequested)).when(CONNECT).then_nothing()
    given(example(DeploymentRequested)).when(OTHER_KEY).then_rejected("deployment_has_no_upstream")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_code": ""}, "invalid_model_code"),
        ({"model_code": "a model"}, "invalid_model_code"),
        ({"upstream_model": ""}, "invalid_upstream_model"),
        ({"upstream_model": "a\nb"}, "invalid_upstream_model"),
        ({"upstream_model": "x" * 257}, "invalid_upstream_model"),
        ({"found": False}, "upstream_host_not_found"),
        ({"allowed": False}, "upstream_address_not_allowed"),
        ({"url": "ftp://api.example.com"}, "invalid_upstream_url"),
    ],
)
def test_a_refused_wish_leaves_no_event(change: dict[str, object], code: str) -> None:
    given().when(replace(CONNECT, **change)).then_rejected(code)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.example.com", "https://api.example.com/v1"),
        ("https://API.Example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com:443/openai/v1", "https://api.example.com/openai/v1"),
        ("https://api.example.com:8443/v1beta/openai//", "https://api.example.com:8443/v1beta/openai"),
        ("http://10.1.2.3:8000", "http://10.1.2.3:8000/v1"),
        ("http://[FD00::5]:8000/v1", "http://[fd00::5]:8000/v1"),
    ],
)
def test_a_url_is_kept_as_clients_of_openai_take_it(url: str, kept: str) -> None:
    [connected] = given().when(replace(CONNECT, url=url)).events
    assert connected.url == kept
    assert place_of_url(kept).url == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "//api.example.com",
        "https://",
        "https:///v1",
        "https://user:secret@api.example.com/v1",
        "https://api.example.com/v1?key=secret",
        "https://api.example.com/v1?",
        "https://api.example.com/v1#x",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/%2e%2e/admin",
        "https://api.example.com//v1",
        "https://api.example.com/v1\r\nx: y",
        "https://api.example.com/v1 ",
        "https://api.example.com\\@evil.example",
        "https://api.example.com:0",
        "https://api.example.com:65536",
        "https://api.example.com:x",
        "https://[::1",
        "https://[fe80::1%25eth0]/v1",
        "https://ex\u00e4mple.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://a." + "b" * 64,
        "https://" + "a" * 3000,
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    given().when(replace(CONNECT, url=url)).then_rejected("invalid_upstream_url")


@for_all(st.text() | st.text(alphabet="htps:/.@?#[]%v1a-").map("https://{}".format))
def test_no_text_breaks_the_reading_of_a_url(url: str) -> None:
    try:
        place = place_of_url(url)
    except Rejected as refusal:
        told = refusal.code
    else:
        told = "read again" if place_of_url(place.url).url == place.url else "read as something else"
    assert told in {"invalid_upstream_url", "read again"}


def test_a_key_is_replaced_by_another_one_alone() -> None:
    given(CONNECTED).when(OTHER_KEY).then(UpstreamKeyReplaced(key_digest=OTHER_KEY.key_digest))
    given(CONNECTED).when(ReplaceUpstreamKey(key_digest=CONNECTED.key_digest)).then_nothing()
    given(CONNECTED).when(ReplaceUpstreamKey(key_digest=Digest(""))).then_rejected("upstream_key_required")
    given().when(OTHER_KEY).then_rejected("deployment_not_found")


def test_another_key_has_another_place_in_the_vault() -> None:
    ids = {credential_id_of(DEPLOYED, Digest(key)) for key in ("k1", "k2")} | {credential_id_of("d2", Digest("k1"))}
    assert len(ids) == 3
    assert credential_id_of(DEPLOYED, Digest("")) == ""


def test_each_flag_is_an_act_of_its_own() -> None:
    without = replace(CONNECTED, activated=())
    given(without).when(ActivateUpstream(flag="technical")).then(UpstreamActivated(flag="technical"))
    given(CONNECTED).when(ActivateUpstream(flag="technical")).then_nothing()
    given(CONNECTED).when(DeactivateUpstream(flag="economic")).then(UpstreamDeactivated(flag="economic"))
    given(without).when(DeactivateUpstream(flag="economic")).then_nothing()
    state = state_after(DEPLOYMENT, [CONNECTED, UpstreamDeactivated(flag="economic")])
    assert state.upstream.activation.missing == ("economic",)


def test_a_stopped_upstream_is_over() -> None:
    given(CONNECTED).when(StopDeployment()).then(DeploymentStopped())
    given(CONNECTED, DeploymentStopped()).when(StopDeployment()).then_nothing()
    for command in (OTHER_KEY, ActivateUpstream(flag="technical"), DeactivateUpstream(flag="technical")):
        given(CONNECTED, DeploymentStopped()).when(command).then_rejected("deployment_stopped")
    assert state_after(DEPLOYMENT, [CONNECTED, DeploymentStopped()]).standing_upstream is None
