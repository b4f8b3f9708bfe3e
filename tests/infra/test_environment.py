from pathlib import Path

import pytest

from infra.environment import DEFAULT_API_PORT, read_environment


def test_everything_has_a_default() -> None:
    environment = read_environment({})
    assert environment.api_port == DEFAULT_API_PORT
    assert environment.secrets_dir == environment.data_dir / "secrets"


def test_each_variable_is_read_with_its_type(tmp_path: Path) -> None:
    environment = read_environment(
        {
            "INVENTIV_DATA_DIR": str(tmp_path),
            "INVENTIV_API_PORT": "9000",
            "INVENTIV_COOKIE_SECURE": "1",
            "INVENTIV_HEARTBEAT_INTERVAL_S": "0.5",
            "INVENTIV_ADMIN_PASSWORD_FILE": "/run/secrets/admin",
        }
    )
    assert environment.data_dir == tmp_path
    assert environment.api_port == 9000
    assert environment.cookie_secure
    assert environment.heartbeat_interval_s == 0.5
    assert environment.admin_password_file == Path("/run/secrets/admin")


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="api_port"):
        read_environment({"INVENTIV_API_PORT": "many"})


def test_an_empty_variable_counts_as_absent() -> None:
    assert read_environment({"INVENTIV_API_PORT": ""}).api_port == DEFAULT_API_PORT


def test_our_own_proxies_are_addresses_or_networks() -> None:
    assert read_environment({}).proxy_networks == ()
    told = read_environment({"INVENTIV_TRUSTED_PROXIES": "10.0.0.0/8, ::1,"}).proxy_networks
    assert [str(network) for network in told] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(ValueError, match="trusted_proxies"):
        read_environment({"INVENTIV_TRUSTED_PROXIES": "proxy.internal"})


def test_what_upstreams_may_have_is_read_and_a_slip_in_it_stops_the_start() -> None:
    assert read_environment({}).outbound_rules.listed == ()
    told = read_environment({"INVENTIV_UPSTREAM_ALLOW": "127.0.0.1:11434, 10.0.0.0/8,llm-d.internal"}).outbound_rules
    assert [(one.host, str(one.network or ""), one.port) for one in told.listed] == [
        ("", "127.0.0.1/32", 11434),
        ("", "10.0.0.0/8", 0),
        ("llm-d.internal", "", 0),
    ]
    with pytest.raises(ValueError, match="upstream_allow"):
        read_environment({"INVENTIV_UPSTREAM_ALLOW": "http://10.0.0.1"})


@pytest.mark.parametrize(("given", "fits"), [("4", False), ("5", True), ("86400", True), ("86401", False)])
def test_a_table_is_trusted_for_five_seconds_to_a_day(given: str, fits: bool) -> None:
    if fits:
        assert read_environment({"INVENTIV_KEY_TRUST_S": given}).key_trust_s == int(given)
        return
    with pytest.raises(ValueError, match="key_trust_s"):
        read_environment({"INVENTIV_KEY_TRUST_S": given})
