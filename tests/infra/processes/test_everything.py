"""What `inventiv up` tells its roles of addresses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from infra.environment import Environment
from infra.processes.data_folder import Ports
from infra.processes.everything import _environment_of_roles


def told(given: Environment) -> Environment:
    nats: Any = SimpleNamespace(url="nats://n", monitor_url="http://m", nodes=[1], replicas=1)
    postgres: Any = SimpleNamespace(url="postgres://p")
    return _environment_of_roles(given, PORTS, nats, postgres)


PORTS = Ports(api=18_003, gateway=18_002)


def test_addresses_are_made_of_the_host_and_the_ports(tmp_path: Path) -> None:
    roles = told(Environment(data_dir=tmp_path, secrets_dir=tmp_path, host="192.0.2.1"))
    assert (roles.api_url, roles.gateway_url) == ("http://192.0.2.1:18003", "http://192.0.2.1:18002")


def test_an_address_that_was_given_stays(tmp_path: Path) -> None:
    given = Environment(
        data_dir=tmp_path,
        secrets_dir=tmp_path,
        api_url="https://api.example.com",
        gateway_url="https://llm.example.com",
    )
    roles = told(given)
    assert (roles.api_url, roles.gateway_url) == (given.api_url, given.gateway_url)
